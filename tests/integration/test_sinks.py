"""The sinks between a real broker and ClickHouse's real engine: all of it once, whatever is read again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from app.clickhouse.client import ClickHouse
from app.clickhouse.ledger import ClickHouseLedger
from app.clickhouse.overview import WorkspaceLine, overview
from app.clickhouse.report import usage_report
from app.contents import read_request
from app.devstack.stack import DevStack
from app.settings import Settings
from app.topics import build_topology
from schemas.alert import BudgetAlert, WorkspaceSpend
from schemas.codec import encode, event_headers
from schemas.response import Error, Response, Status, Usage
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.account import agent as account
from streams.account import sink
from streams.account.batch import BatchPolicy
from streams.records import Record
from streams.runtime.outbox import Outbox, kafka_producer
from streams.topology import BUDGET_ALERTS, DEAD_LETTERS, REQUESTS, RESPONSES, SPEND, USAGE, partition_of
from tests.support.clock.waiting import eventually
from tests.support.reader.logs import said
from tests.support.reader.offsets import waiting
from tests.support.reader.topics import consume_until, reading
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

NOON = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)


def usage(workspace: str, **fields: Any) -> UsageEvent:
    defaults: dict[str, Any] = {"request_id": unique("r"), "attempt": 1, "provider": "claude", "model": "m"}
    more = {"outcome": Outcome.SUCCEEDED, "tokens": Tokens(prompt_tokens=10, completion_tokens=2), "cost": "0.01"}
    times = {"requested_at": NOON, "started_at": NOON, "latency": 1.0}
    return UsageEvent(**{**defaults, **more, **times, "workspace_id": workspace, **fields})


def response(workspace: str, **fields: Any) -> Response:
    defaults: dict[str, Any] = {
        "request_id": unique("r"),
        "status": Status.SUCCEEDED,
        "provider": "claude",
        "model": "m",
    }
    more = {"usage": Usage(prompt_tokens=10, cost="0.01"), "requested_at": NOON, "answered_at": NOON}
    return Response(**{**defaults, **more, "workspace_id": workspace, "content": "words", **fields})


def records(*events: Any) -> list[Record]:
    topics: dict[type[Any], str] = {UsageEvent: USAGE, Response: RESPONSES, BudgetAlert: BUDGET_ALERTS}
    found = []
    for event in events:
        headers = ()
        if isinstance(event, BudgetAlert):
            told = {"event_type": event.kind, "workspace_id": event.workspace_id, "time": event.observed_at}
            headers = event_headers(event_id=event.event_id, **told)  # type: ignore[arg-type, assignment]
        found.append(Record(topics[type(event)], event.workspace_id.encode(), encode(event), headers))
    return found


@pytest.fixture
async def outbox(settings: Settings) -> AsyncIterator[Outbox]:
    outbox = Outbox(lambda: kafka_producer(settings.kafka_bootstrap_servers))
    await outbox.start()
    yield outbox
    await outbox.stop()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[ClickHouse]:
    async with ClickHouse(settings) as database:
        yield database


@asynccontextmanager
async def sinks(settings: Settings, outbox: Outbox, group: str, *, content: bool = False) -> AsyncIterator[None]:
    """The sinks as a member of a group; a new group reads everything from the beginning."""
    ledger = ClickHouseLedger(settings)
    reader = account.sinks(
        topology=build_topology(settings),
        ledger=ledger,
        policy=BatchPolicy(rows=50, seconds=0.2, retry=0.2, max_retry=0.2),
        outbox=outbox,
        make_consumer=lambda: AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ),
        read_request=partial(read_request, max_bytes=100_000) if content else None,
    )
    await reader.start()
    try:
        yield
    finally:
        await reader.stop()
        await ledger.close()


async def committed(settings: Settings, group: str, *more: str) -> bool:
    """Whether the group has acknowledged everything that is in the sinks' topics, and in more of them."""
    return not await waiting(settings.kafka_bootstrap_servers, group, USAGE, RESPONSES, BUDGET_ALERTS, *more)


async def read_all(settings: Settings, outbox: Outbox, *, content: bool = False) -> None:
    """Every record of the sinks' topics into the ledger, from the first one on."""
    group, more = unique("g"), (REQUESTS,) if content else ()
    async with sinks(settings, outbox, group, content=content):
        await eventually(partial(committed, settings, group, *more), within=60, every=0.2, what="all is acknowledged")


async def line_of(database: ClickHouse, workspace: str) -> WorkspaceLine:
    return next(line for line in await overview(database, "2026-11") if line.workspace_id == workspace)


