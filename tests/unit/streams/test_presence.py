"""Who lives, by the log that all workers read."""

from __future__ import annotations

import asyncio
import json
from asyncio import Future
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from streams.records import Record
from streams.runtime import presence as module
from streams.runtime.clock import BrokerClock
from streams.runtime.presence import Presence, lease_in, word_record
from streams.topology import OWNERS
from tests.support.clock.waiting import eventually

LEASE = 10.0
START = 1_800_000_000.0


class Outbox:
    """Acknowledges at once, with the broker's timestamps, or refuses."""

    def __init__(self) -> None:
        self.sent: list[Record] = []
        self.refuses: Exception | None = None
        self.stamp = 1

    async def post_always(self, record: Record) -> Future[Any]:
        self.sent.append(record)
        if self.refuses is not None:
            raise self.refuses
        done: Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(SimpleNamespace(timestamp=int(START * 1000), timestamp_type=self.stamp))
        return done


class Log:
    """The topic as one worker reads it: `says` is a word at a moment of the broker's time."""

    def __init__(self, name: str = "me", lease: float = LEASE) -> None:
        self.steady = 50.0
        self.presence = Presence(name, lease, BrokerClock(lambda: self.steady), Outbox())

    def says(self, name: str, at: float | None, lease: float = LEASE) -> None:
        record = word_record(name, lease)
        self.presence.apply(record.key, record.value, at)

    def lives(self, name: str) -> bool:
        return self.presence.lives(name)


@pytest.fixture
def log() -> Log:
    """This worker has said its first word."""
    found = Log()
    found.says("me", START)
    return found


def test_a_word_is_json_under_the_worker_s_name() -> None:
    record = word_record("a", 10.0)
    assert (record.topic, record.key, record.partition) == (OWNERS, b"a", 0)
    assert json.loads(record.value or b"") == {"owner": "a", "lease": 10.0}
    assert lease_in(record.value or b"") == 10.0


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"[]", b"7", b"null", b"{}", b'{"lease":"x"}', b'{"lease":-1}', b'{"lease":true}', b'{"lease":NaN}'],
)
def test_what_is_no_word_is_passed_over(log: Log, value: bytes) -> None:
    log.presence.apply(b"a", value, START)
    for moment in range(0, 25, 2):
        log.says("me", START + moment)
    assert lease_in(value) is None
    assert not log.lives("a")


def test_a_worker_lives_for_its_lease_after_its_last_word(log: Log) -> None:
    log.says("a", START + 1)
    for moment in range(2, 11):
        log.says("me", START + moment)
        assert log.lives("a")
    log.says("me", START + 11)
    assert not log.lives("a")
    log.says("a", START + 12)
    assert log.lives("a"), "it was only slow"


def test_each_worker_s_own_lease_counts(log: Log) -> None:
    log.says("slow", START, lease=30.0)
    for moment in range(2, 30, 2):
        log.says("me", START + moment)
    assert log.lives("slow")
    log.says("me", START + 30)
    assert not log.lives("slow")


def test_a_worker_whose_log_stands_still_takes_nobody_for_dead(log: Log) -> None:
    log.says("a", START + 1)
    log.steady += 3_600
    assert log.lives("a")
    assert log.lives("never heard of")


def test_who_has_just_started_knows_the_known_dead_and_waits_for_the_unknown() -> None:
    log = Log()
    assert log.lives("unknown")
    log.says("dead", START - 60)
    log.says("alive", START - 1)
    log.says("me", START)
    assert not log.lives("dead"), "the log went on for a minute without a word of it"
    assert log.lives("alive")
    for moment in range(1, 10):
        log.says("me", START + moment)
        assert log.lives("unknown")
    log.says("me", START + 10)
    assert not log.lives("unknown")


def test_this_worker_itself_lives() -> None:
    assert Log().lives("me")


def test_whoever_ends_in_order_is_not_waited_for(log: Log) -> None:
    log.says("a", START + 1)
    log.presence.apply(b"a", None, START + 2)
    assert not log.lives("a")


