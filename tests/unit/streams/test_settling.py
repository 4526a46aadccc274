"""Settlement's handler with everything around it faked: a flight lands in pieces, and others have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, ProducerFenced

from schemas.chunk import Chunk
from schemas.codec import decode, encode, header
from schemas.internal import AttemptReport
from schemas.request import CompletionRequest
from schemas.response import Response, Status
from streams.accounts import ACCOUNTS, Account, account_key
from streams.answers import expired
from streams.budgets import Budget, BudgetBook
from streams.commands import Router
from streams.dispatch.decide import RetryPolicy, judge_answer, judge_failure
from streams.dispatch.ports import ErrorClass, Failure
from streams.lifecycle import RequestRecord, Sharing, asker_of, request_key
from streams.records import Record
from streams.reports import answered
from streams.rows import Row
from streams.runtime.incoming import Incoming
from streams.runtime.outbox import UndeliverableError
from streams.runtime.transport import DrainSignal
from streams.settle.agent import Settling
from streams.settle.apply import MOST_LOOKED_AT, SettleConfig
from streams.settle.landing import PIECE
from streams.sharing import Flight, Joined, flight_key, joined_key
from streams.topology import REPORTS, RESPONSES, USAGE, Topology, dispatch_topic
from streams.workspaces import Workspaces
from tests.unit.streams.making import NOW, REPLY, admitted, answer, attempt, command
from tests.unit.streams.test_statements import Table

TOPOLOGY = Topology("spillway", ("claude", "openai"))
SHARING = Sharing("k", 60, 7)
DUE = NOW.timestamp() + 600
BAD_KEY = Failure(ErrorClass.FALL_BACK, "bad_key", "no such key")


class Broker:
    """Takes records and rows, and acknowledges each when the loop comes round."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.fails: dict[str, Exception] = {}

    async def post(self, record: Record) -> asyncio.Future[None]:
        body = record.value or b""
        for text, error in self.fails.items():
            if text.encode() in body:
                raise error
        self.records.append(record)
        return acknowledged()

    async def publish(self, *records: Record) -> None:
        for record in records:
            await (await self.post(record))

    def answers(self) -> list[Response]:
        return [decode(Response, record.value) for record in self.records if record.topic == RESPONSES]


class Rows(Table):
    async def put_all(self, rows: Mapping[str, Row | None], partition: int) -> list[Any]:
        self._own(partition)
        for key, row in rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        return [acknowledged() for _ in rows]

    def walk(self, prefix: str, partition: int, start: str = "") -> Iterator[tuple[str, Row]]:
        """Without sorting everything for each piece: the rows of this test are in order."""
        self._own(partition)
        return iter([pair for pair in self.rows.items() if pair[0].startswith(prefix) and pair[0] >= start])


class Held(Rows):
    """Whose rows the broker takes when it is told to, or refuses."""

    def __init__(self, rows: dict[str, Row]) -> None:
        super().__init__(rows)
        self.under_way: list[asyncio.Future[None]] = []
        self.refusal: Exception | None = None

    async def put_all(self, rows: Mapping[str, Row | None], partition: int) -> list[Any]:
        await super().put_all(rows, partition)
        sent: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in rows]
        if self.refusal is not None:
            for one in sent:
                one.set_exception(self.refusal)
        self.under_way += sent
        return sent

    def take(self) -> None:
        for one in self.under_way:
            if not one.done():
                one.set_result(None)


def acknowledged() -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_soon(future.set_result, None)
    return future


class World:
    """A flight with so many aboard, and the report that ends its leader."""

    def __init__(self, aboard: int) -> None:
        self.broker, self.table = Broker(), Rows({})
        leader = RequestRecord(7, NOW.timestamp(), sharing=SHARING, asker=asker_of(admitted(reply=None)))
        self.table.rows |= {request_key("acme", "r-1"): leader, flight_key("acme", "k"): Flight("r-1", 7, DUE)}
        self.names = [f"p-{number:05}" for number in range(aboard)]
        for name in self.names:
            own = admitted(request_id=name, reply=None)
            record = RequestRecord(9, NOW.timestamp(), sharing=replace(SHARING, joined=True), asker=asker_of(own))
            self.table.rows[request_key("acme", name)] = record
            self.table.rows[joined_key("acme", "k", 7, name)] = Joined(DUE, b"{}")
        workspaces = Workspaces(cast(Any, self.table), DrainSignal())
        self.settling = Settling(
            router=Router(TOPOLOGY, lambda _provider, _request: "some-model"),
            budgets=BudgetBook(Budget(Decimal(1000))),
            config=SettleConfig(),
            directory=cast(Any, None),
            workspaces=workspaces,
            outbox=cast(Any, self.broker),
            clock=lambda: NOW + timedelta(seconds=30),
        )

    async def end(self, report: AttemptReport | None = None) -> None:
        asked = command().model_copy(update={"admitted": admitted(reply=None)})
        report = report or judge_answer(attempt(asked), answer(), None, NOW + timedelta(seconds=30))
        await self.settling.handle(Incoming(REPORTS, 0, 20, 0, b"acme", encode(report), ()))

    def left(self) -> list[str]:
        """What the flight has left behind."""
        return [key for key in self.table.rows if key.startswith("@") and not key.startswith(ACCOUNTS)]


