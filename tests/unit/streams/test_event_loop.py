"""The loop of every agent: acknowledged last, nothing lost, nothing stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError

from schemas.dead_letter import DeadLetter
from streams.ports import DirectoryUnavailableError
from streams.records import Record
from streams.runtime import agents
from streams.runtime.agents import EventLoop, Handler
from streams.runtime.deliveries import Deliveries
from streams.runtime.errors import AbandonedError
from streams.runtime.incoming import Incoming, incoming_from
from streams.runtime.letters import dead_letter
from streams.runtime.outbox import Outbox, UndeliverableError
from streams.runtime.transport import DrainSignal
from streams.topology import DEAD_LETTERS
from tests.support.clock.waiting import eventually

VALUE = b"\xff\x00 not JSON at all"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "BROKER_RETRY", 0.001)


@dataclass(eq=False)
class FakeMessage:
    offset: int
    topic: str = "ai.requests"
    partition: int = 3
    timestamp: float | None = 1_767_225_600.123
    key: bytes | None = b"acme"
    value: bytes | None = VALUE
    headers: Any = (("mine", b"1"), ("empty", None))
    tp: str = "ai.requests-3"


@dataclass(eq=False)
class FakeEvent:
    message: FakeMessage
    deliveries: Deliveries
    journal: list[str]

    @property
    def app(self) -> Any:
        return SimpleNamespace(consumer=SimpleNamespace(deliveries=self.deliveries))

    def ack(self) -> None:
        self.journal.append(f"ack {self.message.offset}")
        self.deliveries.acknowledge(self.message)


class FakeOutbox:
    """Keeps what is published; `fails` are the errors of the next tries."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.records: list[Record] = []
        self.fails: list[Exception] = []
        self.always: Exception | None = None

    async def publish(self, *records: Record) -> None:
        await asyncio.sleep(0)
        if self.always is not None:
            raise self.always
        if self.fails:
            raise self.fails.pop(0)
        self.records += records
        self.journal += [f"publish {record.topic}" for record in records]


@dataclass
class World:
    """A stream of events, their deliveries, and what happened in which order."""

    journal: list[str] = field(default_factory=list)
    deliveries: Deliveries = field(default_factory=Deliveries)
    drain: DrainSignal = field(default_factory=DrainSignal)
    outbox: FakeOutbox = field(init=False)
    queue: asyncio.Queue[FakeEvent] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.outbox = FakeOutbox(self.journal)

    def deliver(self, *offsets: int) -> None:
        for offset in offsets:
            message = FakeMessage(offset)
            self.deliveries.add(message)
            self.queue.put_nowait(FakeEvent(message, self.deliveries, self.journal))

    @asynccontextmanager
    async def running(self, handler: Handler, limit: int = 10) -> AsyncIterator[None]:
        loop = EventLoop(handler, limit=limit, outbox=cast(Outbox, self.outbox), drain=self.drain)

        async def events() -> AsyncIterator[FakeEvent]:
            while True:
                yield await self.queue.get()

        stream = SimpleNamespace(noack=lambda: SimpleNamespace(events=events))
        task = asyncio.create_task(loop.run(stream))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(condition, every=0.001)

    async def settle(self) -> None:
        await self.until(lambda: not len(self.deliveries))


def failing(*errors: Exception) -> tuple[Callable[[Incoming], Awaitable[None]], list[int]]:
    """A handler that raises these, one per call, and then succeeds; and the offsets that it was called with."""
    left, calls = list(errors), []

    async def handle(incoming: Incoming) -> None:
        calls.append(incoming.offset)
        if left:
            raise left.pop(0)

    return handle, calls


async def test_an_event_is_acknowledged_after_its_handler_has_ended() -> None:
    world, release = World(), asyncio.Event()

    async def handle(incoming: Incoming) -> None:
        world.journal.append(f"begin {incoming.offset}")
        await release.wait()
        world.journal.append(f"end {incoming.offset}")

    async with world.running(handle):
        world.deliver(1)
        await world.until(lambda: world.journal == ["begin 1"])
        assert world.deliveries.committable() == {"ai.requests-3": 1}
        release.set()
        await world.settle()
    assert world.journal == ["begin 1", "end 1", "ack 1"]
    assert world.deliveries.committable() == {"ai.requests-3": 2}


