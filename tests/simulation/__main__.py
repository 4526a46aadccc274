"""Looks at histories: `python -m tests.simulation 17` tells one, `python -m tests.simulation 0 500` runs many."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter

from tests.simulation.checks import faults_of, wrong
from tests.simulation.history import History


def tell(seed: int) -> list[str]:
    """What happened in one history, and what is wrong with it."""
    history = History(seed)
    try:
        history.run()
        return [*history.told.lines, *(wrong(history) or ["nothing is wrong"])]
    finally:
        history.end()


def looked_at(seed: int) -> tuple[int, list[str]]:
    try:
        return seed, faults_of(seed)
    except Exception as error:  # noqa: BLE001 - the others are run all the same
        return seed, [f"the history itself broke: {error!r}"]


def many(first: int, last: int) -> Iterator[tuple[int, list[str]]]:
    """The histories of some seeds that show a fault."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from (found for found in pool.map(looked_at, range(first, last), chunksize=10) if found[1])


def main(first: int, last: int | None = None) -> int:
    if last is None:
        print(*tell(first), sep="\n")
        return 0
    begun_at, bad = perf_counter(), 0
    for seed, faults in many(first, last):
        bad += 1
        print(f"seed {seed}:", *faults, sep="\n  ", flush=True)
    print(f"{last - first} histories in {perf_counter() - begun_at:.0f} s, {bad} with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
