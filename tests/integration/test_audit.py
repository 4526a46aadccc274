"""`spillway audit` on the real broker and the real ledger, with faults planted by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from typer.testing import CliRunner, Result

from app.audit.findings import Kind
from app.audit.run import Asked, audit
from app.audit.topics import partitions_of, read, reader, survey
from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.clickhouse.ledger import ClickHouseLedger
from app.clickhouse.period import Period
from app.devstack.stack import DevStack
from app.kafka import Cluster, admin_client
from app.settings import Settings
from app.topics import build_topology
from schemas.base import Event
from schemas.budget import BudgetAction, BudgetState
from schemas.codec import encode
from schemas.response import AttemptSummary, Response, Status, Usage
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.topology import BUDGET_STATE, REQUESTS, RESPONSES, USAGE
from tests.support.reader.offsets import of_group
from tests.support.reader.topics import publish, reading
from tests.support.values.names import unique
from tests.support.values.usage import usage

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


class Plant:
    """A workspace's records and rows, written by hand. `acknowledge` says that workers have read all topics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.servers = settings.kafka_bootstrap_servers
        self.workspace = unique("audit")
        self.ledger = ClickHouseLedger(settings)
        self.database = ClickHouse(settings)
        self.now = datetime.now(UTC)

    async def write(self, topic: str, *events: Event | dict[str, Any], key: str = "") -> None:
        values = [encode(event) if isinstance(event, Event) else json.dumps(event).encode() for event in events]
        await publish(self.servers, topic, [((key or self.workspace).encode(), value) for value in values])

    async def request(self, request_id: str, *, past: bool = True, key: str = "", **fields: Any) -> None:
        deadline = self.now + timedelta(minutes=-5 if past else 5)
        body = {"request_id": request_id, "workspace_id": self.workspace, "prompt": "hello", **fields}
        await self.write(REQUESTS, {**body, "deadline": deadline.isoformat()}, key=key)

    def used(self, request_id: str, cost: str = "0.5", **fields: Any) -> UsageEvent:
        given = {"request_id": request_id, "cost": cost, "started_at": self.now, "requested_at": self.now, **fields}
        return usage(self.workspace, **given)

    def response(self, request_id: str, *attempts: UsageEvent, **fields: Any) -> Response:
        summaries = [
            AttemptSummary(attempt=a.attempt, provider=a.provider, model=a.model, outcome=a.outcome, cost=a.cost)
            for a in attempts
        ]
        given: dict[str, Any] = {
            "request_id": request_id,
            "workspace_id": self.workspace,
            "status": Status.SUCCEEDED,
            "attempts": summaries,
            "usage": Usage(cost=sum((a.cost for a in attempts), Decimal(0))),
            "answered_at": self.now,
            **fields,
        }
        return Response(**given)

    async def outcome(self, response: Response, **fields: Any) -> None:
        row = {"status": response.status.value, "cost": response.usage.cost, **fields}
        await self.database.command(
            "INSERT INTO outcomes (workspace_id, request_id, kind, status, cost, answered_at) "
            "SELECT {w:String}, {r:String}, 'completion', {s:String}, {c:Decimal(18, 9)}, {a:DateTime64(3, 'UTC')}",
            {
                "w": self.workspace,
                "r": response.request_id,
                "s": row["status"],
                "c": row["cost"],
                "a": fields.get("answered_at", response.answered_at),
            },
        )

    async def whole(self, request_id: str, *attempts: UsageEvent) -> Response:
        """A request that went well: everything is where it belongs."""
        response = self.response(request_id, *attempts)
        await self.request(request_id)
        await self.write(RESPONSES, response)
        await self.write(USAGE, *attempts)
        await self.ledger.write(attempts)
        await self.outcome(response)
        return response

    async def acknowledge(self) -> None:
        async with admin_client(Cluster(self.servers)) as admin:
            found = await partitions_of(admin, (REQUESTS, RESPONSES, USAGE))
        partitions = [tp for listed in found.values() for tp in listed]
        async with of_group(self.servers, self.settings.kafka_application_id) as consumer:
            consumer.assign(partitions)
            await consumer.commit(await consumer.end_offsets(partitions))

    async def audit(self, *options: str, code: int = 0) -> dict[str, Any]:
        result = await self.shown("--json", *options, code=code)
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    async def shown(self, *options: str, code: int = 0) -> Result:
        command = ["audit", "-w", self.workspace, "--patience", "0", *options]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == code, result.output
        return result


