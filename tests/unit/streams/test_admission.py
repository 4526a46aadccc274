"""Admission's handler with everything around it faked: where a record goes, and which reply topics are refused."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from aiokafka.errors import ProducerFenced

from schemas.codec import decode, header
from schemas.dead_letter import DeadLetter
from schemas.internal import DispatchCommand
from schemas.response import Response, Status
from streams.admit.agent import Admission, AdmitConfig
from streams.admit.decide import AdmissionPolicy
from streams.budgets import Budget, BudgetBook
from streams.commands import Router
from streams.lifecycle import RequestRecord
from streams.outlook import LaneBoard
from streams.records import Record
from streams.rows import Row
from streams.runtime.incoming import Incoming
from streams.runtime.transport import DrainSignal
from streams.topology import DEAD_LETTERS, REQUESTS, RESPONSES, Topology, dispatch_topic
from streams.workspaces import Workspaces

TOPOLOGY = Topology("spillway", ("claude", "openai"))
POLICY = AdmissionPolicy(("claude", "openai"), dict.fromkeys(("claude", "openai"), frozenset({"completion"})))
HOME = TOPOLOGY.workspace_partition("acme")


class FakeOutbox:
    def __init__(self) -> None:
        self.records: list[Record] = []

    async def publish(self, *records: Record) -> None:
        self.records += records

    async def post(self, record: Record) -> asyncio.Future[None]:
        self.records.append(record)
        return acknowledged()


class FakeTable(dict[str, Row]):
    """The rows of one partition."""

    def get(self, key: str, partition: int) -> Row | None:  # type: ignore[override]
        assert partition == HOME
        return super().get(key)

    def scan(self, prefix: str, partition: int) -> list[tuple[str, Row]]:
        assert partition == HOME
        return sorted((key, row) for key, row in self.items() if key.startswith(prefix))

    async def put_all(self, rows: dict[str, Row], partition: int) -> list[asyncio.Future[None]]:
        assert partition == HOME
        self.update(rows)
        return [self.taken() for _ in rows]

    def taken(self) -> asyncio.Future[None]:
        """What becomes of a row at the broker."""
        return acknowledged()


class Directory:
    """Knows one topic that is the callers' own, and all of Spillway's."""

    async def exists(self, topic: str) -> bool:
        return topic in {"my.replies", *TOPOLOGY.own_names(), "__consumer_offsets", "not.allowed"}


def acknowledged() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


class World:
    def __init__(self) -> None:
        self.outbox, self.table = FakeOutbox(), FakeTable()
        self.lanes, self.drain = LaneBoard(), DrainSignal()
        self.admission = Admission(
            router=Router(TOPOLOGY, lambda _provider, _request: "some-model"),
            lanes=self.lanes,
            budgets=BudgetBook(Budget(Decimal(1000))),
            guess=lambda _provider, _request, _at: Decimal("0.5"),
            drain=self.drain,
            config=AdmitConfig(POLICY, max_request_bytes=1_000, reply_topics=re.compile(r"(?!not\.).*")),
            directory=Directory(),
            workspaces=Workspaces(cast(Any, self.table), self.drain),
            outbox=cast(Any, self.outbox),
            clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )

    async def handle(
        self, body: dict[str, Any] | bytes, *headers: tuple[str, bytes | None], offset: int = 1, partition: int = HOME
    ) -> list[Record]:
        """The records that this one causes."""
        value = body if isinstance(body, bytes) else json.dumps({"workspace_id": "acme"} | body).encode()
        before = len(self.outbox.records)
        await self.admission.handle(Incoming(REQUESTS, partition, offset, 0, b"acme", value, headers))
        return self.outbox.records[before:]


async def test_a_request_is_written_down_and_goes_to_its_lane() -> None:
    world = World()
    (record,) = await world.handle({"prompt": "hi", "request_id": "r-1"})
    lane = TOPOLOGY.lane("claude", "some-model", "acme", "r-1")
    assert (record.topic, record.key, record.partition) == (dispatch_topic("claude"), b"claude/0", lane.partition)
    assert decode(DispatchCommand, record.value).admitted.request_id == "r-1"
    row = world.table["acme/r-1"]
    assert isinstance(row, RequestRecord)
    assert row.admitted_by == 1


@pytest.mark.parametrize("body", [{"prompt": "hi"}, {"prompt": "hi", "deadline": "2025-12-31T00:00:00Z"}])
async def test_nothing_is_sent_before_the_broker_has_the_rows_of_a_request(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    row: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(world.table, "taken", lambda: row)
    admitting = asyncio.create_task(world.handle(body | {"request_id": "r-1"}))
    for _ in range(10):
        await asyncio.sleep(0)
    assert "acme/r-1" in world.table
    assert world.outbox.records == []
    row.set_result(None)
    assert len(await admitting) == 1


async def test_nothing_is_sent_of_a_request_whose_rows_the_broker_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition has another owner."""
    world = World()

    def refused() -> asyncio.Future[None]:
        row = asyncio.get_running_loop().create_future()
        row.set_exception(ProducerFenced())
        return row

    monkeypatch.setattr(world.table, "taken", refused)
    for _ in range(2):
        with pytest.raises(ProducerFenced):
            await world.handle({"prompt": "hi", "request_id": "r-1"})
    assert world.outbox.records == []


