"""`python -m app.asyncapi` writes `schemas/asyncapi.json`; with `--check` it only says whether that is current."""

from __future__ import annotations

import sys

from app.asyncapi.export import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
