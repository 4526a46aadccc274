"""What is lost when something breaks: rounds of accidents under load, and a count of everything afterwards.

python bench/failures.py --rounds 5 --requests 10000 --rate 400
python bench/failures.py --rounds 3 --seed 7            which worker, and when, is drawn
python bench/failures.py --kind silent --rounds 6 --delay-ms 1000

The worker is the first, and half of the requests are published, unless a seed draws them. It ends with an error when a
round has broken a promise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.devstack.stack import DevStack
from tests.support.load.accidents import KINDS, accident_of, small_disk
from tests.support.load.rounds import Load, run_round
from tests.support.provider.instant import Provider
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import start_workers

WORKERS = 2
#: What must be nothing after any accident, and what an orderly stop does not do either.
NEVER = (
    "lost",
    "contradicted",
    "calls twice under one id",
    "repeated though reported",
    "calls without a ledger row",
    "accounts that are not the ledger",
)
#: Where nothing has died, what was called is known.
NEVER_WITHOUT_A_KILL = ("repeated calls", "in doubt")
NEVER_BY_A_STOP = ("repeated calls", "responses repeated", "usage repeated", "in doubt")


def main() -> int:
    options = _options()
    kinds = {"both": ("kill", "term"), "all": tuple(KINDS)}.get(options.kind, (options.kind,))
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stack = free_stack(Path(folder) / "stack")
        stack.start()
        try:
            for kind, number in product(kinds, range(1, options.rounds + 1)):
                if broken := _checked(stack, Path(folder), kind, number, options):
                    wrong.append(f"{kind} {number}: {broken}")
        finally:
            stack.stop()
    if wrong:
        print("broken promises:", "; ".join(wrong), flush=True)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--workspaces", type=int, default=40)
    parser.add_argument("--delay-ms", type=int, default=50, help="how long the provider takes")
    told = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
    parser.add_argument("--kind", choices=(*KINDS, "both", "all"), default="both", help=f"both: kill and term. {told}")
    parser.add_argument("--seed", type=int, help="draws the victim and the moment of each round")
    parser.add_argument("--logs", type=Path, help="where the logs go of a round that has broken a promise")
    return parser.parse_args()


def drawn(seed: int | None, kind: str, number: int, requests: int) -> tuple[int, int]:
    """Which worker of a round is the victim, and after how many requests."""
    if seed is None:
        return 0, requests // 2
    dice = random.Random(f"{seed}/{kind}/{number}")  # noqa: S311 - the same again for the same seed
    return dice.randrange(WORKERS), dice.randrange(requests // 10, requests - requests // 10)


def broken_promises(kind: str, summary: dict[str, Any]) -> str:
    """What is not nothing and should be, or an empty text."""
    more = {"kill": (), "silent": (), "still": (), "term": NEVER_BY_A_STOP}
    names = NEVER + more.get(kind, NEVER_WITHOUT_A_KILL)
    return ", ".join(f"{name}: {summary[name]}" for name in names if summary[name])


def _checked(stack: DevStack, folder: Path, kind: str, number: int, options: argparse.Namespace) -> str:
    """Run a round and say what was wrong with it."""
    try:
        summary = _round(stack, folder, kind, number, options)
    except AssertionError as error:
        broken = str(error)
        print(kind, number, broken, flush=True)
    else:
        print(kind, number, json.dumps(summary), flush=True)
        broken = broken_promises(kind, summary)
    if broken and options.logs:
        shutil.copytree(stack.folder / "logs", options.logs / f"{kind}-{number}", dirs_exist_ok=True)
    return broken


def _round(stack: DevStack, folder: Path, kind: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    chosen, after = drawn(options.seed, kind, number, options.requests)
    provider = Provider.start(folder, options.delay_ms)
    disk = small_disk(stack.folder / f"worker-{chosen + 1}") if kind == "disk" else nullcontext(True)
    try:
        with disk as there:
            if not there:
                raise AssertionError("a small disk in memory may not be mounted here")
            victim = start_workers(stack, provider, WORKERS, AI_PAUSE_SECONDS="5")[chosen]
            accident = accident_of(kind, stack, victim)
            load = Load(
                *(options.requests, options.rate, accident),
                answers_within=240.0,
                accident_after=after,
                workspaces=options.workspaces,
            )
            done = asyncio.run(run_round(settings_of(stack), provider, load))
            for worker in stack.parts.values():
                if worker.name.startswith("worker"):
                    worker.stop()
        for words in done.books[:5]:
            print("   ", words, flush=True)
        return {"victim": chosen + 1, "after": after} | done.summary()
    finally:
        for name, part in stack.parts.items():
            if name.startswith("worker"):
                part.stop()
        provider.stop()


if __name__ == "__main__":
    sys.exit(main())
