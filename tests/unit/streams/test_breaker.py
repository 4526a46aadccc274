"""When a circuit opens, what it lets through, and what closes it."""

from __future__ import annotations

import pytest

from streams.dispatch.breaker import FIRST_GAP, LONGEST_GAP, THRESHOLD, WINDOW, Breaker, Caller, Circuit
from tests.support.values.callers import another

START = 1_760_000_000.0


def opened(at: float = START) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker()
    for _ in range(THRESHOLD - 1):
        assert not breaker.failed(another(), at)
    assert breaker.failed(another(), at)
    return breaker


def probing(at: float = START) -> tuple[Breaker, float]:
    """A breaker whose probe is on its way, and the moment at which it began."""
    breaker, begun = opened(at), at + FIRST_GAP
    assert breaker.begin(another(), begun)
    return breaker, begun


def fail(breaker: Breaker, callers: list[Caller], *, reached: bool = True) -> list[bool]:
    """What each of their failures, a second apart, said of the circuit."""
    told = []
    for second, caller in enumerate(callers):
        breaker.begin(caller, START + second)
        told.append(breaker.failed(caller, START + second, reached=reached))
    return told


def test_a_new_circuit_is_closed_and_lets_every_call_through() -> None:
    breaker = Breaker()
    assert breaker.state(START) is Circuit.CLOSED
    assert breaker.ready_at(START) == START
    assert breaker.opened_at is None
    assert breaker.probe_at is None
    assert not breaker.begin(another(), START), "a call through a closed circuit is no probe"


def test_the_failure_that_reaches_the_threshold_opens_it_and_says_so() -> None:
    breaker = Breaker()
    told = [breaker.failed(another(), START + number) for number in range(THRESHOLD)]
    assert told == [False] * (THRESHOLD - 1) + [True]
    assert breaker.opened_at == START + THRESHOLD - 1
    assert breaker.state(START + THRESHOLD - 1) is Circuit.OPEN


def test_failures_that_are_spread_over_more_than_the_window_do_not_open_it() -> None:
    breaker = Breaker()
    apart = WINDOW / (THRESHOLD - 1)
    assert not any(breaker.failed(another(), START + number * apart) for number in range(50))


def test_failures_just_inside_the_window_open_it() -> None:
    breaker = Breaker()
    apart = WINDOW / (THRESHOLD - 1) - 0.001
    assert [breaker.failed(another(), START + number * apart) for number in range(THRESHOLD)][-1]


def test_a_success_between_failures_begins_the_count_anew() -> None:
    breaker = Breaker()
    for number in range(100):
        assert not breaker.failed(another(), START + number * 0.1)
        if number % (THRESHOLD - 1) == 0:
            breaker.succeeded(START)
    assert breaker.state(START + 10.0) is Circuit.CLOSED


# Whose fault it is -------------------------------------------------------------------------------------------------


def test_one_request_counts_once_however_often_it_fails() -> None:
    breaker, poison = Breaker(), another()
    assert not any(fail(breaker, [poison] * 50))
    assert fail(breaker, [another() for _ in range(THRESHOLD - 1)])[-1], "and is one of the five"


def test_the_requests_of_one_workspace_open_nothing_while_another_one_calls() -> None:
    breaker = Breaker()
    breaker.begin(another("other"), START - 1.0)
    assert not any(fail(breaker, [another("poisoner") for _ in range(50)]))
    assert breaker.failed(another("other"), START + 50.0), "now it is not that workspace alone"


def test_they_do_where_that_workspace_is_the_only_one_of_the_window() -> None:
    breaker = Breaker()
    breaker.begin(another("other"), START - WINDOW)
    assert fail(breaker, [another("alone") for _ in range(THRESHOLD)])[-1]


def test_where_nobody_can_be_reached_it_is_not_the_requests_fault() -> None:
    breaker = Breaker()
    breaker.begin(another("other"), START - 1.0)
    assert fail(breaker, [another("alone") for _ in range(THRESHOLD)], reached=False)[-1]


def test_a_success_clears_a_workspace_of_its_failures_as_well() -> None:
    breaker = Breaker()
    fail(breaker, [another("first"), another("second")])
    breaker.succeeded(START + 3.0)
    assert not any(fail(breaker, [another("second") for _ in range(THRESHOLD)]))


def test_many_failures_that_open_nothing_are_forgotten_after_the_window() -> None:
    breaker = Breaker()
    for second in range(10_000):
        breaker.begin(another("other"), START + second)
        breaker.failed(another("poisoner"), START + second)
    assert len(breaker._failed) <= WINDOW


# Probes ------------------------------------------------------------------------------------------------------------


def test_an_open_circuit_names_the_moment_of_its_probe() -> None:
    breaker = opened()
    assert breaker.ready_at(START) == breaker.probe_at == START + FIRST_GAP
    assert breaker.ready_at(START + FIRST_GAP - 0.1) == START + FIRST_GAP
    assert breaker.state(START + FIRST_GAP - 0.001) is Circuit.OPEN
    assert not breaker.begin(another(), START + FIRST_GAP - 0.001), "nothing is a probe before its time"


def test_it_is_half_open_after_its_time_and_a_late_caller_need_not_wait() -> None:
    breaker = opened()
    assert breaker.state(START + FIRST_GAP) is Circuit.HALF_OPEN
    assert breaker.ready_at(START + FIRST_GAP) == START + FIRST_GAP
    assert breaker.ready_at(START + 10 * FIRST_GAP) == START + 10 * FIRST_GAP