@pytest.fixture
async def plant(stack: DevStack, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plant]:
    """With a group of its own: no worker reads for it."""
    group = unique("audit")
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("AI_KAFKA_APPLICATION_ID", group)
    planted = Plant(Settings(**{**settings.model_dump(), "kafka_application_id": group}))
    yield planted
    await planted.ledger.close()
    await planted.database.close()


async def test_a_period_in_which_all_agrees_is_clean(plant: Plant) -> None:
    first = await plant.whole(
        "a", plant.used("a", attempt=1, outcome=Outcome.FAILED, cost="0"), plant.used("a", attempt=2)
    )
    await plant.whole("b", plant.used("b"))
    await plant.request("a", prompt="hello again")
    await plant.write(RESPONSES, first, first.model_copy(update={"answered_at": plant.now + timedelta(seconds=1)}))
    await plant.write(USAGE, plant.used("b"))
    await plant.request("c", past=False)
    doubt = plant.used("d", "0.25", outcome=Outcome.IN_DOUBT, cost_source="estimated")
    await plant.whole("d", doubt)
    await plant.acknowledge()
    found = await plant.audit()
    assert (found["clean"], found["findings"]) == (True, [])
    counts = found["counts"]
    assert [counts[name] for name in ("requests", "responses", "outcomes", "usage", "rows")] == [4, 3, 3, 4, 4]
    assert [counts[name] for name in ("requests_open", "repeats_dropped", "responses_again", "usage_again")] == [
        *(1, 1, 2, 1)
    ]
    assert (counts["in_doubt"], found["costs"]["in_doubt"], found["ledger_cost"]) == (1, "0.250000000", "1.250000000")
    assert not found["budgets_compared"]


async def test_what_the_workers_have_not_read_yet_is_on_its_way_and_no_fault(plant: Plant) -> None:
    event = plant.used("a")
    await plant.acknowledge()
    await plant.request("lost?")
    await plant.write(USAGE, event)
    await plant.write(RESPONSES, plant.response("a", event))
    found = await plant.audit()
    waiting = ("requests_open", "usage_waiting", "responses_waiting")
    assert (found["clean"], *(found["counts"][name] for name in waiting)) == (True, 1, 1, 1)
    await plant.acknowledge()
    found = await plant.audit(code=1)
    assert {finding["kind"] for finding in found["findings"]} == {
        Kind.REQUEST_WITHOUT_RESPONSE,
        Kind.USAGE_WITHOUT_ROW,
        Kind.RESPONSE_WITHOUT_OUTCOME,
        Kind.MONTH_DIFFERS,
    }


async def _lost_request(plant: Plant) -> None:
    await plant.request("x")


async def _lost_usage(plant: Plant) -> None:
    response = plant.response("x", plant.used("x"))
    await plant.request("x")
    await plant.write(RESPONSES, response)
    await plant.outcome(response)


async def _lost_row(plant: Plant) -> None:
    await plant.write(USAGE, plant.used("x"))


async def _row_by_hand(plant: Plant) -> None:
    await plant.ledger.write([plant.used("x")])


async def _lost_outcome(plant: Plant) -> None:
    await plant.request("x")
    await plant.write(RESPONSES, plant.response("x"))


async def _outcome_by_hand(plant: Plant) -> None:
    await plant.outcome(plant.response("x"))


