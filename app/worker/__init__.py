"""One process with all stages: `build.py` puts it together, part by part (app/run.py runs it)."""
