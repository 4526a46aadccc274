"""What Faust's consumer does differently here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport.consumer import Consumer
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from streams.runtime.deliveries import Deliveries
from streams.runtime.transport import BUFFERED_BYTES, SHORT_WORK, AckLastConsumer, OrderlyFetcher
from tests.support.clock.waiting import eventually


async def test_nothing_flows_while_partitions_are_sought_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over between the first seek and the last is thrown away by the flow's resumption."""
    flow, seen = FlowControlEvent(initially_suspended=False), []
    consumer = AckLastConsumer.__new__(AckLastConsumer)
    consumer.prepare()
    copies = SimpleNamespace(standby_offsets={}, standby_tps=set())
    app = SimpleNamespace(flow_control=flow, consumer_generation_id=1, tables=SimpleNamespace(recovery=copies))
    vars(consumer).update(app=app, _read_offset={})
    monkeypatch.setattr(consumer, "_client", lambda: (None, set()))
    stopped: list[bool] = []
    monkeypatch.setattr(consumer, "stop_flow", lambda: stopped.append(True))

    async def seek(_: Consumer) -> None:
        seen.append((flow.is_active(), bool(stopped)))

    monkeypatch.setattr(Consumer, "perform_seek", seek)
    flow.resume()
    await consumer.perform_seek()
    assert seen == [(False, True)]


async def test_a_restore_that_is_overtaken_by_an_assignment_seeks_what_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of new partitions it knows no offset, and what is another worker's cannot be sought: each ended the worker."""
    known, new, gone = TP("changelog", 0), TP("changelog", 1), TP("changelog", 2)
    consumer = AckLastConsumer.__new__(AckLastConsumer)
    sought: list[dict[TP, int]] = []

    async def seek_wait(partitions: dict[TP, int]) -> None:
        sought.append(partitions)

    vars(consumer).update(_thread=SimpleNamespace(seek_wait=seek_wait))
    monkeypatch.setattr(consumer, "_client", lambda: (None, {known, new}))
    await consumer.seek_wait({known: 7, new: None, gone: 3})
    assert sought == [{known: 7}]


async def test_a_stop_in_the_midst_of_a_rebalance_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def drain(_: OrderlyFetcher) -> None:
        begun.set()
        await asyncio.Event().wait()

    app = SimpleNamespace(consumer=SimpleNamespace(_drain_messages=drain), rebalancing=True, should_stop=False)
    fetcher = OrderlyFetcher(cast(Any, app))
    await fetcher.start()
    await begun.wait()
    await fetcher.stop()
    assert not fetcher.crashed
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_drain_waits_longer_for_what_is_about_to_end_than_for_calls() -> None:
    """What is given up between its answer and its acknowledgement is answered again by the next owner."""
    call, report = Message(TP("ai.dispatch.openai", 0), 1, b""), Message(TP("ai.attempts", 0), 1, b"")
    consumer = AckLastConsumer.__new__(AckLastConsumer)
    consumer.prepare()
    vars(consumer).update(drain_timeout=0.01)
    consumer.deliveries.add(call)
    consumer.deliveries.add(report)
    draining = asyncio.create_task(consumer._wait_for_open_deliveries())
    await asyncio.sleep(0.1)
    assert not draining.done()
    consumer.deliveries.acknowledge(report)
    async with asyncio.timeout(SHORT_WORK / 2):
        await draining
    assert list(consumer.deliveries) == [call]


class Client:
    """aiokafka's consumer: which partitions it fetches, and from where on."""

    def __init__(self, *places: TP) -> None:
        self.fetched = set(places)
        self.sought: dict[TP, int] = {}
        self._subscription = SimpleNamespace(subscription=None)

    def pause(self, place: TP) -> None:
        self.fetched.discard(place)

    def resume(self, place: TP) -> None:
        self.fetched.add(place)

    def seek(self, place: Any, offset: int) -> None:
        self.sought[TP(*place)] = offset

    async def seek_to_beginning(self, *places: Any) -> None:
        for place in places:
            self.seek(place, 0)


@dataclass(eq=False)
class Message:
    tp: TP
    offset: int
    value: bytes


SLOW, QUICK = TP("slow", 0), TP("quick", 0)


class Rounds(DefaultSchedulingStrategy):
    def __init__(self) -> None: ...


