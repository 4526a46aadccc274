"""When a circuit opens, what it lets through, and what closes it."""

from __future__ import annotations

import pytest

from streams.dispatch.breaker import OPEN_FOR, THRESHOLD, WINDOW, Breaker, Circuit

START = 1_760_000_000.0


def opened(at: float = START) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker()
    for _ in range(THRESHOLD - 1):
        assert not breaker.failed(at)
    assert breaker.failed(at)
    return breaker


def probing(at: float = START) -> tuple[Breaker, float]:
    """A breaker whose probe is on its way, and the moment at which it began."""
    breaker, begun = opened(at), at + OPEN_FOR
    assert breaker.begin(begun)
    return breaker, begun


def test_a_new_circuit_is_closed_and_lets_every_call_through() -> None:
    breaker = Breaker()
    assert breaker.state(START) is Circuit.CLOSED
    assert breaker.ready_at(START) == START
    assert breaker.opened_at is None
    assert not breaker.begin(START), "a call through a closed circuit is no probe"


def test_fewer_failures_than_the_threshold_leave_it_closed() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(START + number) for number in range(THRESHOLD - 1))
    assert breaker.state(START + THRESHOLD) is Circuit.CLOSED


def test_the_failure_that_reaches_the_threshold_opens_it_and_says_so() -> None:
    breaker = Breaker()
    told = [breaker.failed(START + number) for number in range(THRESHOLD)]
    assert told == [False] * (THRESHOLD - 1) + [True]
    assert breaker.opened_at == START + THRESHOLD - 1
    assert breaker.state(START + THRESHOLD - 1) is Circuit.OPEN


def test_failures_that_are_spread_over_more_than_the_window_do_not_open_it() -> None:
    breaker = Breaker()
    apart = WINDOW / (THRESHOLD - 1)
    assert not any(breaker.failed(START + number * apart) for number in range(50))


def test_failures_just_inside_the_window_open_it() -> None:
    breaker = Breaker()
    apart = WINDOW / (THRESHOLD - 1) - 0.001
    assert [breaker.failed(START + number * apart) for number in range(THRESHOLD)][-1]


def test_a_success_between_failures_begins_the_count_anew() -> None:
    breaker = Breaker()
    for number in range(100):
        assert not breaker.failed(START + number * 0.1)
        if number % (THRESHOLD - 1) == 0:
            breaker.succeeded(START)
    assert breaker.state(START + 10.0) is Circuit.CLOSED


def test_an_open_circuit_names_the_moment_of_its_probe() -> None:
    breaker = opened()
    assert breaker.ready_at(START) == START + OPEN_FOR
    assert breaker.ready_at(START + OPEN_FOR - 1.0) == START + OPEN_FOR
    assert breaker.state(START + OPEN_FOR - 0.001) is Circuit.OPEN
    assert not breaker.begin(START + OPEN_FOR - 0.001), "nothing is a probe before its time"


def test_it_is_half_open_after_its_time_and_a_late_caller_need_not_wait() -> None:
    breaker = opened()
    assert breaker.state(START + OPEN_FOR) is Circuit.HALF_OPEN
    assert breaker.ready_at(START + OPEN_FOR) == START + OPEN_FOR
    assert breaker.ready_at(START + 10 * OPEN_FOR) == START + 10 * OPEN_FOR


def test_one_probe_is_let_through_and_nothing_else_until_it_has_ended() -> None:
    breaker, now = probing()
    assert breaker.ready_at(now) is None
    assert breaker.ready_at(now + 1_000_000.0) is None
    assert not breaker.begin(now), "the second call is no probe"


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, now = probing()
    breaker.succeeded(START, probe=True)
    assert breaker.state(now) is Circuit.CLOSED
    assert breaker.opened_at is None
    assert breaker.ready_at(now) == now
    assert not breaker.begin(now)


def test_after_closing_the_whole_threshold_is_needed_again() -> None:
    breaker, now = probing()
    breaker.succeeded(START, probe=True)
    assert [breaker.failed(now) for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]


def test_a_probe_that_fails_opens_it_for_another_time() -> None:
    breaker, begun = probing()
    ended = begun + 7.0
    assert breaker.failed(ended, probe=True), "it says that it has opened"
    assert breaker.opened_at == ended
    assert breaker.state(ended) is Circuit.OPEN
    assert breaker.ready_at(ended) == ended + OPEN_FOR
    assert breaker.begin(ended + OPEN_FOR), "and the next probe may be made"


def test_a_probe_that_says_nothing_lets_another_one_through_at_once() -> None:
    breaker, now = probing()
    breaker.returned(probe=True)
    assert breaker.state(now) is Circuit.HALF_OPEN
    assert breaker.ready_at(now) == now
    assert breaker.begin(now)


def test_a_call_that_says_nothing_and_is_no_probe_changes_nothing() -> None:
    breaker, now = probing()
    breaker.returned(probe=False)
    assert breaker.ready_at(now) is None
    closed = Breaker()
    for _ in range(THRESHOLD - 1):
        closed.failed(START)
    closed.returned(probe=False)
    assert closed.failed(START), "it was no success between the failures"


def test_a_success_from_before_the_opening_does_not_close_it_and_lets_the_probe_go_at_once() -> None:
    breaker = opened()
    breaker.succeeded(START + 1.0)
    assert breaker.state(START + 1.0) is Circuit.HALF_OPEN
    assert breaker.ready_at(START + 1.0) == START + 1.0
    assert breaker.begin(START + 1.0)
    assert not breaker.begin(START + 1.0), "one"
    assert breaker.failed(START + 2.0, probe=True)
    assert breaker.ready_at(START + 2.0) == START + 2.0 + OPEN_FOR


def test_a_success_from_before_the_opening_lets_no_second_probe_go() -> None:
    breaker, now = probing()
    breaker.succeeded(now)
    assert breaker.ready_at(now) is None


@pytest.mark.parametrize("has_probe", [False, True])
def test_a_failure_from_before_the_opening_does_not_put_the_probe_off(has_probe: bool) -> None:
    breaker = probing()[0] if has_probe else opened()
    before = breaker.ready_at(START)
    assert not breaker.failed(START + 30.0)
    assert breaker.opened_at == START
    assert breaker.ready_at(START) == before


def test_a_success_in_a_closed_circuit_is_no_news() -> None:
    breaker = Breaker()
    breaker.succeeded(START)
    assert breaker.state(START) is Circuit.CLOSED


def test_a_successor_goes_on_with_the_opening_of_the_one_before() -> None:
    breaker = Breaker(START)
    assert breaker.state(START + 1.0) is Circuit.OPEN
    assert breaker.ready_at(START + 1.0) == START + OPEN_FOR
    assert breaker.begin(START + OPEN_FOR), "a probe of the one before is not waited for"