@pytest.mark.parametrize("step", [30.0, 300.0, -30.0, -300.0])
def test_after_a_broker_that_was_away_or_whose_clock_has_stepped_the_living_have_a_session_to_say_so(
    step: float,
) -> None:
    log = Log()
    log.says("dead", START - 20)
    log.says("me", START)
    log.says("a", START + 1)
    log.says("me", START + 2)
    log.says("me", START + 2 + step)
    assert log.lives("a")
    assert not log.lives("dead")
    for moment in range(4, 12, 2):
        log.says("me", START + step + moment)
        assert log.lives("a")
    log.says("me", START + step + 12)
    assert not log.lives("a")


def test_where_the_broker_stamps_nothing_the_moment_of_reading_counts() -> None:
    log = Log()
    log.says("a", None)
    log.says("me", None)
    for _ in range(9):
        log.steady += 1
        log.says("me", None)
    assert log.lives("a")
    log.steady += 1
    log.says("me", None)
    assert not log.lives("a")


def test_the_names_of_the_dead_leave_the_memory(log: Log) -> None:
    for number in range(1000):
        log.says(f"worker-{number}", START + number)
        log.says("me", START + number)
    assert len(log.presence._words) < 30


words = st.lists(st.tuples(st.sampled_from(["me", "a", "b"]), st.floats(0.1, 4.0)), max_size=80)


@given(words)
def test_nobody_who_keeps_saying_words_in_time_is_ever_dead_and_all_others_are_in_the_end(
    said: list[tuple[str, float]],
) -> None:
    """Words of the broker's log at most 4 s apart: what `lives` says is what the times of the last words say."""
    log, now, last = Log(), START, {"me": START}
    log.says("me", now)
    for name, gap in said:
        now += gap
        last[name] = now
        log.says(name, now)
        for other in ("a", "b"):
            assert log.lives(other) == (now - last.get(other, START) < LEASE)


class TestSaying:
    @pytest.fixture
    async def outbox(self) -> Outbox:
        return Outbox()

    @pytest.fixture
    async def presence(self, outbox: Outbox) -> AsyncIterator[Presence]:
        presence = Presence("me", 0.04, BrokerClock(), outbox)
        yield presence
        await presence.stop()

    async def test_it_says_so_at_once_and_a_few_times_in_each_session_and_at_last_that_it_has_ended(
        self, presence: Presence, outbox: Outbox
    ) -> None:
        assert not presence.holds()
        await presence.start()
        assert outbox.sent
        await eventually(lambda: len(outbox.sent) > 5)
        await presence.stop()
        assert {record.key for record in outbox.sent} == {b"me"}
        assert [record.value is None for record in outbox.sent].index(True) == len(outbox.sent) - 1

    async def test_the_broker_s_timestamps_are_learned(self, outbox: Outbox) -> None:
        clock = BrokerClock(lambda: 5.0)
        await Presence("me", LEASE, clock, outbox).say()
        assert clock.seconds() == pytest.approx(START, abs=0.002)

    async def test_timestamps_that_the_producer_gave_are_not(self, outbox: Outbox) -> None:
        clock = BrokerClock()
        outbox.stamp = 0
        await Presence("me", LEASE, clock, outbox).say()
        assert not clock.is_learned

    async def test_words_hold_from_when_they_were_sent(self, outbox: Outbox) -> None:
        steady = 100.0
        presence = Presence("me", LEASE, BrokerClock(lambda: steady), outbox)
        await presence.say()
        steady += 9.9
        assert presence.holds()
        steady += 0.2
        assert not presence.holds()

    async def test_whatever_keeps_a_word_back_the_next_one_is_said(
        self, presence: Presence, outbox: Outbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        outbox.refuses = KafkaConnectionError()
        await presence.start()
        assert "word_unsaid: KafkaConnectionError" in caplog.text
        assert not presence.holds()
        outbox.refuses = None
        await eventually(lambda: presence._clock.is_learned)

    async def test_a_start_does_not_wait_for_ever_for_a_broker_that_is_away(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "FIRST_WORD", 0.01)

        async def never(_: Record) -> Future[Any]:
            return asyncio.get_running_loop().create_future()

        monkeypatch.setattr(outbox, "post_always", never)
        presence = Presence("me", LEASE, BrokerClock(), outbox)
        await presence.start()
        await presence.stop()