async def test_a_handler_sees_the_record_as_it_was() -> None:
    world, seen = World(), []

    async def handle(incoming: Incoming) -> None:
        seen.append(incoming)

    async with world.running(handle):
        world.deliver(1)
        await world.settle()
    headers = (("mine", b"1"), ("empty", None))
    assert seen == [Incoming("ai.requests", 3, 1, 1_767_225_600_123, b"acme", VALUE, headers)]


@pytest.mark.parametrize(
    ("timestamp", "millis"), [(None, 0), (-0.001, -1), (1.0005, 1000), (1_767_225_600.999, 1_767_225_600_999)]
)
def test_a_timestamp_is_counted_in_milliseconds(timestamp: float | None, millis: int) -> None:
    incoming = incoming_from(FakeMessage(1, timestamp=timestamp, headers=None))
    assert (incoming.timestamp, incoming.headers) == (millis, ())


async def test_a_fault_buries_the_original_bytes_and_then_acknowledges() -> None:
    world = World()
    handle, calls = failing(ValueError("the prompt says: my secret"))
    async with world.running(handle):
        world.deliver(5)
        await world.settle()
    assert calls == [5]
    assert world.journal == [f"publish {DEAD_LETTERS}", "ack 5"]
    record = world.outbox.records[0]
    letter = DeadLetter.from_record(record.key, record.value, record.headers)
    assert (record.key, record.value) == (b"acme", VALUE)
    assert (letter.origin.topic, letter.origin.partition, letter.origin.offset) == ("ai.requests", 3, 5)
    assert letter.origin.timestamp == 1_767_225_600_123
    headers: Sequence[tuple[str, bytes | None]] = letter.headers
    assert headers == (("mine", b"1"), ("empty", None))
    assert letter.code == "internal_error"
    assert "ValueError" in letter.message
    assert "secret" not in letter.message


async def test_a_fault_of_one_event_does_not_stop_the_others() -> None:
    world = World()
    handle, calls = failing(RuntimeError())
    async with world.running(handle, limit=1):
        world.deliver(1, 2, 3)
        await world.settle()
    assert calls == [1, 2, 3]
    assert world.journal == [f"publish {DEAD_LETTERS}", "ack 1", "ack 2", "ack 3"]


@pytest.mark.parametrize(
    "error", [KafkaConnectionError(), OSError("network"), TimeoutError(), DirectoryUnavailableError()]
)
async def test_while_the_broker_is_away_the_event_is_tried_again(error: Exception) -> None:
    world = World()
    handle, calls = failing(error, error, error)
    async with world.running(handle):
        world.deliver(1)
        await world.settle()
    assert calls == [1, 1, 1, 1]
    assert world.journal == ["ack 1"]
    assert world.outbox.records == []


async def test_while_the_broker_is_away_a_dead_letter_is_tried_again_and_the_handler_is_not() -> None:
    world = World()
    handle, calls = failing(ValueError())
    world.outbox.fails = [KafkaConnectionError(), KafkaConnectionError()]
    async with world.running(handle):
        world.deliver(1)
        await world.settle()
    assert calls == [1]
    assert world.journal == [f"publish {DEAD_LETTERS}", "ack 1"]


async def test_an_abandoned_event_is_neither_acknowledged_nor_waited_for_nor_committed_over() -> None:
    world = World()
    handle, calls = failing(AbandonedError())
    async with world.running(handle):
        world.deliver(1)
        await world.settle()
        world.deliver(2)
        await world.until(lambda: "ack 2" in world.journal)
    assert calls == [1, 2]
    assert world.journal == ["ack 2"]
    assert world.deliveries.committable() == {"ai.requests-3": 1}
    assert world.outbox.records == []