def held(world: World) -> Held:
    table = world.table = Held(world.table.rows)
    world.settling._workspaces = Workspaces(cast(Any, table), DrainSignal())
    return table


def on_with_it() -> AttemptReport:
    asked = command().model_copy(update={"admitted": admitted(reply=None)})
    return judge_failure(attempt(asked), BAD_KEY, RetryPolicy(), NOW, 0.5).report


@pytest.mark.parametrize("report", [None, on_with_it()], ids=["answer", "forward"])
async def test_nothing_is_sent_before_the_broker_has_the_rows_of_a_report(report: AttemptReport | None) -> None:
    world = World(0)
    table = held(world)
    settling = asyncio.create_task(world.end(report))
    for _ in range(10):
        await asyncio.sleep(0)
    assert table.under_way
    assert world.broker.records == []
    while not settling.done():
        table.take()
        await asyncio.sleep(0)
    await settling
    assert [record.topic for record in world.broker.records] == (
        [RESPONSES, USAGE] if report is None else [USAGE, dispatch_topic("openai")]
    )


@pytest.mark.parametrize("report", [None, on_with_it()], ids=["answer", "forward"])
async def test_nothing_is_sent_of_a_report_whose_rows_the_broker_refuses(report: AttemptReport | None) -> None:
    """The partition has another owner."""
    world = World(0)
    held(world).refusal = ProducerFenced()
    for _ in range(2):
        with pytest.raises(ProducerFenced):
            await world.end(report)
    assert world.broker.records == []


async def test_those_aboard_are_told_after_the_broker_has_their_rows() -> None:
    world = World(2)
    table = held(world)
    settling = asyncio.create_task(world.end())
    seen: set[tuple[int, int]] = set()
    while not settling.done():
        await asyncio.sleep(0)
        closed = sum(isinstance(row, RequestRecord) and row.closed for row in table.rows.values())
        waits = any(not one.done() for one in table.under_way)
        told = len(world.broker.answers())
        seen.add((closed, told))
        assert told <= 1 or not waits or closed == 3
        if waits:
            before = told
            await asyncio.sleep(0)
            assert len(world.broker.answers()) == before, "nobody is told while rows are on their way"
            table.take()
    await settling
    assert (3, 1) in seen, "all are written down before the second answer"
    assert len(world.broker.answers()) == 3


async def test_while_a_flight_lands_others_have_their_turn_after_each_piece() -> None:
    world = World(10 * PIECE + 1)
    landing = asyncio.create_task(world.end())
    seen = [0]
    while not landing.done():
        await asyncio.sleep(0)
        seen.append(len(world.broker.answers()))
    await landing
    assert max(later - before for before, later in pairwise(seen)) == PIECE
    told = {one.request_id: one for one in world.broker.answers()}
    assert len(told) == len(world.broker.answers()) == 1 + len(world.names)
    assert {one.status for one in told.values()} == {Status.SUCCEEDED}
    assert world.left() == []
    records = [row for key, row in world.table.rows.items() if not key.startswith("@")]
    assert all(isinstance(row, RequestRecord) and row.closed_by == 20 for row in records)


