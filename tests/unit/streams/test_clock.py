"""The broker's time: as exact as it says, never going back, and nothing that the machine's own clock could change."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.dispatch.lane import Lane
from streams.dispatch.quota import Limits
from streams.runtime.clock import DRIFT, FAR, KEPT, SLEW, BrokerClock, steady_seconds
from tests.support.values.callers import another

START = 1_800_000_000.0
#: Seconds of a float at such a moment that are lost in a few sums.
ROUNDED = 1e-5

seconds = st.floats(0, 30, allow_nan=False)
gaps = st.floats(0, 600, allow_nan=False)


@dataclass
class Machine:
    """A machine and its broker. The broker's clock runs `drift` faster than the steady one."""

    drift: float = 0.0
    steady: float = 1_000.0
    broker: float = START
    #: By how much the machine's own clock is ahead of the broker's.
    ahead: float = 0.0
    clock: BrokerClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = BrokerClock(lambda: self.steady, lambda: self.broker + self.ahead)

    def wait(self, passed: float) -> None:
        self.steady += passed
        self.broker += passed * (1 + self.drift)

    def word(self, there: float = 0.001, back: float = 0.001) -> None:
        """A record is sent, stamped and acknowledged."""
        sent = self.steady
        self.wait(there)
        stamp = int(self.broker * 1000)
        self.wait(back)
        self.clock.hear(sent, self.steady, stamp)

    @property
    def error(self) -> float:
        return self.clock.seconds() - self.broker


def learned(**fields: float) -> Machine:
    machine = Machine(**fields)
    machine.word()
    machine.clock.begin()
    return machine


@given(st.floats(-DRIFT * 0.9, DRIFT * 0.9), st.lists(st.tuples(gaps, seconds, seconds), min_size=1), gaps)
@example(0.0, [(0.0, 0.0, 0.0)], 0.0)
def test_the_broker_s_time_is_within_what_is_said_to_be_uncertain_however_long_words_take(
    drift: float, words: list[tuple[float, float, float]], rest: float
) -> None:
    machine = Machine(drift)
    for gap, there, back in words:
        machine.wait(gap)
        machine.word(there, back)
        known = machine.clock.broker()
        assert known is not None
        assert abs(known - machine.broker) <= machine.clock.uncertainty + ROUNDED
    machine.wait(rest)
    known = machine.clock.broker()
    assert known is not None
    assert abs(known - machine.broker) <= machine.clock.uncertainty + ROUNDED


steps = st.tuples(gaps, seconds, seconds, st.sampled_from([0.0, 0.0, 0.0, -300.0, -2.0, -0.01, 0.01, 2.0, 300.0]))


@given(st.lists(steps), st.sampled_from([0.0, 300.0, -300.0]))
def test_it_never_goes_back_whatever_the_broker_s_clock_and_the_machine_s_do(
    words: list[tuple[float, float, float, float]], ahead: float
) -> None:
    machine = learned(ahead=ahead)
    shown = machine.clock.seconds()
    for gap, there, back, step in words:
        machine.wait(gap)
        assert machine.clock.seconds() >= shown
        shown = machine.clock.seconds()
        machine.broker += step
        machine.word(there, back)
        assert machine.clock.seconds() >= shown
        shown = machine.clock.seconds()


@given(st.lists(st.tuples(gaps, seconds, seconds), min_size=1))
def test_a_correction_is_never_faster_than_it_may_be(words: list[tuple[float, float, float]]) -> None:
    """Only with the machine's clock far off: where it agrees with the broker's, both are followed."""
    machine = learned(ahead=300.0)
    for number, (gap, there, back) in enumerate(words):
        shown, at = machine.clock.seconds(), machine.steady
        machine.broker += 60.0 * (-1) ** number
        machine.word(there, back)
        machine.wait(gap)
        passed = machine.steady - at
        assert abs(machine.clock.seconds() - shown - passed) <= SLEW * passed + ROUNDED


@pytest.mark.parametrize("ahead", [300.0, -300.0])
def test_a_machine_s_clock_that_is_wrong_from_the_start_is_known_for_it_and_asked_for_nothing(ahead: float) -> None:
    machine = Machine(ahead=ahead)
    assert machine.error == ahead, "nobody knows better yet"
    assert machine.clock.apart() is None
    machine.word()
    assert abs(machine.error) < 0.002
    assert machine.clock.apart() == pytest.approx(ahead, abs=0.002)


@pytest.mark.parametrize("jump", [300.0, -300.0, 86_400.0])
def test_the_windows_of_a_lane_survive_a_jump_of_the_machine_s_clock(jump: float) -> None:
    machine = learned()
    lane = Lane(Limits(rpm=10, rph=1000))
    for _ in range(10):
        machine.wait(0.1)
        lane.reserve(another(), 1, machine.clock.seconds())
    before, ready = lane.used(machine.clock.seconds()), lane.ready_at(1, machine.clock.seconds())
    machine.ahead += jump
    machine.word()
    now = machine.clock.seconds()
    assert lane.used(now) == before
    assert lane.ready_at(1, now) == ready > now + 50


def test_the_best_estimate_of_the_last_minutes_counts() -> None:
    machine = Machine()
    machine.word(0.0, 0.002)
    best = machine.clock.uncertainty
    for _ in range(20):
        machine.wait(2.5)
        machine.word(1.0, 1.0)
    assert machine.clock.uncertainty < best + 0.1
    machine.wait(KEPT)
    machine.word(1.0, 1.0)
    assert machine.clock.uncertainty > 1.0, "it is as exact as what was heard since"


def test_until_it_is_decided_by_it_a_better_estimate_is_taken_over_at_once() -> None:
    machine = Machine()
    machine.word(4.0, 0.0)
    assert abs(machine.error) > 1.0
    machine.word()
    assert abs(machine.error) < 0.002


def test_a_broker_s_clock_that_steps_is_followed_slowly_and_told(caplog: pytest.LogCaptureFixture) -> None:
    machine = learned()
    before = machine.clock.seconds()
    machine.broker, machine.ahead = machine.broker + 300.0, -300.0
    machine.word()
    assert "broker_clock_stepped: by +" in caplog.text
    assert machine.clock.apart() == pytest.approx(-300.0, abs=0.01)
    machine.wait(100.0)
    assert machine.clock.seconds() - before == pytest.approx(100.0 + 100.0 * SLEW, abs=0.01)


def test_a_machine_that_stood_still_as_a_whole_is_at_once_where_the_broker_and_its_own_clock_are() -> None:
    machine = learned()
    machine.broker += 3_600.0
    machine.word()
    assert abs(machine.error) < 0.01


def test_what_the_machine_s_clock_alone_says_is_not_followed() -> None:
    machine = learned()
    machine.ahead = 3_600.0
    machine.wait(FAR)
    machine.word()
    assert abs(machine.error) < 0.01


def test_a_broker_that_stamps_nothing_leaves_the_machine_s_clock_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(ahead=7.0)
    with caplog.at_level(logging.WARNING):
        machine.clock.hear(1.0, 2.0, None)
        machine.clock.hear(3.0, 4.0, None)
    assert caplog.text.count("clock_not_learned") == 1
    assert machine.error == 7.0
    assert (machine.clock.is_learned, machine.clock.apart()) == (False, None)


def test_the_steady_clock_goes_forward() -> None:
    before = steady_seconds()
    assert steady_seconds() >= before
