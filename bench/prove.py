"""All that must hold, with fresh random examples and rounds of kills: `make prove`. The results are kept in .prove/.

make prove                        goes on with an unfinished run of the same code, or draws a seed and begins
make prove PART=models SEED=123   one part, exactly as it was
make prove FRESH=1                begins anew, whatever has passed already
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.proving.parts import PARTS, Part, Told
from bench.proving.results import PartResult, Result, Run, Wanted, begin, read, write
from bench.proving.running import Ended, run_live, stop_in_order
from bench.proving.table import table
from bench.proving.version import ROOT, shown, version

FOLDER = ROOT / ".prove"
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS, folder: Path = FOLDER) -> int:
    options = _options(arguments, parts)
    wanted = Wanted(seed=options.seed, part=options.part, fresh=options.fresh)
    runs = read(folder / "results.json")
    run = begin(runs, version(), [part.name for part in parts], wanted)
    chosen = [part for part in parts if options.part in {None, part.name}]
    print(f"seed {run.seed}, code {shown(run.version)}", flush=True)
    told = Told(run.seed, tuple(shlex.split(options.suite)))
    try:
        for part in chosen:
            if options.part is None and run.passed(part.name):
                print(f"{part.name}: has passed for this code and seed already; FRESH=1 runs it again", flush=True)
                continue
            try:
                run.parts[part.name] = _prove(part, told, folder)
            except KeyboardInterrupt:
                run.parts[part.name] = PartResult(result=Result.INTERRUPTED, minutes=0)
                raise
            finally:
                write(folder / "results.json", runs)
    except KeyboardInterrupt:
        again = f" PART={options.part}" if options.part else ""
        print(
            f"\n{summary(run, chosen)}\n\ninterrupted; it goes on with: make prove{again} SEED={run.seed}", flush=True
        )
        return INTERRUPTED
    print(f"\n{summary(run, chosen)}", flush=True)
    return 0 if all(run.passed(part.name) for part in chosen) else 1


def _options(arguments: Sequence[str] | None, parts: Sequence[Part]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[part.name for part in parts])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--suite", required=True, help="pytest's arguments of `make test`; the Makefile has them")
    return parser.parse_args(arguments)


def _prove(part: Part, told: Told, folder: Path) -> PartResult:
    print(f"\n{part.name}, seed {told.seed}, at most {part.limit:g} minutes. {part.proves}", flush=True)
    ended = run_live(part.command(told), folder / f"{part.name}.log", part.limit * 60, part.environment)
    result = judge(ended)
    if result != Result.PASSED:
        print(f"{part.name}: {result}. To repeat it: make prove PART={part.name} SEED={told.seed}", flush=True)
    return PartResult(result=result, minutes=round(ended.seconds / 60, 1))


def judge(ended: Ended) -> Result:
    if ended.code is None:
        return Result.LATE
    return Result.PASSED if ended.code == 0 else Result.FAILED


def summary(run: Run, parts: Sequence[Part]) -> str:
    """One line for each part."""
    rows = []
    for part in parts:
        found = run.parts.get(part.name)
        rows.append((part.name, found.result if found else "not run", found.minutes if found else "", run.seed))
    return table(("part", "result", "minutes", "seed"), rows, right=(2, 3))


if __name__ == "__main__":
    stop_in_order()
    sys.exit(main())
