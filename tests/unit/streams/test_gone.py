"""What was deleted before it was read: what counts as that, and that it is told before anything beyond is committed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter, Gap, code_of
from streams.metrics import NoMetrics
from streams.records import Record
from streams.runtime import gone
from streams.runtime.deliveries import Deliveries
from streams.runtime.gone import Gaps, Gone, jumps, letter, what_to_do
from streams.topology import DEAD_LETTERS, DISPATCH_PREFIX, REQUESTS, TICKS, USAGE
from tests.support.clock.waiting import eventually
from tests.support.reader.logs import said

HERE = TopicPartition(REQUESTS, 3)
GAP = Gap("spillway", REQUESTS, 3, 10, 109)
EARLIEST = OffsetResetStrategy.EARLIEST


class Placing:
    """aiokafka's own books of one assigned partition."""

    def __init__(self, *places: TopicPartition) -> None:
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user(set(places or (HERE,)))

    def state(self, place: TopicPartition = HERE) -> Any:
        return self._subscription.subscription.assignment.state_value(place)

    def assignment(self) -> set[TopicPartition]:
        return set(self._subscription.subscription.assignment.tps)

    def jump(self, before: int, after: int, place: TopicPartition = HERE) -> None:
        """The broker has no `before`, and its log begins at `after`."""
        self.state(place).seek(before)
        self.state(place).await_reset(EARLIEST)
        self.state(place).reset_to(after)


# What is a gap ----------------------------------------------------------------------------------------------------


async def test_a_place_before_the_begin_of_the_log_is_remembered_once() -> None:
    consumer = Placing()
    consumer.jump(10, 110)
    assert jumps(consumer) == [(HERE, 10, 110)]
    assert jumps(consumer) == []


async def test_a_committed_place_that_is_gone_is_remembered_as_one_that_was_read_up_to() -> None:
    consumer = Placing()
    # The coordinator has said 0, the fetch there is out of range.
    consumer.state().reset_to(0)
    consumer.state().await_reset(EARLIEST)
    consumer.state().reset_to(7)
    assert jumps(consumer) == [(HERE, 0, 7)]


async def test_a_group_without_a_place_begins_where_the_log_begins_and_misses_nothing() -> None:
    consumer = Placing()
    consumer.state().await_reset(EARLIEST)
    consumer.state().reset_to(110)
    assert jumps(consumer) == []


async def test_a_place_behind_the_end_of_the_log_is_moved_back_and_misses_nothing() -> None:
    consumer = Placing()
    consumer.jump(110, 0)
    consumer.jump(110, 110)
    assert jumps(consumer) == []


async def test_a_place_that_is_sought_meanwhile_counts_no_more() -> None:
    consumer = Placing()
    consumer.state().seek(10)
    consumer.state().await_reset(EARLIEST)
    consumer.state().seek(200)
    consumer.state().await_reset(EARLIEST)
    consumer.state().reset_to(210)
    assert jumps(consumer) == [(HERE, 200, 210)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=20))
def test_holes_within_the_log_are_no_gaps(steps: list[tuple[int, int]]) -> None:
    async def read_on() -> None:
        consumer, position = Placing(), 0
        consumer.state().reset_to(0)
        for read, hole in steps:
            position += read + hole
            consumer.state().consumed_to(position)
        assert jumps(consumer) == []

    asyncio.run(read_on())


def test_a_consumer_without_partitions_misses_nothing() -> None:
    assert jumps(SimpleNamespace(_subscription=SimpleNamespace(subscription=None))) == []


def test_a_gap_is_told_once_however_often_a_partition_is_sought_back() -> None:
    gaps = Gaps("spillway")
    [gap] = gaps.new([(HERE, 10, 110)])
    assert gap == GAP
    assert gaps.new([(HERE, 10, 110)]) == []
    gaps.told(gap)
    assert gaps.new([(HERE, 10, 110)]) == []
    assert gaps.new([(HERE, 110, 120)]) == [Gap("spillway", REQUESTS, 3, 110, 119)]


def test_a_gap_that_was_given_up_is_told_when_it_is_found_again() -> None:
    gaps = Gaps("spillway")
    [gap] = gaps.new([(HERE, 10, 110)])
    gaps.given_up(gap)
    assert gaps.new([(HERE, 10, 110)]) == [gap]


def test_timers_are_no_loss() -> None:
    assert Gaps("spillway").new([(TopicPartition(TICKS, 0), 1, 100)]) == []


def test_told_gaps_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone, "REMEMBERED", 2)
    gaps = Gaps("spillway")
    for first in (0, 10, 20):
        for gap in gaps.new([(HERE, first, first + 5)]):
            gaps.told(gap)
    assert [gap.first for gap in gaps.new([(HERE, first, first + 5) for first in (0, 10, 20)])] == [0]


# Its letter -------------------------------------------------------------------------------------------------------


def test_the_letter_names_the_group_the_place_and_the_range() -> None:
    record = letter(GAP)
    assert (record.topic, record.value, code_of(record.headers)) == (DEAD_LETTERS, None, "records_gone")
    found = DeadLetter.from_record(record.key, record.value, record.headers)
    assert (found.origin.topic, found.origin.partition, found.origin.offset) == (REQUESTS, 3, 10)
    assert "offsets 10 to 109 (100) were deleted before spillway had read them" in found.message
    assert Gap.of(found) == GAP


