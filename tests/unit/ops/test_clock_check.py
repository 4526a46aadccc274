"""A machine's clock that is wrong makes its worker not ready, in words that say what to do."""

from __future__ import annotations

import logging

import pytest

from app.worker.clock import ClockCheck
from streams.runtime.clock import BrokerClock

START = 1_800_000_000.0


class Machine:
    """Its steady clock stands still; its own clock is `ahead` of the broker's, by what was heard in one millisecond."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self.clock = BrokerClock(lambda: 100.0, lambda: START + self.ahead)

    def hear(self, took: float = 0.0) -> Machine:
        self.clock.hear(100.0 - took, 100.0, round(START * 1000))
        return self


@pytest.mark.parametrize(("ahead", "words"), [(300.0, "300.0 s ahead of the broker's"), (-7.0, "7.0 s behind the")])
def test_beyond_the_tolerance_it_is_said_by_how_much_and_what_to_do(ahead: float, words: str) -> None:
    reason = ClockCheck(Machine(ahead).hear().clock, 5.0).reason()
    assert reason is not None
    assert words in reason
    assert "NTP" in reason
    assert "AI_CLOCK_TOLERANCE" in reason


@pytest.mark.parametrize("ahead", [0.0, 4.9, -4.9])
def test_within_the_tolerance_nothing_is_said(ahead: float) -> None:
    assert ClockCheck(Machine(ahead).hear().clock, 5.0).reason() is None


def test_while_nobody_knows_the_broker_s_time_nothing_is_said() -> None:
    assert ClockCheck(Machine(300.0).clock, 5.0).reason() is None


def test_what_a_slow_answer_leaves_uncertain_is_not_held_against_the_machine() -> None:
    assert ClockCheck(Machine(6.0).hear(took=4.0).clock, 5.0).reason() is None
    assert ClockCheck(Machine(12.0).hear(took=4.0).clock, 5.0).reason() is not None


def test_the_log_says_once_that_it_begins_and_once_that_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine().hear()
    check = ClockCheck(machine.clock, 5.0)
    with caplog.at_level(logging.INFO):
        for ahead in (0.0, 5.2, 4.8, 5.2, 300.0, 4.5, 3.9, 4.5):
            machine.ahead = ahead
            check.reason()
    assert [record.message.split(":")[0] for record in caplog.records] == ["clock_apart", "clock_right_again"]
