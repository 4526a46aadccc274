"""A stage that pauses acknowledges nothing, buries nothing, says so, and goes on by itself from where it stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP

from streams.records import Record
from streams.runtime.agents import EventLoop
from streams.runtime.deliveries import Deliveries
from streams.runtime.errors import StoreError
from streams.runtime.faults import FaultLimits
from streams.runtime.incoming import Incoming
from streams.runtime.pausing import StagePause
from streams.runtime.transport import DrainSignal
from tests.support.clock.waiting import eventually

TOPIC = "ai.requests"
PLACE = TP(TOPIC, 0)


@dataclass(eq=False)
class Message:
    offset: int
    key: bytes
    topic: str = TOPIC
    partition: int = 0
    timestamp: float = 1.0
    value: bytes = b"{}"
    headers: Any = ()
    tp: TP = PLACE


class World:
    """A stage over one partition that can be read again from any offset on, as the consumer does it."""

    def __init__(self, most: int = 3) -> None:
        self.log: list[bytes] = []
        self.position = 0
        self.is_read = True
        self.deliveries = Deliveries()
        self.handled: list[int] = []
        self.buried: list[int] = []
        self.broken: Callable[[int], Exception | None] = lambda _: None
        self.changed = asyncio.Event()
        self.rereads: list[int] = []
        self.unassigned = 0
        app: Any = SimpleNamespace(consumer=self, rebalancing=False, limits=FaultLimits(most, 0.02), should_stop=False)
        self.loop = EventLoop(self.handle, limit=4, outbox=cast(Any, self), drain=DrainSignal())
        self.pause = self.loop.pause = StagePause(app, "admit", TOPIC, is_busy=lambda: bool(self.loop._tasks))

    # What a stage does.

    async def handle(self, incoming: Incoming) -> None:
        if (error := self.broken(incoming.offset)) is not None:
            raise error
        self.handled.append(incoming.offset)

    async def publish(self, letter: Record) -> None:
        offset = next(value for name, value in letter.headers if name == "kafka_dlt-original-offset")
        self.buried.append(int.from_bytes(offset or b"", "big"))

    # What the consumer does.

    def assignment(self) -> set[TP]:
        return {PLACE}

    def pause_partitions(self, _: set[TP]) -> None:
        self.is_read = False

    def has_handed_over(self, _: str) -> bool:
        return False

    async def read_again(self, _: set[TP]) -> None:
        if self.unassigned:
            self.unassigned -= 1
            raise IllegalStateError
        offset = self.deliveries.read_again(PLACE)
        assert offset is not None
        self.rereads.append(offset)
        self.position, self.is_read = offset, True
        self.changed.set()

    def add(self, *workspaces: bytes) -> None:
        self.log += workspaces
        self.changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def events() -> AsyncIterator[Any]:
            while True:
                while not (self.is_read and self.position < len(self.log)):
                    self.changed.clear()
                    await self.changed.wait()
                message = Message(self.position, self.log[self.position])
                self.position += 1
                self.deliveries.add(message)
                yield SimpleNamespace(
                    message=message,
                    app=SimpleNamespace(consumer=self),
                    ack=lambda message=message: self.deliveries.acknowledge(message),
                )

        stream = SimpleNamespace(noack=lambda: SimpleNamespace(events=events))
        task = asyncio.create_task(self.loop.run(stream))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], Any]) -> None:
        await eventually(condition, every=0.002)

    @property
    def committed(self) -> int | None:
        return self.deliveries.committable().get(PLACE)


@pytest.mark.parametrize("error", [StoreError("the table requests cannot be written"), MemoryError()])
async def test_a_fault_of_ours_pauses_at_once_and_everything_is_handled_in_order_when_it_is_over(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world, is_over = World(), False
    world.broken = lambda offset: None if offset < 2 or is_over else error
    async with world.running():
        world.add(*[b"a"] * 6)
        await world.until(lambda: world.pause.is_on)
        await world.until(lambda: len(world.rereads) >= 2)
        assert (world.committed, world.buried) == (2, [])
        assert world.handled == [0, 1]
        is_over = True
        await world.until(lambda: world.committed == 6)
    assert world.handled == list(range(6))
    assert set(world.rereads) == {2}
    assert not world.pause.is_on
    assert world.buried == []
    told = [record.getMessage() for record in caplog.records if record.name == "streams.runtime.pausing"]
    assert [line.split(":")[0] for line in told] == ["stage_paused", "stage_goes_on"], (
        "once, however often it has tried"
    )


async def test_unknown_faults_one_after_the_other_are_buried_up_to_the_limit_and_not_beyond(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, is_mended = World(most=3), False
    world.broken = lambda _: None if is_mended else ValueError("a bad deployment")
    with caplog.at_level(logging.ERROR):
        async with world.running():
            world.add(b"a", b"b", b"a", b"b", b"a", b"b", b"a")
            await world.until(lambda: len(world.rereads) >= 3)
            assert len(world.buried) <= 3
            is_mended = True
            await world.until(lambda: world.committed == 7)
    assert sorted([*world.handled, *world.buried]) == list(range(7))
    assert "a bad deployment" not in caplog.text, "it may quote a prompt"


async def test_a_stage_whose_partitions_cannot_be_sought_stays_paused_and_tries_again() -> None:
    world, is_over = World(), False
    world.broken = lambda _: None if is_over else StoreError("no")
    world.unassigned = 3
    async with world.running():
        world.add(b"a", b"b")
        await world.until(lambda: world.pause.is_on)
        is_over = True
        await world.until(lambda: world.committed == 2)
    assert (world.handled, world.unassigned) == ([0, 1], 0)


async def test_one_workspace_whose_events_no_version_can_bear_stops_nobody() -> None:
    world = World(most=3)
    world.broken = lambda offset: ValueError() if world.log[offset] == b"bad" else None
    async with world.running():
        world.add(*[b"bad"] * 20, b"good")
        await world.until(lambda: world.committed == 21)
    assert (world.handled, world.rereads) == ([20], [])
    assert sorted(world.buried) == list(range(20))


async def test_a_success_between_them_begins_the_count_anew() -> None:
    world = World(most=3)
    world.broken = lambda offset: ValueError() if offset % 2 else None
    async with world.running():
        for number in range(20):
            world.add(b"a" if number % 4 < 2 else b"b")
            await world.until(lambda: world.committed == number + 1)  # noqa: B023
    assert world.rereads == []
    assert world.buried == list(range(1, 20, 2))