async def test_what_is_read_again_is_counted_once_in_rows_hours_and_reports(
    settings: Settings, outbox: Outbox, database: ClickHouse
) -> None:
    workspace = unique("w")
    doubt = usage(workspace, outcome=Outcome.IN_DOUBT, cost="0.5", cost_source="estimated", month="2026-11")
    known = doubt.model_copy(update={"outcome": Outcome.FAILED, "cost": Decimal("0.02"), "cost_source": "reported"})
    later = usage(workspace, started_at=NOON + timedelta(hours=3), latency=3.0)
    hit = response(workspace, cached=True, saved="0.03", usage=Usage())
    first = records(doubt, later, later, hit, hit, response(workspace))
    await outbox.publish(*first)
    await read_all(settings, outbox)
    # A better word on an attempt that was counted already, and a repeat of everything.
    await outbox.publish(*records(known), *first)
    for _ in range(2):
        await read_all(settings, outbox)
        report = await usage_report(database, workspace, "2026-11")
        total, line = report.total, await line_of(database, workspace)
        assert (total.attempts, total.failed_attempts, total.in_doubt_attempts) == (2, 1, 0)
        assert (line.attempts, line.failed_attempts, line.in_doubt_attempts) == (2, 1, 0)
        assert (total.cost, total.estimated_cost) == (line.cost, line.estimated_cost) == (Decimal("0.03"), Decimal(0))
        assert (total.answers, total.cached_answers, total.saved) == (2, 1, Decimal("0.03"))
        assert (line.requests, line.cached, line.saved) == (2, 1, Decimal("0.03"))
        assert (total.total_tokens, line.total_tokens) == (24, 24)


async def test_an_attempt_whose_month_is_told_anew_leaves_the_old_one(
    settings: Settings, outbox: Outbox, database: ClickHouse
) -> None:
    workspace = unique("w")
    before = usage(workspace, month="2026-10", cost_source="estimated")
    await outbox.publish(*records(before))
    await read_all(settings, outbox)
    await outbox.publish(*records(before.model_copy(update={"month": "2026-11", "cost_source": "reported"})))
    await read_all(settings, outbox)
    assert (await line_of(database, workspace)).attempts == 1
    assert workspace not in {line.workspace_id for line in await overview(database, "2026-10")}


async def test_spend_is_told_after_the_ledger_has_it(settings: Settings, outbox: Outbox) -> None:
    workspace = unique("w")

    def read(record: Any) -> WorkspaceSpend:
        return WorkspaceSpend.model_validate_json(record.value)

    async with reading(settings.kafka_bootstrap_servers, SPEND) as spend:
        await outbox.publish(*records(usage(workspace, month="2026-12"), usage(workspace, cost="0.2", month="2026-12")))
        await read_all(settings, outbox)
        # Twice, where the two were in two batches.
        found = await consume_until(
            spend,
            lambda some: bool(some) and read(some[-1]).spent == Decimal("0.21"),
            only=lambda record: record.key == workspace.encode(),
        )
    assert read(found[-1]).month == "2026-12"
    assert found[-1].partition == partition_of(workspace.encode(), 6)


async def test_outcomes_and_alerts_are_in_the_ledger_with_all_that_they_say(
    settings: Settings, outbox: Outbox, database: ClickHouse
) -> None:
    workspace = unique("w")
    refused = response(
        workspace,
        status=Status.REJECTED,
        provider=None,
        model=None,
        error=Error(code="budget_exceeded", message="No."),
        usage=Usage(),
        user_id="ann",
        purpose="chat",
        month="2026-11",
        latency=0.5,
        time_to_first_chunk=0.2,
    )
    alert = BudgetAlert(
        kind="ai.budget.exceeded",
        workspace_id=workspace,
        month="2026-11",
        threshold=100,
        spent="11",
        budget="10",
        percent=110.0,
        observed_at=NOON,
    )
    await outbox.publish(*records(refused, alert, alert))
    await read_all(settings, outbox)
    asked = {"workspace": workspace}
    found = await database.query(
        "SELECT status, error_code, provider, user_id, purpose, budget_month, latency, time_to_first_chunk, cost "
        "FROM answers WHERE workspace_id = {workspace:String}",
        asked,
    )
    assert found.rows == [("rejected", "budget_exceeded", None, "ann", "chat", "2026-11", 0.5, 0.2, Decimal(0))]
    found = await database.query(
        "SELECT event_id, kind, threshold, spent, budget, percent, forecast FROM announcements "
        "WHERE workspace_id = {workspace:String}",
        asked,
    )
    expected = (alert.event_id, "ai.budget.exceeded", 100, Decimal(11), Decimal(10), 110.0, None)
    assert found.rows == [expected]


