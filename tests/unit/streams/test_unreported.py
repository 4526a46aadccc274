"""Reports of calls wait for the broker for as long as it takes, and hold new calls when they are many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from streams.dispatch import unreported
from streams.dispatch.unreported import Unreported
from streams.records import Record
from tests.support.clock.waiting import eventually


class Broker:
    """Takes nothing until it is back."""

    def __init__(self) -> None:
        self.is_away = True
        self.taken: list[Record] = []
        self.tries = 0

    async def publish(self, record: Record) -> None:
        self.tries += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise KafkaTimeoutError
        self.taken.append(record)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unreported, "BROKER_RETRY", 0.005)


def report(size: int) -> Record:
    return Record("ai.attempts", b"acme", bytes(size))


async def test_each_report_is_published_once_when_the_broker_is_back_however_often_it_was_refused() -> None:
    broker, held = Broker(), list[bool]()
    outbox: Any = broker
    reports = Unreported(outbox, held.append, most=10_000)
    waiting = [asyncio.create_task(reports.publish(report(100))) for _ in range(20)]
    await eventually(lambda: broker.tries > 100, what="they are tried again and again")
    assert not any(one.done() for one in waiting)
    broker.is_away = False
    await asyncio.gather(*waiting)
    assert len(broker.taken) == 20
    assert reports.bytes == 0
    assert held == []


async def test_new_calls_are_held_while_more_bytes_wait_than_there_is_room_for() -> None:
    broker, held = Broker(), list[bool]()
    outbox: Any = broker
    reports = Unreported(outbox, held.append, most=1_000)
    waiting = [asyncio.create_task(reports.publish(report(300))) for _ in range(5)]
    await asyncio.sleep(0)
    assert (held, reports.bytes) == ([True], 1_500)
    broker.is_away = False
    await asyncio.gather(*waiting)
    assert held == [True, False]


async def test_what_no_broker_will_take_is_for_the_caller_to_know() -> None:
    class Narrow(Broker):
        async def publish(self, record: Record) -> None:  # noqa: ARG002
            raise MessageSizeTooLargeError

    outbox: Any = Narrow()
    reports = Unreported(outbox, lambda _: None)
    with pytest.raises(MessageSizeTooLargeError):
        await reports.publish(report(10))
    assert reports.bytes == 0
