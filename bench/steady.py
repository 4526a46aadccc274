"""Whether the tests of `make test` are steady: N runs of them beside a process that takes one core. `make steady N=10`

All runs of the same code add up in .prove/steady.jsonl, so that ten can be made in two times five.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.proving.busy import busy_core
from bench.proving.repeated import OneRun, append, read, sum_up
from bench.proving.running import run_live, stop_in_order
from bench.proving.version import ROOT, shown, version

FOLDER = ROOT / ".prove"
#: Seconds after which a run is ended and has failed.
LIMIT = 1800.0
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    options = _options(arguments)
    code = version()
    kept = folder / "steady.jsonl"
    good = True
    try:
        for number in range(1, options.runs + 1):
            print(f"\nrun {number} of {options.runs}, code {shown(code)}", flush=True)
            run = _run(shlex.split(options.suite), code, folder)
            append(kept, run)
            good = good and run.good
    except KeyboardInterrupt:
        print("\ninterrupted; the runs that ended count", flush=True)
        return INTERRUPTED
    finally:
        print(f"\nall runs of {shown(code)}\n{sum_up(read(kept, code))}", flush=True)
    return 0 if good else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--suite", required=True, help="pytest's arguments of `make test`; the Makefile has them")
    return parser.parse_args(arguments)


def _run(suite: Sequence[str], code: str, folder: Path) -> OneRun:
    run = OneRun(version=code)
    report, log = folder / "steady.xml", folder / f"steady-{run.begun.replace(':', '')}.log"
    report.unlink(missing_ok=True)
    command = [Path(sys.executable).with_name("pytest").as_posix(), *suite]
    with busy_core(LIMIT + 60):
        ended = run_live([*command, "-o", "junit_family=xunit1", "--junitxml", str(report)], log, LIMIT)
    run.code, run.seconds = ended.code, round(ended.seconds, 1)
    run.read(report)
    if run.good:
        log.unlink()
    else:
        run.log = log.name
    return run


if __name__ == "__main__":
    stop_in_order()
    sys.exit(main())
