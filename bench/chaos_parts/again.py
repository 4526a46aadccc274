"""What is tried when all is quiet: finished requests once more, and tables that are made anew."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import defaultdict
from decimal import Decimal
from typing import Any

from bench.chaos_parts.checks import newest_states, not_the_ledger
from bench.chaos_parts.facts import EXAMPLES, Facts, Found, calls_of
from bench.chaos_parts.records import behind, read_all
from bench.chaos_parts.stack import Stack, holds
from tests.support.reader.topics import publish

#: How many finished requests are published once more: while the workers run on, and to one with new tables.
MOST, MOST_ANEW = 1_200, 60
#: Seconds that a call takes to be made, if it is.
A_CALL = 3.0
#: Seconds that a worker with new tables has to say again what it knows.
SAID_WITHIN = 8.0
STOPS_WITHIN = 60.0


async def repeat(stack: Stack, facts: Facts) -> Found:
    """Finished requests are published once more: nobody is called."""
    before = calls_of(stack.journal.read_text().splitlines())
    names = await _publish_again(stack, facts, MOST, max_tokens=64)

    async def read() -> bool:
        return not await behind(stack.servers, ["spillway"])

    await holds(read, within=30, every=1.5)
    await asyncio.sleep(A_CALL)
    calls = calls_of(stack.journal.read_text().splitlines())[len(before) :]
    figures = {"repeated": names, "calls": [call.attempt for call in calls[:EXAMPLES]]}
    return Found({"finished_paid_again": len(calls)}, figures)


async def rebuild(stack: Stack, facts: Facts) -> Found:
    """All workers stop, their folders are removed, and one makes its tables out of the changelogs: its accounts are the
    ledger, and it knows what is finished.
    """
    for worker in stack.workers.values():
        worker.ask_to_stop()
    for number, worker in stack.workers.items():
        if not await worker.ended(STOPS_WITHIN):
            stack.note("term_hangs", worker=number)
            worker.kill()
    codes = {worker.name: worker.exit_code for worker in stack.workers.values()}
    for number in stack.workers:
        shutil.rmtree(stack.data(number), ignore_errors=True)
    begun = time.time()
    stack.worker(1).start()
    ready = await stack.ready([1])
    took = time.time() - begun
    before = calls_of(stack.journal.read_text().splitlines())
    names = await _publish_again(stack, facts, MOST_ANEW)
    await asyncio.sleep(SAID_WITHIN)
    calls = calls_of(stack.journal.read_text().splitlines())[len(before) :]
    said = (await read_all(stack.servers, ["ai.budget.state"]))["ai.budget.state"]
    states = newest_states(record for record in said if record.at > begun)
    ledger: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    sql = "SELECT workspace_id, budget_month, toString(sum(cost)) AS cost FROM ledger GROUP BY ALL"
    for row in await stack.ask_clickhouse(sql):
        ledger[row["workspace_id"], row["budget_month"]] = Decimal(row["cost"])
    differs = not_the_ledger(states, ledger)
    return Found(
        {"rebuild_not_ready": int(not ready), "rebuild_differs": len(differs), "rebuild_calls": len(calls)},
        {
            "ready after, s": round(took, 1),
            "exit codes": codes,
            "accounts said": len(states),
            "of": len(ledger),
            "differs": differs[:EXAMPLES],
            "repeated": names,
            "calls": [call.attempt for call in calls[:EXAMPLES]],
        },
    )


async def _publish_again(stack: Stack, facts: Facts, most: int, **more: Any) -> int:
    """Every so manyth of the requests, with another prompt; returns how many."""
    known = [name for name in facts.asked if name in facts.present]
    chosen = known[:: max(1, len(known) // most)]
    records: list[tuple[bytes | None, bytes | None]] = []
    for name in chosen:
        workspace = facts.asked[name].workspace
        body = {"request_id": name, "workspace_id": workspace, "prompt": f"[tag={name}] again", **more}
        records.append((workspace.encode(), json.dumps({**body, "cache": {"enabled": False}}).encode()))
    await publish(stack.servers, "ai.requests", records)
    return len(chosen)
