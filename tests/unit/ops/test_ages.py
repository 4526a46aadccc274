"""How old what nobody has read yet is, against what its topic keeps."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition

from app.cli.waiting import as_data, duration, warnings
from app.kafka import Cluster, KafkaUnavailableError
from app.ops import ages as module
from app.ops.ages import Age, BacklogAges, ages, first_unread
from streams.topology import REQUESTS, TICKS, USAGE, TopicSpec

FIRST, SECOND, USED = TopicPartition(REQUESTS, 0), TopicPartition(REQUESTS, 1), TopicPartition(USAGE, 0)
DAY = 86_400
NOW = 1_000 * DAY * 1_000


def test_the_oldest_unread_record_is_that_of_the_slowest_reader() -> None:
    stages, contents = {FIRST: 10, SECOND: 5}, {FIRST: 4}
    assert first_unread([stages, contents], {}, {FIRST: 12, SECOND: 5}) == {FIRST: 4}


def test_what_is_deleted_already_is_not_looked_for() -> None:
    assert first_unread([{FIRST: 4}], {FIRST: 9}, {FIRST: 12}) == {FIRST: 9}
    assert first_unread([{FIRST: 4}], {FIRST: 12}, {FIRST: 12}) == {}


def test_a_reader_without_a_place_has_read_nothing_and_timers_do_not_count() -> None:
    ticks = TopicPartition(TICKS, 0)
    assert first_unread([{FIRST: None, ticks: 0}], {FIRST: 2}, {FIRST: 12, ticks: 9}) == {FIRST: 2}


def test_an_age_is_that_of_the_oldest_record_of_all_partitions_and_the_most_urgent_topic_is_first() -> None:
    unread, ends = {FIRST: 4, SECOND: 0, USED: 7}, {FIRST: 10, SECOND: 1, USED: 9}
    stamps = {FIRST: NOW - 2 * DAY * 1_000, SECOND: NOW - 4 * DAY * 1_000, USED: NOW - 5 * DAY * 1_000}
    found = ages(unread, ends, stamps, {REQUESTS: 7 * DAY * 1_000, USAGE: 30 * DAY * 1_000}, NOW)
    assert found == [Age(REQUESTS, 7, 4.0 * DAY, 7.0 * DAY), Age(USAGE, 2, 5.0 * DAY, 30.0 * DAY)]
    assert [age.is_near for age in found] == [True, False]


def test_a_topic_that_keeps_for_ever_and_one_whose_record_did_not_come_have_no_share() -> None:
    found = ages({FIRST: 0, USED: 0}, {FIRST: 1, USED: 1}, {FIRST: NOW}, {REQUESTS: None, USAGE: 1}, NOW)
    assert [(age.topic, age.share, age.is_near) for age in found] == [(REQUESTS, None, False), (USAGE, None, False)]


def test_a_sender_whose_clock_is_ahead_makes_no_negative_age() -> None:
    [age] = ages({FIRST: 0}, {FIRST: 1}, {FIRST: NOW + 5_000}, {REQUESTS: 1_000}, NOW)
    assert (age.seconds, age.share) == (0.0, 0.0)


def test_the_warning_begins_at_half_of_the_retention() -> None:
    near, far = Age(REQUESTS, 1, 50.0, 100.0), Age(USAGE, 1, 49.9, 100.0)
    [told] = warnings([near, far])
    assert told.startswith("ai.requests: the oldest unread record is 50 s old, 50% of the topic's retention")
    assert [topic["near"] for topic in as_data([near, far])["topics"]] == [True, False]
    assert as_data("Kafka is away.") == {"unknown": "Kafka is away.", "topics": []}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59, "59 s"), (720, "12 min"), (19_800, "5.5 h"), (4 * DAY, "4.0 d")]
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float, told: str) -> None:
    assert duration(seconds) == told


class Broker:
    """Says what is unread, and is asked for timestamps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unread = {FIRST: 4}
        self.asked: list[dict[TopicPartition, int]] = []
        self.answers = True
        monkeypatch.setattr(module, "timestamps", self.timestamps)
        monkeypatch.setattr(module, "retentions", self.retentions)
        self.ages = BacklogAges(Cluster("nowhere"), [TopicSpec(REQUESTS, 2)], self.look, clock=lambda: NOW / 1_000)

    async def look(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        if not self.answers:
            raise KafkaUnavailableError("It is away.")
        return dict(self.unread), {FIRST: 100}

    async def timestamps(self, _: Any, places: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        self.asked.append(dict(places))
        return {place: NOW - 10_000 * (100 - offset) for place, offset in places.items()}

    async def retentions(self, *_: Any) -> dict[str, int]:
        return {REQUESTS: 2_000_000}


async def test_a_worker_reads_a_record_again_only_where_its_place_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(monkeypatch)
    await broker.ages.look()
    await broker.ages.look()
    assert broker.ages.ratios() == {REQUESTS: 0.48}
    broker.unread = {FIRST: 50}
    await broker.ages.look()
    assert broker.ages.ratios() == {REQUESTS: 0.25}
    assert broker.asked == [{FIRST: 4}, {}, {FIRST: 50}]
    broker.unread = {}
    await broker.ages.look()
    assert broker.ages.ratios() == {}


async def test_a_broker_that_is_away_leaves_the_age_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, rounds = Broker(monkeypatch), 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        broker.answers = rounds == 1
        if rounds > 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await broker.ages.run(sleep)
    assert broker.ages.ratios() == {REQUESTS: 0.48}
