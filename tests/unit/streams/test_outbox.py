"""Waiting for what was sent, and telling what no broker will take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiokafka.errors import InvalidTopicError, KafkaConnectionError, MessageSizeTooLargeError

from streams.records import Record
from streams.runtime.outbox import Outbox, UndeliverableError, arrived

RECORD = Record("t", b"k", b"v", (("h", b"1"),), 3)


class FakeProducer:
    """Takes records; `sent` are the futures that it gave out."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.refuses = refuses
        self.records: list[tuple[Any, ...]] = []
        self.sent: list[asyncio.Future[None]] = []
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def send(self, *record: Any) -> asyncio.Future[None]:
        if self.refuses is not None:
            raise self.refuses
        self.records.append(record)
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


async def outbox_of(producer: FakeProducer) -> Outbox:
    outbox = Outbox(cast(Callable[[], Any], lambda: producer))
    await outbox.start()
    return outbox


async def test_waiting_for_nothing_ends_at_once() -> None:
    await asyncio.wait_for(arrived([]), 20)


async def test_all_must_have_arrived() -> None:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    waiting = asyncio.ensure_future(arrived([first, second]))
    second.set_result(None)
    await asyncio.sleep(0)
    assert not waiting.done()
    first.set_result(None)
    await asyncio.wait_for(waiting, 20)


async def test_the_first_error_is_raised_when_all_have_been_heard() -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(4)]
    waiting = asyncio.ensure_future(arrived(futures))
    futures[1].set_exception(ValueError("first"))
    futures[2].set_exception(KeyError("second"))
    futures[0].set_result(None)
    await asyncio.sleep(0)
    assert not waiting.done(), "the last one has not been heard yet"
    futures[3].set_result(None)
    with pytest.raises(ValueError, match="first"):
        await asyncio.wait_for(waiting, 20)
    assert isinstance(futures[2].exception(), KeyError)


async def test_publishing_ends_when_the_broker_has_acknowledged_every_record() -> None:
    producer = FakeProducer()
    outbox = await outbox_of(producer)
    publishing = asyncio.ensure_future(outbox.publish(RECORD, RECORD))
    await asyncio.sleep(0)
    assert producer.records == [("t", b"v", b"k", 3, None, [("h", b"1")])] * 2
    producer.sent[0].set_result(None)
    await asyncio.sleep(0)
    assert not publishing.done()
    producer.sent[1].set_result(None)
    await asyncio.wait_for(publishing, 20)


@pytest.mark.parametrize(
    "error", [AssertionError("partition"), MessageSizeTooLargeError("big"), InvalidTopicError("t")]
)
async def test_what_no_broker_will_ever_take_is_undeliverable(error: Exception) -> None:
    outbox = await outbox_of(FakeProducer(error))
    with pytest.raises(UndeliverableError):
        await outbox.publish(RECORD)


async def test_a_broker_that_is_away_is_not_the_records_fault() -> None:
    outbox = await outbox_of(FakeProducer(KafkaConnectionError("away")))
    with pytest.raises(KafkaConnectionError):
        await outbox.publish(RECORD)


async def test_an_outbox_that_was_not_started_says_so() -> None:
    outbox = Outbox(cast(Callable[[], Any], FakeProducer))
    with pytest.raises(RuntimeError, match="not started"):
        await outbox.post(RECORD)
    await outbox.stop()


async def test_stopping_the_outbox_stops_its_producer() -> None:
    producer = FakeProducer()
    outbox = await outbox_of(producer)
    assert producer.running
    await outbox.stop()
    assert not producer.running