def test_one_probe_is_let_through_and_nothing_else_until_it_has_ended() -> None:
    breaker, now = probing()
    assert breaker.ready_at(now) is None
    assert breaker.ready_at(now + 1_000_000.0) is None
    assert not breaker.begin(another(), now), "the second call is no probe"


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, now = probing()
    breaker.succeeded(START, probe=True)
    assert breaker.state(now) is Circuit.CLOSED
    assert breaker.opened_at is None
    assert breaker.ready_at(now) == now
    assert not breaker.begin(another(), now)


def test_after_closing_the_whole_threshold_is_needed_again() -> None:
    breaker, now = probing()
    breaker.succeeded(START, probe=True)
    assert [breaker.failed(another(), now) for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]


def test_a_probe_that_fails_opens_it_for_another_time() -> None:
    breaker, begun = probing()
    ended = begun + 7.0
    assert breaker.failed(another(), ended, probe=True), "it says that it has opened"
    assert breaker.opened_at == ended
    assert breaker.state(ended) is Circuit.OPEN
    assert breaker.ready_at(ended) == ended + 2 * FIRST_GAP
    assert breaker.begin(another(), ended + 2 * FIRST_GAP), "and the next probe may be made"


def test_the_gaps_between_probes_grow_from_seconds_to_a_minute_and_begin_anew_after_an_answer() -> None:
    breaker, now = opened(), START
    gaps = []
    for _ in range(8):
        ready = breaker.ready_at(now)
        assert ready is not None
        gaps.append(ready - now)
        assert breaker.begin(another(), ready)
        breaker.failed(another(), ready, probe=True)
        now = ready
    assert gaps == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert breaker.begin(another(), now + LONGEST_GAP)
    breaker.succeeded(now + LONGEST_GAP, probe=True)
    for _ in range(THRESHOLD):
        breaker.failed(another(), now + LONGEST_GAP)
    assert breaker.ready_at(now + LONGEST_GAP) == now + LONGEST_GAP + FIRST_GAP


def test_a_request_that_has_failed_is_no_probe_for_the_longest_gap() -> None:
    breaker, poison = Breaker(), another()
    fail(breaker, [*(another() for _ in range(THRESHOLD - 1)), poison])
    failed_at = START + THRESHOLD - 1
    assert breaker.ready_at(failed_at, poison.request) == failed_at + LONGEST_GAP
    assert breaker.ready_at(failed_at, another().request) == failed_at + FIRST_GAP
    assert breaker.ready_at(failed_at + LONGEST_GAP, poison.request) == failed_at + LONGEST_GAP


def test_one_that_could_not_reach_the_provider_may_be_the_probe() -> None:
    breaker, last = Breaker(), another()
    fail(breaker, [*(another() for _ in range(THRESHOLD - 1)), last], reached=False)
    now = START + THRESHOLD
    assert breaker.ready_at(now, last.request) == breaker.ready_at(now)


def test_a_closed_circuit_lets_a_request_try_again_that_has_failed() -> None:
    breaker, request = Breaker(), another()
    fail(breaker, [request])
    assert breaker.ready_at(START, request.request) == START


def test_a_probe_that_says_nothing_lets_another_one_through_at_once() -> None:
    breaker, now = probing()
    breaker.returned(probe=True)
    assert breaker.state(now) is Circuit.HALF_OPEN
    assert breaker.ready_at(now) == now
    assert breaker.begin(another(), now)


def test_a_call_that_says_nothing_and_is_no_probe_changes_nothing() -> None:
    breaker, now = probing()
    breaker.returned(probe=False)
    assert breaker.ready_at(now) is None
    closed = Breaker()
    for _ in range(THRESHOLD - 1):
        closed.failed(another(), START)
    closed.returned(probe=False)
    assert closed.failed(another(), START), "it was no success between the failures"


def test_a_success_from_before_the_opening_does_not_close_it_and_lets_the_probe_go_at_once() -> None:
    breaker = opened()
    breaker.succeeded(START + 1.0)
    assert breaker.state(START + 1.0) is Circuit.HALF_OPEN
    assert breaker.ready_at(START + 1.0) == START + 1.0
    assert breaker.begin(another(), START + 1.0)
    assert not breaker.begin(another(), START + 1.0), "one"
    assert breaker.failed(another(), START + 2.0, probe=True)
    assert breaker.ready_at(START + 2.0) == START + 2.0 + 2 * FIRST_GAP


def test_a_success_from_before_the_opening_lets_no_second_probe_go() -> None:
    breaker, now = probing()
    breaker.succeeded(now)
    assert breaker.ready_at(now) is None


@pytest.mark.parametrize("has_probe", [False, True])
def test_a_failure_from_before_the_opening_does_not_put_the_probe_off(has_probe: bool) -> None:
    breaker = probing()[0] if has_probe else opened()
    before = breaker.ready_at(START)
    assert not breaker.failed(another(), START + 30.0)
    assert breaker.opened_at == START
    assert breaker.ready_at(START) == before


def test_a_success_in_a_closed_circuit_is_no_news() -> None:
    breaker = Breaker()
    breaker.succeeded(START)
    assert breaker.state(START) is Circuit.CLOSED


def test_a_successor_goes_on_with_the_opening_of_the_one_before() -> None:
    breaker = Breaker(START)
    assert breaker.state(START + 1.0) is Circuit.OPEN
    assert breaker.ready_at(START + 1.0) == START + FIRST_GAP
    assert breaker.begin(another(), START + FIRST_GAP), "a probe of the one before is not waited for"
