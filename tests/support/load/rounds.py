"""One round of a failure: a steady load on real workers, something done to one of them in the middle, and a count of
everything afterwards. Shared by tests/e2e (one round each) and bench/failures.py (many).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.settings import Settings
from tests.support.clock.pace import Pace
from tests.support.clock.waiting import eventually
from tests.support.load.books import not_alike
from tests.support.provider.instant import Provider
from tests.support.reader.topics import reading
from tests.support.values.names import unique

WORKSPACES = 40


@dataclass
class Round:
    """What one round came to. Times are seconds since 1970."""

    ids: list[str]
    responses: dict[str, list[bytes]] = field(default_factory=dict)
    started: float = 0.0
    accident_at: float = 0.0
    accident_ended_at: float = 0.0
    last_answer_at: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    cut_calls: int = 0
    in_flight_at_accident: int = 0
    begun_before_accident: set[str] = field(default_factory=set)
    reported_before_accident: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    #: Attempts that were asked about before their own report was with the broker, whenever it was written.
    asked_about_first: set[str] = field(default_factory=set)
    usage_records: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, str] = field(default_factory=dict)
    #: Where the accounts are not the ledger, in words.
    books: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        return [identity for identity in self.ids if identity not in self.responses]

    @property
    def contradicted(self) -> list[str]:
        return [identity for identity, bodies in self.responses.items() if len(set(bodies)) > 1]

    @property
    def repeated_responses(self) -> int:
        return sum(len(bodies) - 1 for bodies in self.responses.values())

    @property
    def repeated_usage(self) -> int:
        return sum(self.usage_records.values()) - len(self.usage_records)

    @property
    def unreported_at_accident(self) -> set[str]:
        """Attempts that had begun and whose report was not with the broker: all that a kill can make doubtful."""
        return self.begun_before_accident - self.reported_before_accident | self.asked_about_first

    @property
    def repeated_though_known(self) -> set[str]:
        """Attempts that were called again although their reports were with the broker when they were asked about."""
        return (self.repeated_calls & self.reported) - self.asked_about_first

    @property
    def repeated_calls(self) -> set[str]:
        """Attempts after which the same request was called again."""
        return {before(attempt) for attempt in self.calls} & set(self.calls)

    @property
    def in_doubt(self) -> list[str]:
        return [attempt for attempt, outcome in self.ledger.items() if outcome == "in_doubt"]

    def summary(self) -> dict[str, Any]:
        return {
            "requests": len(self.ids),
            "lost": len(self.missing),
            "contradicted": len(self.contradicted),
            "responses repeated": self.repeated_responses,
            "usage repeated": self.repeated_usage,
            "calls": sum(self.calls.values()),
            "calls twice under one id": sum(count > 1 for count in self.calls.values()),
            "repeated calls": len(self.repeated_calls),
            "in flight at the accident": self.in_flight_at_accident,
            "in flight or not reported": len(self.unreported_at_accident),
            "repeated though reported": len(self.repeated_calls - self.unreported_at_accident),
            "calls cut off": self.cut_calls,
            "in doubt": len(self.in_doubt),
            "ledger rows": len(self.ledger),
            "calls without a ledger row": len(set(self.calls) - set(self.ledger)),
            "accounts that are not the ledger": len(self.books),
            "seconds to the last answer": round(self.last_answer_at - self.started, 1),
        }


def before(attempt: str) -> str:
    """The attempt before this one of the same request: `r-7/2` → `r-7/1`."""
    request, number = attempt.rsplit("/", 1)
    return f"{request}/{int(number) - 1}"


@dataclass
class Load:
    """`requests` at `rate` per second; the accident happens when `accident_after` of them are published, or half.
    `recovery` brings back what it has stopped, when all answers are there or the time for them is over.
    """

    requests: int
    rate: float
    accident: Callable[[], None]
    answers_within: float = 120.0
    recovery: Callable[[], None] | None = None
    accident_after: int | None = None
    workspaces: int = WORKSPACES
    #: Requests are published while it happens, too.
    goes_on: bool = False


async def run_round(settings: Settings, provider: Provider, load: Load) -> Round:
    """Publish, let the accident happen, wait for every answer and for the ledger, count."""
    prefix = unique("r")
    done = Round([f"{prefix}-{number}" for number in range(load.requests)])
    servers = settings.kafka_bootstrap_servers
    async with reading(servers, "ai.responses") as answers, reading(servers, "ai.usage") as usage:
        done.started = time.time()
        collecting = asyncio.create_task(_collect(answers, done, prefix))
        counting = asyncio.create_task(_count_usage(usage, done, prefix))
        await _publish(servers, done, load)
        with suppress(TimeoutError):
            await asyncio.wait_for(collecting, load.answers_within)
        if load.recovery is not None:
            await asyncio.to_thread(load.recovery)
        _read_journal(done, provider, prefix)
        await _read_reports(servers, done, prefix)
        await _read_ledger(settings, done, prefix)
        await _compare_books(settings, done)
        counting.cancel()
    return done


async def _publish(servers: str, done: Round, load: Load) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await producer.start()
    accident_after = load.requests // 2 if load.accident_after is None else load.accident_after
    pace = Pace(load.rate)
    accident: asyncio.Task[None] | None = None

    async def happen() -> None:
        done.accident_at = time.time()
        await asyncio.to_thread(load.accident)
        done.accident_ended_at = time.time()

    try:
        for number, identity in enumerate(done.ids):
            workspace = f"w{number % load.workspaces}"
            preferred = ("claude", "openai")[number % 2]
            body = {
                "request_id": identity,
                "workspace_id": workspace,
                "prompt": "hello",
                "max_tokens": 64,
                "cache": {"enabled": False},
            }
            value = json.dumps(body | {"preferred_providers": [preferred]}).encode()
            await producer.send("ai.requests", value, key=workspace.encode())
            if number == accident_after:
                accident = asyncio.create_task(happen())
                if not load.goes_on:
                    await accident
            await pace.step()
        if accident is not None:
            await accident
        await producer.flush()
    finally:
        await producer.stop()


async def _collect(consumer: AIOKafkaConsumer, done: Round, prefix: str) -> None:
    wanted = len(done.ids)
    async for record in consumer:
        identity = json.loads(record.value)["request_id"]
        if identity.startswith(prefix):
            done.responses.setdefault(identity, []).append(record.value)
            done.last_answer_at = time.time()
            if len(done.responses) == wanted:
                return


async def _count_usage(consumer: AIOKafkaConsumer, done: Round, prefix: str) -> None:
    async for record in consumer:
        body = json.loads(record.value)
        if body["request_id"].startswith(prefix):
            done.usage_records[f"{body['request_id']}/{body['attempt']}/{body['outcome']}"] += 1


def _read_journal(done: Round, provider: Provider, prefix: str) -> None:
    begun: dict[str, float] = {}
    for event in provider.events():
        identity = event.get("id") or ""
        if not identity.startswith(prefix):
            continue
        if event["event"] == "start":
            done.calls[identity] += 1
            begun[identity] = event["t"]
            if event["t"] <= done.accident_ended_at:
                done.begun_before_accident.add(identity)
        else:
            if event["event"] == "cut":
                done.cut_calls += 1
                # It may have been on its way when the worker died, and arrived a moment later.
                done.begun_before_accident.add(identity)
            if begun.get(identity, event["t"]) <= done.accident_at <= event["t"]:
                done.in_flight_at_accident += 1


async def _read_reports(servers: str, done: Round, prefix: str) -> None:
    """Which attempts were reported before the accident.

    A report has the time at which its worker wrote it. Of a worker that goes on later it may arrive later, and then the
    question about its attempt lies before it: both are in one partition.
    """
    async with reading(servers, "ai.attempts") as consumer:
        ends = {tp: await consumer.position(tp) for tp in consumer.assignment()}
        begun = await consumer.offsets_for_times(dict.fromkeys(ends, int(done.started * 1000)))
        for tp, place in begun.items():
            if place is not None:
                consumer.seek(tp, place.offset)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    _note_report(record, done, prefix)


def _note_report(record: Any, done: Round, prefix: str) -> None:
    report = json.loads(record.value)
    usage = report.get("usage")
    if not usage or not report["request_id"].startswith(prefix):
        return
    attempt = f"{report['request_id']}/{usage['attempt']}"
    if usage["outcome"] == "in_doubt":
        done.asked_about_first |= {attempt} - done.reported
    else:
        done.reported.add(attempt)
        if record.timestamp < done.accident_at * 1000:
            done.reported_before_accident.add(attempt)


async def _compare_books(settings: Settings, done: Round) -> None:
    """Accounts follow the last answer by moments; what differs then stays in `books`."""
    with suppress(AssertionError):

        async def alike() -> bool:
            done.books = await not_alike(settings)
            return not done.books

        await eventually(alike, within=60, every=1.0, what="the accounts are the ledger")


async def _read_ledger(settings: Settings, done: Round, prefix: str) -> None:
    """Every call has its row in the end: the sink is the last to know.

    Not as many rows as calls: an attempt whose worker was killed between its mark and its call has a row and no call.
    """
    sql = (
        "SELECT concat(request_id, '/', toString(attempt)), toString(outcome) "
        "FROM ledger WHERE request_id LIKE {p:String}"
    )

    async with ClickHouse(settings) as database:

        async def complete() -> bool:
            try:
                rows = (await database.query(sql, {"p": f"{prefix}-%"})).rows
            except ClickHouseError:
                return False  # It is away: that may be the accident.
            done.ledger = dict(rows)
            assert len(done.ledger) == len(rows), "two ledger rows for one attempt"
            return done.calls.keys() <= done.ledger.keys()

        await eventually(complete, within=150, every=0.5, what="a ledger row for every call")