async def test_a_bad_record_is_buried_and_keeps_no_other_out(
    settings: Settings, outbox: Outbox, database: ClickHouse
) -> None:
    workspace = unique("w")
    impossible = usage(workspace, attempt=2**40)
    async with reading(settings.kafka_bootstrap_servers, DEAD_LETTERS) as letters:
        key = workspace.encode()
        await outbox.publish(Record(USAGE, key, b"{}"), *records(usage(workspace), impossible, usage(workspace)))
        await read_all(settings, outbox)
        found = await consume_until(letters, lambda some: len(some) >= 2, only=lambda record: record.key == key)
    assert {record.value for record in found} == {b"{}", encode(impossible)}
    assert (await line_of(database, workspace)).attempts == 2


def tried_in_vain(caplog: pytest.LogCaptureFixture) -> bool:
    return any("ledger_unavailable" in record.message for record in said(caplog, sink.__name__))


async def test_while_clickhouse_is_away_everything_waits_in_kafka(
    stack: DevStack, settings: Settings, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    workspace, group = unique("w"), unique("g")
    async with sinks(settings, outbox, group):
        await eventually(partial(committed, settings, group), within=60, every=0.2)
        await asyncio.to_thread(stack.clickhouse.stop)
        await outbox.publish(*records(*(usage(workspace) for _ in range(200))))
        await eventually(lambda: tried_in_vain(caplog), what="it was tried in vain")
        assert not await committed(settings, group)
        # In this thread: a part lives no longer than the thread that started it.
        stack.clickhouse.start()
        await asyncio.to_thread(stack.clickhouse.wait_ready, 60)
        await eventually(partial(committed, settings, group), within=60, every=0.2)
    async with ClickHouse(settings) as database:
        line = await line_of(database, workspace)
    assert (line.attempts, line.cost) == (200, Decimal(2))


async def test_members_that_come_and_go_lose_nothing_and_count_nothing_twice(
    settings: Settings, outbox: Outbox, database: ClickHouse
) -> None:
    group, workspaces = unique("g"), [unique("w") for _ in range(12)]
    async with sinks(settings, outbox, group):
        await outbox.publish(*records(*(usage(workspace) for workspace in workspaces for _ in range(50))))
        async with sinks(settings, outbox, group):
            await outbox.publish(*records(*(usage(workspace) for workspace in workspaces for _ in range(50))))
            await eventually(partial(committed, settings, group), within=60, every=0.2)
        await outbox.publish(*records(*(usage(workspace) for workspace in workspaces for _ in range(50))))
        await eventually(partial(committed, settings, group), within=60, every=0.2)
    lines = {line.workspace_id: line for line in await overview(database, "2026-11")}
    assert {(lines[name].attempts, lines[name].cost) for name in workspaces} == {(150, Decimal("1.5"))}


async def stored_texts(database: ClickHouse, secrets: Sequence[str]) -> int:
    """In how many columns of the database any of these is found."""
    columns = await database.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND type LIKE '%String%' "
        "AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree')"
    )
    found = 0
    for table, name in columns.rows:
        statement = f"SELECT count() FROM {table} WHERE multiSearchAny(ifNull({name}::Nullable(String), ''), {{s:Array(String)}})"  # noqa: E501, S608
        found += (await database.query(statement, {"s": list(secrets)})).rows[0][0] > 0
    return found


@pytest.mark.parametrize("content", [False, True], ids=["by default", "where it is kept"])
async def test_prompts_and_answers_are_only_in_clickhouse_where_a_setting_says_so(
    settings: Settings, outbox: Outbox, database: ClickHouse, *, content: bool
) -> None:
    assert Settings.model_fields["store_content"].default is False
    workspace, request, prompt, answer = unique("w"), unique("r"), unique("prompt"), unique("answer")
    body = json.dumps(
        {"request_id": request, "workspace_id": workspace, "prompt": f"{prompt} é", "system": f"be {prompt}"}
    )
    await outbox.publish(
        Record(REQUESTS, workspace.encode(), body.encode()),
        # Of today: what is kept goes after a month.
        *records(response(workspace, request_id=request, content=answer, answered_at=datetime.now(UTC))),
        *records(usage(workspace, request_id=request)),
    )
    await read_all(settings, outbox, content=content)
    if not content:
        assert await stored_texts(database, [prompt, answer]) == 0
        assert await stored_texts(database, [workspace]) > 0
        return
    asked = "SELECT side, text FROM contents FINAL WHERE workspace_id = {workspace:String} ORDER BY side"
    rows = (await database.query(asked, {"workspace": workspace})).rows
    assert rows == [("request", f'{{"prompt":"{prompt} é","system":"be {prompt}"}}'), ("answer", answer)]
