"""Requests through real workers with faults, retries and fallbacks; a worker killed; usage read again from the start;
then everything compared with the provider's own bill. Shared by tests/e2e and bench/audit.py.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from app.audit.run import Asked, Report, audit
from app.clickhouse.client import ClickHouse
from app.clickhouse.period import Period
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.money import ZERO
from streams.topology import REQUESTS, RESPONSES, USAGE, ledger_group
from tests.support.clock.months import in_one_month
from tests.support.clock.pace import Pace
from tests.support.clock.waiting import eventually
from tests.support.provider.billing import PRICES, Biller, billing
from tests.support.reader.offsets import rewind, waiting
from tests.support.reader.topics import consume_until, reading
from tests.support.stack.workers import WIDE_LANES
from tests.support.values.names import unique

WORKSPACES = 20


@dataclass
class Reconciled:
    """What it came to. Costs are US dollars; `known` is of attempts that are not in doubt."""

    requests: int
    report: Report
    ends: dict[str, int]
    attempts: int = 0
    providers: int = 0
    in_doubt: int = 0
    known: Decimal = ZERO
    billed: Decimal = ZERO
    #: Calls that were billed, and what the ledger says of their attempts: nothing, or another cost.
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    audit_seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        counts = self.report.verdict.figures.counts
        return {
            "requests": self.requests,
            "calls": self.ends,
            "attempts in the ledger": self.attempts,
            "in doubt": self.in_doubt,
            "ledger without those in doubt": str(self.known),
            "the provider's bill of the same": str(self.billed),
            "billed and not in the ledger": len(self.missing),
            "billed otherwise": len(self.different),
            "audit": dict(counts),
            "findings": {kind.value: count for kind, count in self.report.verdict.findings.counts.items()},
            "seconds of the audit": round(self.audit_seconds, 1),
        }


async def reconcile(stack: DevStack, settings: Settings, folder: Path, count: int, rate: float) -> Reconciled:
    """The whole of it."""
    await in_one_month(count / rate + 180)
    begun, prefix = datetime.now(UTC) - timedelta(seconds=1), unique("bill")
    workers: list[Child] = []
    async with billing() as biller:
        told = _environment(folder, biller)
        try:
            workers += [await _start(stack, 1, told), await _start(stack, 2, told)]
            await _answered(settings, prefix, count, rate, workers[0])
            for worker in workers:
                await asyncio.to_thread(worker.stop)
            group = ledger_group(settings.kafka_application_id)
            await rewind(settings.kafka_bootstrap_servers, group, USAGE)
            workers.append(await _start(stack, 3, told))
            await eventually(lambda: _all_read(settings, group), within=120, every=1.0, what="all usage is read again")
            return await _compare(settings, biller, Asked(Period(begun, datetime.now(UTC)), patience=0), prefix, count)
        finally:
            for worker in workers:
                await asyncio.to_thread(worker.stop)


def _environment(folder: Path, biller: Biller) -> dict[str, str]:
    file = folder / "prices.toml"
    file.write_text(
        "".join(f'[prices.{name}]\ninput_mtok = "{i}"\noutput_mtok = "{o}"\n' for name, (i, o) in PRICES.items())
    )
    return {
        **biller.environment(),
        **WIDE_LANES,
        "AI_SETTINGS_FILE": str(file),
        "AI_FALLBACK_PROVIDERS": "openai",
        "AI_RETRY_DELAY": "0.1",
        "AI_ENABLE_CACHING": "false",
    }


async def _start(stack: DevStack, number: int, told: dict[str, str]) -> Child:
    worker = stack.worker(number, **told)
    worker.start()
    await asyncio.to_thread(worker.wait_ready, 90)
    return worker


async def _answered(settings: Settings, prefix: str, count: int, rate: float, victim: Child) -> None:
    """Publish, kill a worker when half of it is published, and wait for every response."""
    servers = settings.kafka_bootstrap_servers
    async with reading(servers, RESPONSES) as consumer:
        publishing = asyncio.create_task(_publish(servers, prefix, count, rate, victim))
        left = {f"{prefix}-{number}" for number in range(count)}

        def new(record: Any) -> bool:
            left.discard(json.loads(record.value)["request_id"])
            return False

        await consume_until(consumer, lambda _: not left, only=new, within=count / rate + 180)
        await publishing


async def _publish(servers: str, prefix: str, count: int, rate: float, victim: Child) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await producer.start()
    pace = Pace(rate)
    try:
        for number in range(count):
            workspace = f"{prefix}-w{number % WORKSPACES}"
            body = {"request_id": f"{prefix}-{number}", "workspace_id": workspace, "prompt": f"{number}?"}
            preferred = {"preferred_providers": [("claude", "openai")[number % 2]]}
            await producer.send(REQUESTS, json.dumps(body | preferred).encode(), key=workspace.encode())
            if number == count // 2:
                await asyncio.to_thread(victim.kill)
            await pace.step()
        await producer.flush()
    finally:
        await producer.stop()


async def _all_read(settings: Settings, group: str) -> bool:
    servers = settings.kafka_bootstrap_servers
    return await waiting(servers, group, USAGE) == 0


async def _audit_at_rest(settings: Settings, asked: Asked) -> tuple[Report, float] | None:
    """The audit and its seconds; None while a budget is said anew, or the ledger gets a row: these are not compared."""
    begun = time.monotonic()
    report = await audit(settings, asked)
    counts = report.verdict.figures.counts
    return (report, time.monotonic() - begun) if counts["budgets"] and not counts["budgets_moving"] else None


async def _compare(settings: Settings, biller: Biller, asked: Asked, prefix: str, count: int) -> Reconciled:
    report, seconds = await eventually(
        lambda: _audit_at_rest(settings, asked), within=60, every=0.5, what="budgets can be compared"
    )
    found = Reconciled(count, report, dict(biller.ends), audit_seconds=seconds)
    sql = (
        "SELECT concat(request_id, '/', toString(attempt)), toString(outcome), cost, provider FROM ledger "
        "WHERE startsWith(request_id, {prefix:String})"
    )
    async with ClickHouse(settings) as database:
        rows = (await database.query(sql, {"prefix": f"{prefix}-"})).rows
    found.attempts, found.providers = len(rows), len({row[3] for row in rows})
    ledger = {attempt: (outcome, cost) for attempt, outcome, cost, _ in rows}
    found.in_doubt = sum(outcome == "in_doubt" for outcome, _ in ledger.values())
    found.known = sum((cost for outcome, cost in ledger.values() if outcome != "in_doubt"), ZERO)
    for attempt, charges in biller.bill.items():
        outcome, cost = ledger.get(attempt, ("", ZERO))
        if not outcome:
            found.missing.append(attempt)
        elif outcome != "in_doubt":
            billed = sum((charge.cost for charge in charges), ZERO)
            found.billed += billed
            if billed != cost:
                found.different.append(f"{attempt}: billed {billed}, ledger {cost}")
    return found