@pytest.mark.parametrize("error", [KafkaConnectionError(), DirectoryUnavailableError()])
async def test_a_drain_does_not_wait_for_a_broker_that_is_away(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "BROKER_RETRY", 60.0)
    world = World()
    handle, calls = failing(error)
    async with world.running(handle):
        world.deliver(1)
        await world.until(lambda: calls == [1])
        world.drain.begin()
        await world.settle()
    assert world.journal == []
    assert world.deliveries.committable() == {"ai.requests-3": 1}


@pytest.mark.parametrize("error", [UndeliverableError("too large"), RuntimeError()])
async def test_a_dead_letter_that_nobody_takes_holds_nobody_up_and_its_place_is_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    handle, _ = failing(ValueError())
    world.outbox.always = error
    async with world.running(handle):
        world.deliver(1)
        await world.settle()
    assert world.journal == ["ack 1"]
    assert "dead_letter_lost: ai.requests[3]@1" in caplog.text


async def test_no_more_events_are_worked_on_at_once_than_the_limit() -> None:
    world, release = World(), asyncio.Semaphore(0)
    now, most = 0, 0

    async def handle(_: Incoming) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await release.acquire()
        now -= 1

    async with world.running(handle, limit=3):
        world.deliver(*range(10))
        await world.until(lambda: now == 3)
        await asyncio.sleep(0.01)
        assert now == 3
        for _ in range(10):
            release.release()
        await world.settle()
    assert most == 3
    assert sorted(world.journal) == sorted(f"ack {offset}" for offset in range(10))


@pytest.mark.parametrize(
    ("room", "most"),
    [(len(VALUE) * 3 + 1, 3), (len(VALUE) * 2, 2), (1, 1)],
    ids=["three and a bit", "exactly two", "one that is larger than all of it"],
)
async def test_no_more_bytes_are_worked_on_at_once_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, room: int, most: int
) -> None:
    monkeypatch.setattr(agents, "BYTES_AT_WORK", room)
    world, at_work, seen = World(), 0, 0

    async def handle(_: Incoming) -> None:
        nonlocal at_work, seen
        at_work += 1
        seen = max(seen, at_work)
        for _turn in range(20):
            await asyncio.sleep(0)
        at_work -= 1

    async with world.running(handle, limit=10):
        world.deliver(*range(10))
        await world.settle()
    assert seen == most


@pytest.mark.parametrize("error", [ValueError(), AbandonedError()])
async def test_an_event_that_failed_gives_its_place_to_another(error: Exception) -> None:
    world = World()
    handle, calls = failing(error, error)
    async with world.running(handle, limit=1):
        world.deliver(1, 2, 3)
        await world.until(lambda: calls == [1, 2, 3])
        await world.settle()
    assert "ack 3" in world.journal


async def test_events_may_finish_in_any_order_and_only_the_finished_head_is_committable() -> None:
    world = World()
    gates = {offset: asyncio.Event() for offset in (1, 2, 3)}

    async def handle(incoming: Incoming) -> None:
        await gates[incoming.offset].wait()

    async with world.running(handle):
        world.deliver(1, 2, 3)
        for offset, committable in ((3, 1), (1, 2), (2, 4)):
            gates[offset].set()
            await world.until(lambda wanted=f"ack {offset}": wanted in world.journal)  # type: ignore[misc]
            assert world.deliveries.committable() == {"ai.requests-3": committable}
    assert world.journal == ["ack 3", "ack 1", "ack 2"]


async def test_a_record_that_not_even_the_dead_letters_take_does_not_hold_up_its_partition() -> None:
    world = World()
    handle, _ = failing(ValueError())

    async def takes_small_records_only(*records: Record) -> None:
        if any(len(record.value or b"") > 10 for record in records):
            raise UndeliverableError("too large")

    world.outbox.publish = takes_small_records_only  # type: ignore[method-assign]
    async with world.running(handle):
        world.deliver(1)
        await world.settle()
    assert world.journal == ["ack 1"]


def test_a_dead_letter_goes_to_the_dead_letters_under_its_original_key() -> None:
    record = dead_letter(incoming_from(FakeMessage(1)), "not_json", "The value is not JSON.")
    assert (record.topic, record.key, record.value, record.partition) == (DEAD_LETTERS, b"acme", VALUE, None)