async def _contradiction(plant: Plant) -> None:
    response = await plant.whole("x")
    await plant.write(RESPONSES, response.model_copy(update={"status": Status.EXPIRED}))


async def _two_rows(plant: Plant) -> None:
    await plant.whole("x", plant.used("x"))
    await plant.ledger.write([plant.used("x", started_at=plant.now - timedelta(hours=2))])


async def _two_outcomes(plant: Plant) -> None:
    response = await plant.whole("x")
    await plant.outcome(response, answered_at=plant.now - timedelta(hours=2))


async def _usage_disagrees(plant: Plant) -> None:
    await plant.whole("x", plant.used("x"))
    dearer = plant.used("x", "0.75")
    await plant.write(USAGE, dearer)
    await plant.ledger.write([dearer])


async def _row_differs(plant: Plant) -> None:
    await plant.whole("x", plant.used("x"))
    await plant.ledger.write([plant.used("x", "0.6")])


async def _outcome_differs(plant: Plant) -> None:
    response = plant.response("x")
    await plant.request("x")
    await plant.write(RESPONSES, response)
    await plant.outcome(response, status="failed")


async def _wrong_sum(plant: Plant) -> None:
    event = plant.used("x")
    response = plant.response("x", event, usage=Usage(cost=Decimal("0.4")))
    await plant.request("x")
    await plant.write(RESPONSES, response)
    await plant.write(USAGE, event)
    await plant.ledger.write([event])
    await plant.outcome(response)


async def _told_otherwise(plant: Plant) -> None:
    event = plant.used("x")
    response = plant.response("x", plant.used("x", "0.4"))
    await plant.request("x")
    await plant.write(RESPONSES, response)
    await plant.write(USAGE, event)
    await plant.ledger.write([event])
    await plant.outcome(response)


async def _unpriced(plant: Plant) -> None:
    await plant.whole("x", plant.used("x", "0", cost_source="unpriced"))


PLANTED = {
    Kind.REQUEST_WITHOUT_RESPONSE: _lost_request,
    Kind.ATTEMPT_WITHOUT_USAGE: _lost_usage,
    Kind.USAGE_WITHOUT_ROW: _lost_row,
    Kind.ROW_WITHOUT_USAGE: _row_by_hand,
    Kind.RESPONSE_WITHOUT_OUTCOME: _lost_outcome,
    Kind.OUTCOME_WITHOUT_RESPONSE: _outcome_by_hand,
    Kind.CONTRADICTION: _contradiction,
    Kind.ROW_DOUBLED: _two_rows,
    Kind.OUTCOME_DOUBLED: _two_outcomes,
    Kind.USAGE_DISAGREES: _usage_disagrees,
    Kind.ROW_DIFFERS: _row_differs,
    Kind.OUTCOME_DIFFERS: _outcome_differs,
    Kind.RESPONSE_SUM: _wrong_sum,
    Kind.RESPONSE_USAGE: _told_otherwise,
    Kind.UNPRICED: _unpriced,
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.value)
async def test_each_fault_is_found_by_its_name(plant: Plant, kind: Kind) -> None:
    await plant.whole("well", plant.used("well"))
    await PLANTED[kind](plant)
    await plant.acknowledge()
    found = await plant.audit(code=1)
    kinds = {finding["kind"]: finding for finding in found["findings"]}
    assert kinds.keys() - {Kind.MONTH_DIFFERS} == {kind}
    assert kinds[kind]["count"] == 1
    assert kinds[kind]["examples"][0]["name"].startswith(f"{plant.workspace}/x")
    shown = (await plant.shown(code=1)).output
    assert kinds[kind]["what"] in shown
    assert f"To do: {kinds[kind]['to_do']}." in shown


