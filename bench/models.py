"""The state machines of the lanes, the desk, the queue and a request's life, with far more examples than `make test`,
and others each time.

python bench/models.py                    20,000 examples each, about half an hour
python bench/models.py --examples 5000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--durations=10", "-o", "timeout=0", "tests/model"]
    told = os.environ | {"SPILLWAY_EXAMPLES": str(options.examples)}
    return subprocess.run(command, cwd=Path(__file__).parents[1], env=told, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
