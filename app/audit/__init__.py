"""Whether requests, responses, usage, ledger and budgets of a period agree. `run.py` reads, `compare.py` judges."""
