"""Whether the ledger is the provider's own bill, after faults, a kill and a replay of all usage; and an audit's time.

python bench/audit.py                     10,000 requests at 150/s; about three minutes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.load.reconcile import reconcile
from tests.support.stack.running import free_stack, settings_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=150.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = free_stack(folder / "stack")
        stack.start()
        try:
            found = asyncio.run(reconcile(stack, settings_of(stack), folder, options.requests, options.rate))
            print(json.dumps(found.summary(), indent=2))
        finally:
            stack.stop()
    wrong = found.missing or found.different or found.known != found.billed
    sys.exit(bool(wrong) or not found.report.verdict.findings.clean)


if __name__ == "__main__":
    main()