async def test_a_budget_must_have_counted_what_the_ledger_has(plant: Plant) -> None:
    await plant.whole("a", plant.used("a"))
    await plant.acknowledge()

    async def say(spent: str, reserved: str = "0", count: int = 0) -> None:
        month = f"{plant.now:%Y-%m}"
        state = BudgetState(
            workspace_id=plant.workspace,
            month=month,
            limit=Decimal(10),
            action=BudgetAction.ALERT,
            spent=Decimal(spent),
            reserved=Decimal(reserved),
            open_requests=count,
            at=plant.now,
        )
        await plant.write(BUDGET_STATE, state, key=state.key)

    await say("0.4")
    found = await plant.audit(code=1)
    assert [finding["kind"] for finding in found["findings"]] == [Kind.BUDGET_DIFFERS]
    assert found["findings"][0]["examples"][0]["detail"] == "budget $0.400000000, ledger $0.500000000"
    await say("0.5", "0.1", 1)
    found = await plant.audit(code=1)
    assert [finding["kind"] for finding in found["findings"]] == [Kind.RESERVATION_LEFT]
    await say("0.5")
    found = await plant.audit()
    assert (found["clean"], found["counts"]["budgets"]) == (True, 1)


async def test_a_correction_is_understood_and_a_replay_of_the_old_record_too(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    event = plant.used("a", tokens=Tokens(prompt_tokens=1_000_000))
    await plant.whole("a", event)
    file = tmp_path / "prices.toml"
    file.write_text('[prices.openai]\ninput_mtok = "0.3"\noutput_mtok = "0"\n')
    monkeypatch.setenv("AI_SETTINGS_FILE", str(file))
    day = f"{plant.now:%Y-%m-%d}"
    until = f"{plant.now + timedelta(days=1):%Y-%m-%d}"
    running = asyncio.create_task(asyncio.to_thread(_reprice, plant.workspace, day, until))
    async with ClickHouse(plant.settings) as database:
        async for correction in _new_usage(plant):
            await plant.ledger.write([correction, event])
            break
        result = await running
        assert result.exit_code == 0, result.output
        rows = (
            await database.query(
                "SELECT cost FROM attempts FINAL WHERE workspace_id = {w:String}", {"w": plant.workspace}
            )
        ).rows
    assert rows == [(Decimal("0.3"),)]
    await plant.acknowledge()
    state = BudgetState(
        workspace_id=plant.workspace,
        month=f"{plant.now:%Y-%m}",
        limit=Decimal(10),
        action=BudgetAction.ALERT,
        spent=Decimal("0.5"),
        reserved=Decimal(0),
        open_requests=0,
        at=plant.now,
    )
    await plant.write(BUDGET_STATE, state, key=state.key)
    found = await plant.audit()
    assert (found["clean"], found["counts"]["corrected"], found["costs"]["corrected"]) == (True, 1, "-0.200000000")
    assert found["counts"]["budgets"] == 1


def _reprice(workspace: str, start: str, end: str) -> Result:
    return CliRunner().invoke(app, ["reprice", "--from", start, "--to", end, "-w", workspace])


async def _new_usage(plant: Plant) -> AsyncIterator[UsageEvent]:
    """Corrections of the workspace, wherever reading begins."""
    async with reading(plant.servers, USAGE, from_start=True) as consumer:
        async for record in consumer:
            if record.key == plant.workspace.encode():
                event = UsageEvent.model_validate_json(record.value)
                if event.correction is not None:
                    yield event


async def test_a_record_of_another_partition_is_its_copy_at_home_and_no_double(plant: Plant) -> None:
    response = plant.response("a")
    # With a key of another partition, as a producer with another partitioner writes it; then sent on.
    home = partition_number(plant, plant.workspace)
    stranger = next(name for name in map(str, range(100)) if partition_number(plant, name) != home)
    await plant.request("a", key=stranger)
    await plant.request("a")
    await plant.write(RESPONSES, response)
    await plant.outcome(response)
    await plant.acknowledge()
    found = await plant.audit()
    counts = found["counts"]
    assert (counts["requests"], counts["sent_on"], counts["repeats_dropped"]) == (1, 1, 0)


def partition_number(plant: Plant, key: str) -> int:
    return build_topology(plant.settings).workspace_partition(key)


async def test_a_large_period_is_read_in_rounds_and_comes_to_the_same(plant: Plant) -> None:
    for number in range(20):
        await plant.whole(f"r{number}", plant.used(f"r{number}", f"0.{number + 1:03}"))
    await plant.request("lost")
    await plant.acknowledge()
    asked = Asked(Period(plant.now - timedelta(hours=1), datetime.now(UTC)), plant.workspace, patience=0)
    whole = await audit(plant.settings, asked)
    parts = await audit(plant.settings, asked, round_size=sum(whole.records.values()) // 4)
    assert parts.rounds > 3
    assert parts.verdict.figures == whole.verdict.figures
    assert parts.verdict.findings.counts == whole.verdict.findings.counts
    assert list(whole.verdict.findings.counts) == [Kind.REQUEST_WITHOUT_RESPONSE]
    assert whole.verdict.figures.counts["rows"] == 20


async def test_a_request_that_was_answered_before_the_period_may_be_repeated_in_it(plant: Plant) -> None:
    await plant.write(RESPONSES, plant.response("a", answered_at=plant.now))
    await plant.request("a")
    await plant.acknowledge()
    later = plant.now + timedelta(hours=1)
    consumer_sees = Asked(Period(plant.now - timedelta(seconds=30), later), plant.workspace, patience=0)
    report = await audit(plant.settings, consumer_sees)
    assert not report.verdict.findings.counts[Kind.REQUEST_WITHOUT_RESPONSE]


async def test_retention_leaves_a_stretch_that_says_since_when_it_is_whole(settings: Settings) -> None:
    servers, topic = settings.kafka_bootstrap_servers, unique("kept")
    cluster = Cluster(servers)
    async with admin_client(cluster) as admin:
        await admin.create_topics([NewTopic(topic, 2, 1)])
        for number in range(10):
            await publish(servers, topic, [(b"key", str(number).encode())])
        [[first, second]] = (await partitions_of(admin, (topic,))).values()
        async with reader(cluster) as consumer:
            whole = await survey(consumer, [first, second], 0, None, 10**13)
            busy = next(number for number, end in whole.end.items() if end)
            assert [record.value async for record in read(cluster, whole)] == [str(n).encode() for n in range(10)]
            assert (whole.records, whole.held_since) == (10, {})
            await admin.delete_records({TopicPartition(topic, busy): RecordsToDelete(before_offset=4)})
            left = await survey(consumer, [first, second], 0, None, 10**13)
            assert left.held_since == {busy: 10**13}
            records = [record async for record in read(cluster, left)]
            assert [record.offset for record in records] == [4, 5, 6, 7, 8, 9]
            assert left.since(busy) == records[0].timestamp
            assert left.since(1 - busy) == 0
            # What begins later than the first that is left has lost nothing.
            later = await survey(consumer, [first, second], records[2].timestamp, None, 10**13)
            assert later.held_since == {}


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AI_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1", "Kafka at 127.0.0.1:1 does not answer"),
        ("AI_CLICKHOUSE_URL", "http://127.0.0.1:1", "ClickHouse at http://127.0.0.1:1 does not answer"),
        ("AI_CLICKHOUSE_DATABASE", "not_there", "run `spillway migrate` first"),
    ],
)
async def test_what_cannot_be_checked_has_a_status_of_its_own(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    shown = (await plant.shown(code=2)).output
    assert shown.startswith("Could not check: ")
    assert reason in shown


@pytest.mark.parametrize(
    "options",
    [
        ("--month", "2026-13"),
        ("--month", "2026-11", "--from", "2026-11-01"),
        ("--from", "yesterday"),
        ("--from", "2026-11-02T10:00"),
        ("--from", "2026-11-02", "--to", "2026-11-01"),
    ],
)
async def test_a_period_that_is_none_is_refused(plant: Plant, options: tuple[str, ...]) -> None:
    await plant.shown(*options, code=2)