async def test_a_redelivery_sends_the_same_again_and_a_duplicate_sends_nothing() -> None:
    world = World()
    first = await world.handle({"prompt": "hi", "request_id": "r-1"}, offset=1)
    assert await world.handle({"prompt": "hi", "request_id": "r-1"}, offset=1) == first
    assert await world.handle({"prompt": "hi", "request_id": "r-1"}, offset=2) == []


@pytest.mark.parametrize("topic", [*sorted(TOPOLOGY.own_names()), "__consumer_offsets", "not.allowed"])
@pytest.mark.parametrize("body", [{"prompt": "hi"}, {"prompt": ""}], ids=["valid", "invalid"])
async def test_no_reply_is_ever_sent_to_a_topic_that_is_not_for_replies(topic: str, body: dict[str, Any]) -> None:
    records = await World().handle(body | {"reply_to": topic, "request_id": "r-1"})
    assert [record.topic for record in records] == [RESPONSES, DEAD_LETTERS]
    response = decode(Response, records[0].value)
    assert (response.status, response.request_id) == (Status.REJECTED, "r-1")
    assert response.error is not None
    assert response.error.code == ("reply_topic_not_allowed" if body["prompt"] else "invalid_request")


async def test_a_reply_topic_that_does_not_exist_is_refused_before_anything_is_paid_for() -> None:
    world = World()
    records = await world.handle({"prompt": "hi", "reply_to": "nowhere"})
    assert [record.topic for record in records] == [RESPONSES, DEAD_LETTERS]
    response = decode(Response, records[0].value)
    assert response.error is not None
    assert response.error.code == "reply_topic_not_found"
    assert world.table == {}


async def test_a_refused_record_is_answered_where_it_asked_and_buried_as_it_was() -> None:
    records = await World().handle(b"garbage", ("reply_to", b"my.replies"), ("correlation_id", b"c-1"))
    assert sorted(record.topic for record in records) == sorted([RESPONSES, "my.replies", DEAD_LETTERS])
    sent = {record.topic: record for record in records}
    assert header(sent["my.replies"].headers, "correlation_id") == b"c-1"
    buried = sent[DEAD_LETTERS]
    letter = DeadLetter.from_record(buried.key, buried.value, buried.headers)
    assert (letter.code, letter.value) == ("not_json", b"garbage")


async def test_a_record_in_a_foreign_partition_is_sent_home_untouched_with_the_id_that_it_was_given() -> None:
    world, foreign = World(), (HOME + 1) % 6
    (copy,) = await world.handle({"prompt": "hi"}, ("mine", b"1"), partition=foreign)
    assert (copy.topic, copy.key, copy.partition) == (REQUESTS, b"acme", HOME)
    assert copy.value == b'{"workspace_id": "acme", "prompt": "hi"}'
    assert header(copy.headers, "mine") == b"1"
    assert world.table == {}
    (again,) = await world.handle({"prompt": "hi"}, ("mine", b"1"), partition=foreign)
    assert again == copy
    (sent,) = await world.handle({"prompt": "hi"}, *copy.headers, offset=9)
    assert decode(DispatchCommand, sent.value).admitted.request_id == (header(copy.headers, "ce_id") or b"").decode()


async def test_what_nobody_answers_is_rejected_and_buried() -> None:
    records = await World().handle({"kind": "search", "query": "news"})
    assert [record.topic for record in records] == [RESPONSES, DEAD_LETTERS]
    assert header(records[1].headers, "kafka_dlt-exception-fqcn") == b"spillway.unsupported_operation"
