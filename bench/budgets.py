"""Rounds against a budget that refuses: 500 requests at once where there is money for 100, a worker killed in every
second round. How to read it: docs/benchmarks.md.

    .venv/bin/python bench/budgets.py --rounds 10
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.load.money import PRICE, BudgetRound, priced, run_budget_round
from tests.support.provider.instant import Provider
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import lane_owner, start

ROWS = (
    "overspent, $",
    "succeeded",
    "refused",
    "calls made",
    "in doubt in the ledger",
    "account less ledger, $",
    "still reserved, $",
)


def figures(done: BudgetRound) -> dict[str, Any]:
    assert done.state is not None
    over = max(done.most, done.called * PRICE, done.ledger) - done.limit
    return {
        "overspent, $": max(over, 0),
        "succeeded": done.statuses["succeeded"],
        "refused": done.statuses["rejected budget_exceeded"],
        "calls made": done.called,
        "in doubt in the ledger": done.in_doubt,
        "account less ledger, $": done.state.spent - done.ledger,
        "still reserved, $": done.state.reserved,
    }


async def one_round(
    stack: DevStack, settings: Settings, folder: Path, told: argparse.Namespace, kill: bool
) -> dict[str, Any]:
    provider = Provider.start(folder, delay_ms=300)
    workers: list[Child] = []
    try:
        await asyncio.to_thread(start, stack, workers, 2, provider.environment() | priced(folder))
        accident = (lambda: lane_owner(workers).kill()) if kill else None
        done = await run_budget_round(settings, provider, requests=told.requests, room_for=told.room, accident=accident)
        return figures(done)
    finally:
        for worker in workers:
            await asyncio.to_thread(worker.stop)
        provider.stop()


async def main(told: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        stack = free_stack(Path(name) / "stack")
        await asyncio.to_thread(stack.start)
        try:
            settings = settings_of(stack)
            rounds = [
                await one_round(stack, settings, Path(name), told, kill=number % 2 == 1)
                for number in range(told.rounds)
            ]
        finally:
            await asyncio.to_thread(stack.stop)
    print("| round | " + " | ".join(f"{n + 1}{', killed' if n % 2 else ''}" for n in range(told.rounds)) + " |")
    print("|---" * (told.rounds + 1) + "|")
    for row in ROWS:
        print(
            f"| {row} | "
            + " | ".join(
                f"{found[row]:f}".rstrip("0").rstrip(".") if "$" in row else str(found[row]) for found in rounds
            )
            + " |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--room", type=int, default=100, help="requests that there is money for")
    asyncio.run(main(parser.parse_args()))