class Handing(AckLastConsumer):
    """A consumer that fetches what it is given, for two agents with a channel each."""

    def __init__(self, room: int = 1_000) -> None:
        self.queues = {place: asyncio.Queue[Any](maxsize=room) for place in (SLOW, QUICK)}
        self.taken: dict[TP, list[int]] = {place: [] for place in self.queues}
        self.fetches: asyncio.Queue[dict[TP, list[Any]]] = asyncio.Queue()
        self.client = Client(*self.queues)
        flow = FlowControlEvent(initially_suspended=False)
        flow.resume()
        index = {place: [SimpleNamespace(queue=queue)] for place, queue in self.queues.items()}
        topics = SimpleNamespace(_tp_index=index, acks_enabled_for=lambda _: True)
        vars(self).update(
            app=SimpleNamespace(flow_control=flow, topics=topics, consumer_generation_id=1, in_recovery=False),
            _read_offset=dict.fromkeys(self.queues),
            _active_partitions=set(self.queues),
            _paused_partitions=set(),
            flow_active=True,
            can_resume_flow=asyncio.Event(),
            suspend_flow=asyncio.Event(),
            scheduler=Rounds(),
            log=SimpleNamespace(dev=lambda *_: None),
            callback=lambda message: self.queues[message.tp].put(message),
        )
        self.prepare()

    def fetch(self, place: TP, *offsets: int, size: int = 0) -> None:
        """The broker has sent these."""
        records = [Message(place, offset, bytes(size)) for offset in offsets]
        self.fetches.put_nowait({place: records})

    def take(self, place: TP) -> list[int]:
        """What an agent finds in its channel."""
        queue, found = self.queues[place], list[int]()
        while not queue.empty():
            found.append(queue.get_nowait().offset)
        self.taken[place] += found
        return found

    def has_taken(self, place: TP, count: int) -> bool:
        """Whether an agent that takes what there is has so many now."""
        self.take(place)
        return len(self.taken[place]) >= count

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109
        try:
            return await asyncio.wait_for(self.fetches.get(), timeout), None
        except TimeoutError:
            return {}, None

    def _client(self) -> Any:
        return self.client, {*self.queues, *self.client.fetched}

    def _to_message(self, tp: TP, record: Any) -> Any:  # noqa: ARG002
        return record

    def assignment(self) -> set[TP]:
        return set(self.queues)

    async def _seek(self, partition: TP, offset: int) -> None:
        self.sought = (partition, offset)

    @property
    def should_stop(self) -> bool:
        return False

    @asynccontextmanager
    async def handing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._drain_messages(SimpleNamespace(should_stop=False)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("size", "at_once"), [(1_000, 900), (1024 * 1024, BUFFERED_BYTES // 1024**2 + 1)])
async def test_what_waits_for_an_agent_is_bounded_by_its_bytes(size: int, at_once: int) -> None:
    consumer = Handing()
    consumer.fetch(SLOW, *range(900), size=size)
    largest = 0

    def everything() -> bool:
        nonlocal largest
        largest = max(largest, consumer.queues[SLOW].qsize())
        return consumer.has_taken(SLOW, 900)

    async with consumer.handing():
        await eventually(everything, every=0.012)
    assert consumer.taken[SLOW] == list(range(900))
    assert largest == at_once


async def test_a_full_channel_stops_nobody_else_and_its_partition_is_not_fetched_meanwhile() -> None:
    consumer = Handing(room=5)
    consumer.fetch(SLOW, *range(20))
    async with consumer.handing():
        await eventually(lambda: SLOW not in consumer.client.fetched, every=0.001)
        for offset in range(50):
            consumer.fetch(QUICK, offset)
            await eventually(partial(consumer.has_taken, QUICK, offset + 1), every=0.001)
        assert consumer.taken[QUICK] == list(range(50))
        assert consumer.queues[SLOW].full()
        await eventually(partial(consumer.has_taken, SLOW, 20), every=0.001)
        assert consumer.taken[SLOW] == list(range(20))
        await eventually(lambda: SLOW in consumer.client.fetched, every=0.001)


async def test_what_was_fetched_of_a_partition_before_it_was_paused_is_kept_until_it_goes_on() -> None:
    consumer = Handing(room=3)
    consumer.fetch(SLOW, *range(10))
    async with consumer.handing():
        await eventually(consumer.queues[SLOW].full, every=0.001)
        consumer.pause_partitions({SLOW})
        assert consumer.take(SLOW) == [0, 1, 2]
        consumer.fetch(QUICK, 0)
        await eventually(lambda: consumer.take(QUICK) == [0], every=0.001)
        assert consumer.take(SLOW) == []
        assert SLOW not in consumer.client.fetched
        consumer.resume_partitions({SLOW})
        await eventually(partial(consumer.has_taken, SLOW, 10), every=0.001)
        assert consumer.taken[SLOW] == list(range(10))


async def test_a_paused_stage_reads_again_what_it_has_given_up_and_nothing_that_was_fetched_before() -> None:
    consumer = Handing(room=3)
    consumer.fetch(SLOW, *range(10))
    async with consumer.handing():
        await eventually(consumer.queues[SLOW].full, every=0.001)
        for message in [consumer.queues[SLOW].get_nowait() for _ in range(3)]:
            consumer.deliveries.add(message)
            if message.offset:
                consumer.deliveries.abandon([message])
            else:
                consumer.deliveries.acknowledge(message)
        consumer.pause_partitions({SLOW})
        await consumer.read_again({SLOW})
        assert consumer.sought == (SLOW, 1)
        consumer.fetch(SLOW, *range(1, 10))
        await eventually(partial(consumer.has_taken, SLOW, 9), every=0.001)
        assert consumer.taken[SLOW] == list(range(1, 10))


async def test_what_is_fetched_after_a_rebalance_is_handed_over_although_the_look_began_before_it() -> None:
    consumer = Handing()
    async with consumer.handing():
        await asyncio.sleep(0.01)
        consumer._forget_how_far_it_is_read()
        cast(Any, consumer).app.consumer_generation_id += 1
        consumer.fetch(SLOW, 0, 1, 2)
        await eventually(partial(consumer.has_taken, SLOW, 3), every=0.001)


async def test_a_rebalance_drops_what_was_put_aside_because_it_is_read_again() -> None:
    consumer = Handing(room=3)
    consumer.fetch(SLOW, *range(10))
    async with consumer.handing():
        await eventually(consumer.queues[SLOW].full, every=0.001)
        await eventually(lambda: SLOW not in consumer.client.fetched, every=0.001)
        consumer.stop_flow()
        assert SLOW in consumer.client.fetched
        assert consumer.take(SLOW) == [0, 1, 2]
        await asyncio.sleep(0.05)
        assert consumer.take(SLOW) == []


class Deleted:
    """Finds that what came before the next record of a partition was deleted, once it is asked to."""

    def __init__(self) -> None:
        self.before: int | None = None
        self.gap = Message(SLOW, 2, b"")

    def hold(self, _: Any, deliveries: Deliveries, is_input: Any) -> None:
        assert is_input(SLOW.topic)
        if self.before is not None and self.gap not in deliveries:
            deliveries.add(self.gap)
            self.before = None


async def test_a_gap_is_held_before_a_record_beyond_it_is_handed_over() -> None:
    consumer, deleted = Handing(), Deleted()
    cast(Any, consumer).app.gone = deleted
    async with consumer.handing():
        deleted.before = 2
        consumer.fetch(SLOW, 7)
        await eventually(consumer.queues[SLOW].qsize, every=0.001)
        message = consumer.queues[SLOW].get_nowait()
        consumer.deliveries.add(message)
        consumer.deliveries.acknowledge(message)
        assert consumer.deliveries.committable() == {SLOW: 2}
        consumer.deliveries.acknowledge(deleted.gap)
        assert consumer.deliveries.committable() == {SLOW: 8}


async def test_a_partition_of_which_nothing_was_read_is_committed_where_it_begins() -> None:
    consumer = Handing()
    state = SimpleNamespace(has_valid_position=True, position=0)
    assignment = SimpleNamespace(tps={SLOW}, state_value=lambda _: state)
    consumer.client._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    async with consumer.handing():
        await eventually(consumer.deliveries.committable, every=0.01)
    assert consumer.deliveries.committable() == {SLOW: 0}


async def test_what_comes_while_partitions_are_sought_is_fetched_again() -> None:
    """Its own one may have been sought already. Read on behind it, it would be committed over and lost."""
    consumer = Handing()
    consumer.flow_active = False
    async with consumer.handing():
        consumer.fetch(SLOW, 5, 6, 7)
        await eventually(lambda: consumer.client.sought == {SLOW: 5}, what="the fetch goes back to its beginning")
    assert consumer.take(SLOW) == []


async def test_what_was_handed_over_before_the_flow_stopped_is_not_fetched_again() -> None:
    consumer = Handing()

    async def hand_over(message: Any) -> None:
        await consumer.queues[message.tp].put(message)
        consumer.flow_active = message.offset != 6

    vars(consumer)["callback"] = hand_over
    async with consumer.handing():
        consumer.fetch(SLOW, 5, 6, 7, 8)
        await eventually(lambda: consumer.client.sought == {SLOW: 7}, what="the rest is fetched again")
    assert consumer.take(SLOW) == [5, 6]


async def test_a_partition_without_a_commit_and_a_second_copy_of_a_table_are_sought_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """aiokafka seeks only what has been committed beyond the first record."""
    consumer, copied, begun = Handing(), TP("copied-changelog", 0), TP("copied-changelog", 1)
    consumer.client = Client(SLOW, QUICK, copied, begun)
    copies = SimpleNamespace(standby_offsets={copied: 41, begun: -1}, standby_tps={copied, begun})
    consumer.app.tables = cast(Any, SimpleNamespace(recovery=copies))
    monkeypatch.setattr(consumer.app.topics, "acks_enabled_for", lambda topic: not topic.endswith("-changelog"))

    async def sought(self: Any) -> None:
        self._read_offset.update({SLOW: 0, QUICK: None})

    monkeypatch.setattr(Consumer, "perform_seek", sought)
    await consumer.perform_seek()
    assert consumer.client.sought == {SLOW: 0, QUICK: 0, copied: 42, begun: 0}