async def test_one_that_reads_chunks_gets_the_whole_answer_as_one_and_then_its_response() -> None:
    world = World(3)
    reads, waits, alone = world.names
    asked = CompletionRequest(prompt="hi", stream=True)
    for name, own in (
        (reads, admitted(request_id=reads, request=asked)),
        (waits, admitted(request_id=waits)),
        (alone, admitted(request_id=alone, request=asked, reply=None)),
    ):
        record = RequestRecord(9, NOW.timestamp(), sharing=replace(SHARING, joined=True), asker=asker_of(own))
        world.table.rows[request_key("acme", name)] = record
    await world.end()
    replies = [record for record in world.broker.records if record.topic == REPLY.topic]
    to = {name: [record for record in replies if record.key == name.encode()] for name in world.names}
    assert [len(to[name]) for name in world.names] == [2, 1, 0], "no address, no chunks"
    first, last = to[reads]
    assert header(first.headers, "ce_type") == Chunk.ce_type.encode()
    assert header(first.headers, "kafka_correlationId") == header(last.headers, "kafka_correlationId") == b"c-1"
    chunk, response = decode(Chunk, first.value), decode(Response, last.value)
    assert (chunk.request_id, chunk.attempt, chunk.index, chunk.content) == (reads, 1, 0, "hello")
    assert (response.content, response.cached, response.attempts) == ("hello", True, ())


async def test_those_who_are_late_are_found_among_many_that_stay_without_a_pause() -> None:
    world = World(2 * MOST_LOOKED_AT + PIECE)
    late = [world.names[0], world.names[MOST_LOOKED_AT + 1], world.names[-1]]
    for name in world.names:
        own = admitted(request_id=name, reply=None, within=20.0 if name in late else 600.0)
        waiting = command().model_copy(update={"admitted": own})
        world.table.rows[joined_key("acme", "k", 7, name)] = Joined(own.deadline.timestamp(), encode(waiting))
        known = world.table.rows[request_key("acme", name)]
        assert isinstance(known, RequestRecord)
        world.table.rows[request_key("acme", name)] = replace(known, asker=asker_of(own))
    asked = admitted(reply=None)
    landing = asyncio.create_task(world.end(answered(asked, expired(asked, (), NOW + timedelta(seconds=30)))))
    turns = 0
    while not landing.done():
        await asyncio.sleep(0)
        turns += 1
    await landing
    assert turns > 3, "others have had their turn"
    told = world.broker.answers()
    assert [one.request_id for one in told] == ["r-1", *late]
    assert {one.status for one in told} == {Status.EXPIRED}
    led = world.table.rows[flight_key("acme", "k")]
    assert isinstance(led, Flight)
    assert led.leader == world.names[1]
    assert len([key for key in world.left() if key.startswith("@joined/")]) == len(world.names) - len(late)


async def test_a_landing_that_the_broker_has_stopped_goes_on_with_those_who_are_not_told() -> None:
    world = World(3 * PIECE)
    world.broker.fails[world.names[PIECE]] = KafkaConnectionError()
    with pytest.raises(KafkaConnectionError):
        await world.end()
    assert len(world.broker.answers()) == 1 + PIECE
    told = world.broker.answers()
    assert [key for key in world.left() if key.startswith("@landed/")], "whoever asks finds them closed"
    world.broker.fails.clear()
    await world.end()
    again = world.broker.answers()[len(told) :]
    assert again[0] == told[0]
    assert [one.request_id for one in again[1:]] == world.names[PIECE:]
    assert world.left() == []


async def test_after_a_fault_in_a_landing_those_who_are_not_told_are_left_to_the_sweep() -> None:
    world = World(3 * PIECE)
    world.broker.fails[world.names[PIECE]] = UndeliverableError("too large")
    with pytest.raises(UndeliverableError):
        await world.end()
    assert not [key for key in world.left() if key.startswith("@landed/")]
    last = world.table.rows[request_key("acme", world.names[-1])]
    assert isinstance(last, RequestRecord)
    assert not last.closed


async def test_a_report_that_is_delivered_again_writes_the_account_again_that_knows_of_it() -> None:
    """The local table may be all that knows of it: the broker did not take the write, or the worker was killed."""
    world = World(0)
    leader = world.table.rows[request_key("acme", "r-1")]
    assert isinstance(leader, RequestRecord)
    world.table.rows[request_key("acme", "r-1")] = replace(leader, month="2026-11", reserved=500)
    world.table.rows[account_key("acme", "2026-11")] = Account(reserved=500, open_requests=1, admitted_to=7)
    written: list[dict[str, Any]] = []
    put_all = world.table.put_all

    async def noted(rows: Mapping[str, Row | None], partition: int) -> list[Any]:
        written.append(dict(rows))
        return await put_all(rows, partition)

    world.table.put_all = noted  # type: ignore[method-assign]
    for _ in range(2):
        await world.end()
    key = account_key("acme", "2026-11")
    accounts = [rows[key] for rows in written if key in rows]
    assert len(accounts) == 2
    assert accounts[0] == accounts[1], "and it is applied once"
    assert accounts[0].reserved == 0
