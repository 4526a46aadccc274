"""pytest with the given arguments under coverage, all processes of the tests with it; then a line for each package.

python bench/covered.py -m "not prove" tests/unit
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.proving.packages import shown
from bench.proving.version import ROOT

#: Where the report goes; the data is beside it (pyproject.toml, tool.coverage).
REPORT = ROOT / ".prove" / "coverage" / "report.json"


def main() -> int:
    # pytest gets Ctrl-C as well and ends in order; until then there is nothing to do here.
    signal.signal(signal.SIGINT, lambda *_: None)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    _coverage("erase")
    code = _coverage("run", "-m", "pytest", *sys.argv[1:])
    _coverage("combine", "--quiet")
    REPORT.unlink(missing_ok=True)
    _coverage("json", "--quiet", "-o", str(REPORT))
    if not REPORT.exists():
        print("nothing was measured")
        return code or 1
    print(f"\n{shown(json.loads(REPORT.read_bytes()))}\n\nby line: {REPORT.relative_to(ROOT)}", flush=True)
    return code


def _coverage(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-u", "-m", "coverage", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
