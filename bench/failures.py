"""What is lost when a worker dies: rounds of kill -9 and of SIGTERM under load, and a count of everything afterwards.

python bench/failures.py --rounds 5 --requests 10000 --rate 400
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.devstack.stack import DevStack
from tests.support.load.rounds import Load, run_round
from tests.support.provider.instant import Provider
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import start_workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--delay-ms", type=int, default=50, help="how long the provider takes")
    parser.add_argument("--kind", choices=("kill", "term", "both"), default="both")
    options = parser.parse_args()
    kinds = ("kill", "term") if options.kind == "both" else (options.kind,)
    with tempfile.TemporaryDirectory() as folder:
        stack = free_stack(Path(folder) / "stack")
        stack.start()
        try:
            for kind in kinds:
                for number in range(1, options.rounds + 1):
                    print(kind, number, json.dumps(_round(stack, Path(folder), kind, options)), flush=True)
        finally:
            stack.stop()


def _round(stack: DevStack, folder: Path, kind: str, options: argparse.Namespace) -> dict[str, object]:
    provider = Provider.start(folder, options.delay_ms)
    try:
        victim, *_ = start_workers(stack, provider, 2)
        load = Load(options.requests, options.rate, victim.kill if kind == "kill" else victim.ask_to_stop)
        return asyncio.run(run_round(settings_of(stack), provider, load)).summary()
    finally:
        for name, part in stack.parts.items():
            if name.startswith("worker"):
                part.stop()
        provider.stop()


if __name__ == "__main__":
    main()