def test_a_letter_of_the_same_gap_has_the_same_key_even_when_more_was_deleted() -> None:
    longer = Gap("spillway", REQUESTS, 3, 10, 500)
    assert letter(GAP).key == letter(longer).key == b"records_gone/spillway/ai.requests/3/10"
    others = (Gap("other", REQUESTS, 3, 10, 109), Gap("spillway", REQUESTS, 4, 10, 109))
    assert not {letter(other).key for other in others} & {letter(GAP).key}


def test_what_to_do_depends_on_what_the_topic_carried() -> None:
    commands, prompts = Gap("spillway", DISPATCH_PREFIX + "claude", 0, 0, 1), Gap("x-ledger", REQUESTS, 0, 0, 1)
    told = {what_to_do(gap) for gap in (GAP, commands, prompts, Gap("x", USAGE, 0, 0, 1), Gap("x", "other", 0, 0, 1))}
    assert len(told) == 5


# Telling ----------------------------------------------------------------------------------------------------------


class Box:
    """An outbox whose broker is away for some sends."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.letters: list[Record] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, record: Record) -> None:
        await self.gate.wait()
        if self.faults:
            raise self.faults.pop(0)
        self.letters.append(record)


class Counted(NoMetrics):
    def __init__(self) -> None:
        self.counts: list[tuple[str, int]] = []

    def gone(self, topic: str, count: int) -> None:
        self.counts.append((topic, count))


def teller(box: Box, counted: Counted | None = None) -> Gone:
    return Gone(cast(Any, box), "spillway", counted or Counted(), retry=0.001)


def is_input(_: str) -> bool:
    return True


async def test_nothing_beyond_a_gap_is_committed_before_its_letter_is_with_the_broker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box, counted, deliveries, consumer = Box(KafkaConnectionError()), Counted(), Deliveries(), Placing()
    box.gate.clear()
    telling = teller(box, counted)
    consumer.jump(10, 110)
    telling.hold(consumer, deliveries, is_input)
    # The first record that is left is read and handled, and how far it is read is noted.
    beyond = gone.GapEnd(TP(*HERE), 110)
    deliveries.add(beyond)
    deliveries.acknowledge(beyond)
    deliveries.passed(TP(*HERE), 111, 111)
    assert deliveries.committable() == {HERE: 10}
    assert counted.counts == []
    box.gate.set()
    await eventually(lambda: deliveries.committable() == {HERE: 111}, every=0.001)
    assert (len(box.letters), counted.counts) == (1, [(REQUESTS, 100)])
    [line] = [record.message for record in said(caplog, gone.__name__) if "records_gone:" in record.message]
    assert line.startswith("records_gone: ai.requests[3]: offsets 10 to 109 (100) were deleted before spillway had")


async def test_a_gap_with_nothing_after_it_is_committed_over() -> None:
    box, deliveries, consumer = Box(), Deliveries(), Placing()
    consumer.jump(10, 11)
    teller(box).hold(consumer, deliveries, is_input)
    await eventually(lambda: deliveries.committable() == {HERE: 11}, every=0.001)


async def test_a_gap_of_a_partition_that_has_gone_is_left_to_its_next_owner() -> None:
    box, deliveries, consumer = Box(*[KafkaConnectionError()] * 1_000), Deliveries(), Placing()
    telling = teller(box)
    consumer.jump(10, 110)
    telling.hold(consumer, deliveries, is_input)
    deliveries.forget([TP(*HERE)])
    await eventually(lambda: not telling._telling, every=0.001)
    assert box.letters == []
    # And is told when it comes back.
    box.faults.clear()
    consumer.jump(10, 110)
    telling.hold(consumer, deliveries, is_input)
    await eventually(lambda: box.letters, every=0.001)


async def test_what_is_no_input_is_not_told() -> None:
    box, deliveries, consumer = Box(), Deliveries(), Placing()
    consumer.jump(10, 110)
    telling = teller(box)
    telling.hold(consumer, deliveries, lambda _: False)
    await telling.stop()
    assert (len(deliveries), box.letters, deliveries.committable()) == (0, [], {})


async def test_a_stop_does_not_wait_for_a_broker_that_is_away() -> None:
    box, deliveries, consumer = Box(), Deliveries(), Placing()
    box.gate.clear()
    telling = teller(box)
    consumer.jump(10, 110)
    telling.hold(consumer, deliveries, is_input)
    await telling.stop()
    assert deliveries.committable() == {HERE: 10}


async def test_sinks_hear_that_a_gap_could_not_be_told_and_tell_it_the_next_time() -> None:
    box, counted, consumer = Box(KafkaConnectionError()), Counted(), Placing()
    telling = teller(box, counted)
    consumer.jump(10, 110)
    with pytest.raises(KafkaConnectionError):
        await telling.tell_all(consumer)
    await telling.tell_all(consumer)
    await telling.tell_all(consumer)
    assert (len(box.letters), counted.counts) == (1, [(REQUESTS, 100)])


async def test_sinks_leave_a_gap_of_a_partition_that_has_gone() -> None:
    box, elsewhere = Box(KafkaConnectionError()), TopicPartition(USAGE, 0)
    telling, consumer = teller(box), Placing()
    consumer.jump(10, 110)
    with pytest.raises(KafkaConnectionError):
        await telling.tell_all(consumer)
    await telling.tell_all(Placing(elsewhere))
    assert box.letters == []
    consumer.jump(10, 110)
    await telling.tell_all(consumer)
    assert len(box.letters) == 1
