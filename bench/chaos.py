"""Rounds of faults by a seed, on processes of their own, and a check that shares no decision with the product.

    python bench/chaos.py 4                    one round, some four minutes; the last line says ok, or what is wrong
    python bench/chaos.py 8 9 --nozombie       no worker stands still longer than its session lasts
    python bench/chaos.py 9 --keep --tag x     keeps the data of the broker and the workers
    python bench/chaos.py show seed-9x         the figures and examples of a round

A round has a broker, ClickHouse, three workers, and providers that write down each call. For 70 s it asks for all that
can be asked, and for much that cannot. Meanwhile workers are killed, also while they start, stopped, wiped, or stand
still for up to 40 s; the broker and ClickHouse are killed or stand still; providers are away, limits change, lanes
pause. Then all comes back, and everything is worked out anew from the topics, the providers' journal and the ledger.
The words for what is wrong are explained in bench/chaos_parts/checks.py. It ends with an error when a round has found
anything.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.chaos_parts import plan
from bench.chaos_parts.mix import MIXES
from bench.chaos_parts.round import Round, run, show
from bench.chaos_parts.stack import Limits
from bench.proving.running import stop_in_order

FOLDER = Path(tempfile.gettempdir()) / "spillway-chaos"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.what[0] == "show":
        for name in options.what[1:]:
            print(show(options.folder / name))
        return 0
    good = True
    for seed in map(int, options.what):
        result = asyncio.run(run(_round(seed, options)))
        print(result.line(), flush=True)
        good = good and not result.wrong
    return 0 if good else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="seeds; or `show` and names of rounds")
    parser.add_argument("--seconds", type=float, default=70.0, help="of load")
    parser.add_argument("--rate", type=float, default=45.0, help="requests a second")
    parser.add_argument("--mix", choices=MIXES, default="all", help="what is asked for")
    parser.add_argument("--many", type=int, default=200, help="workspaces of the mix `many`")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rpm", type=int, default=540, help="openai's limit")
    parser.add_argument("--tpm", type=int, default=20_000, help="the local model's limit")
    parser.add_argument("--faults", type=float, default=1.0, help="how often providers fail by themselves; 0 is never")
    parser.add_argument("--bound", type=float, default=240.0, help="seconds until all must be quiet")
    parser.add_argument("--plan", type=Path, help="a plan.json, instead of the faults of the seed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the folders of rounds are")
    parser.add_argument("--tag", default="", help="appended to the folder's name")
    parser.add_argument("--keep", action="store_true", help="keep the data of the broker and the workers")
    parser.add_argument("--nozombie", action="store_true", help="no stand-still is longer than a session")
    parser.add_argument("--norepeat", action="store_true", help="do not publish finished requests again")
    parser.add_argument("--norebuild", action="store_true", help="do not make the tables anew")
    options = parser.parse_args(arguments)
    if options.what[0] != "show" and not all(word.isdecimal() for word in options.what):
        parser.error("seeds are numbers")
    return options


def _round(seed: int, options: argparse.Namespace) -> Round:
    faults = plan.read(options.plan) if options.plan else plan.plan(seed, options.seconds)
    return Round(
        seed=seed,
        folder=options.folder / f"seed-{seed}{options.tag}",
        plan=plan.without_zombies(faults) if options.nozombie else faults,
        seconds=options.seconds,
        rate=options.rate,
        workers=options.workers,
        limits=Limits(options.rpm, options.tpm, options.faults),
        mix=options.mix,
        many=options.many,
        bound=options.bound,
        keep=options.keep,
        repeat=not options.norepeat,
        rebuild=not options.norebuild,
    )


if __name__ == "__main__":
    stop_in_order()
    sys.exit(main())
