"""Answers and replies that fit into no record: what they have cost is not lost with them."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from schemas.codec import decode
from schemas.dead_letter import code_of
from schemas.internal import AttemptReport, Follow
from schemas.usage import Outcome
from streams.cancellations import CancellationBoard
from streams.commands import Router
from streams.dispatch.agent import Dispatcher
from streams.dispatch.crew import Visit
from streams.dispatch.decide import RetryPolicy
from streams.dispatch.ownership import Ownership
from streams.dispatch.ports import Answer, Call, Tell
from streams.dispatch.stations import DispatchConfig
from streams.dispatch.unreported import Unreported
from streams.records import Record
from streams.runtime.incoming import Incoming
from streams.runtime.lives import Life, Lives
from streams.runtime.outbox import UndeliverableError
from streams.runtime.replying import Replies
from streams.runtime.transport import DrainSignal
from streams.topology import DEAD_LETTERS, REPORTS, Topology
from tests.unit.streams.making import NOW, answer, command

LIMIT = 2_000


class Alone:
    """Owner and presence of a worker beside which there is no other: all that it asks for is granted."""

    def __init__(self, name: str = "alone") -> None:
        self.name = name

    def may_call(self, partition: int) -> bool:  # noqa: ARG002 - see Owners
        return True

    def lives(self, name: str) -> bool:
        return name == self.name

    def holds(self) -> bool:
        return True


class Outbox:
    """Takes no record larger than LIMIT; `error` is what it says."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.records: list[Record] = []

    async def publish(self, *records: Record) -> None:
        for record in records:
            if len(record.value or b"") > LIMIT:
                raise self._error
            self.records.append(record)


class Provider:
    """Answers with more than a record holds."""

    name = "claude"
    timeout = 60.0

    def model_for(self, _: object) -> str:
        return "m-1"

    async def call(self, _: Call, __: Tell | None = None) -> Answer:
        return answer(content="x" * LIMIT)


class Table:
    def get(self, *_: object) -> None:
        return None

    async def put(self, *_: object) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Memory:
    life = Life(0, 1)

    async def cover(self, _: int) -> None: ...

    async def note(self) -> None: ...


class Lanes:
    """The part of Stations that a call needs."""

    def now(self) -> float:
        return NOW.timestamp()

    def begin(self, *_: object) -> None: ...

    async def end(self, *_: object) -> None: ...


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), UndeliverableError("MessageSizeTooLargeError")])
async def test_an_answer_that_fits_into_no_record_is_a_failure_that_says_what_it_has_cost(error: Exception) -> None:
    outbox, lives = Outbox(error), Lives()
    life = lives.begin([0])[0]
    dispatcher = Dispatcher(
        provider=cast(Any, Provider()),
        router=Router(Topology("spillway", ("claude", "openai")), lambda *_: "m-1"),
        config=DispatchConfig(RetryPolicy()),
        prices=cast(
            Any,
            SimpleNamespace(cost=lambda *_: Decimal("0.5"), estimate=lambda *_: Decimal(2), lacking=lambda *_: None),
        ),
        marks=cast(Any, Table()),
        stations=cast(Any, Lanes()),
        cancellations=CancellationBoard(),
        outbox=cast(Any, outbox),
        unreported=Unreported(cast(Any, outbox), lambda _: None),
        drain=DrainSignal(),
        clock=lambda: NOW,
        ownership=Ownership(Alone(), lives, Alone()),
    )
    desk = SimpleNamespace(send=lambda *_: True, release=lambda *_: None)
    station = SimpleNamespace(desk=desk, memory=Memory(), life=life)
    visit = Visit(cast(Any, SimpleNamespace(key="acme/r-1")), cast(Any, station), drains=0)
    await dispatcher._attempt_once(cast(Any, visit), command(), cast(Any, SimpleNamespace(slot_hour=0)), 0.0)
    [record] = outbox.records
    report = decode(AttemptReport, record.value)
    assert (record.topic, report.follow) == (REPORTS, Follow.ANSWER)
    assert report.usage is not None
    assert (report.usage.outcome, report.usage.cost) == (Outcome.IN_DOUBT, Decimal("0.5"))
    assert report.usage.tokens == answer().tokens
    assert report.response is not None
    assert report.response.error is not None
    assert report.response.error.code == "answer_too_large"


async def test_a_reply_that_its_topic_does_not_take_is_buried_with_the_reason_and_nothing_else_is() -> None:
    outbox = Outbox(MessageSizeTooLargeError())
    incoming = Incoming(REPORTS, 0, 1, 0, b"acme", b"{}", ())
    await Replies(cast(Any, outbox), cast(Any, None)).send(incoming, Record("shop.replies", b"r-1", b"x" * (LIMIT + 1)))
    [letter] = outbox.records
    assert (letter.topic, code_of(letter.headers)) == (DEAD_LETTERS, "reply_undeliverable")
