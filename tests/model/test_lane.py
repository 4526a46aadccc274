"""A lane under every kind of end, pause, change and kill: no limit is passed, and it always goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.control import Mode
from schemas.usage import Tokens
from streams.dispatch.breaker import FIRST_GAP, THRESHOLD, Circuit
from streams.dispatch.lane import FIRST_PAUSE, LONGEST_PAUSE, Lane, Reservation
from streams.dispatch.ports import MINUTE, UNREAD, Answer, ErrorClass, Failure, Reading, Readings
from streams.dispatch.quota import ARRIVAL_MARGIN, HOUR, NEVER, SLOTS, Limits
from tests.support.values.callers import another
from tests.support.values.examples import EXAMPLES

START = 1_760_000_000.0
#: A limit of which this is told is not one per minute, and comes back at the rate at which it was used.
LONG_RESET = 3000.0
#: Two of such a limit, one of which is the reserve, at the rate of one in its reset; an hour's window is shorter.
LONGEST_WAIT = 2 * LONG_RESET + MINUTE

FAILURES = {
    "refused": Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down"),
    "refused for now": Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=0.0),
    "refused for a while": Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=20.0),
    "outage": Failure(ErrorClass.RETRYABLE, "unavailable", "down"),
    "announced outage": Failure(ErrorClass.RETRYABLE, "unavailable", "down", retry_after=5.0),
    "cut off": Failure(ErrorClass.RETRYABLE, "truncated", "cut off", may_be_billed=True),
    "bad key": Failure(ErrorClass.FALL_BACK, "bad_key", "no"),
    "another key": Failure(ErrorClass.RETRYABLE, "key_refused", "no"),
    "no such model": Failure(ErrorClass.FALL_BACK, "unknown_model", "no"),
    "invalid": Failure(ErrorClass.TERMINAL, "invalid_request", "no"),
}


def answer(tokens: int, readings: Readings = UNREAD) -> Answer:
    return Answer("yes", "model", "stop", Tokens(prompt_tokens=tokens), readings=readings)


@dataclass
class Call:
    """A call as the model remembers it: what it is known to have cost."""

    at: float
    tokens: int
    held: Reservation
    is_sent: bool = False


@dataclass
class Ledger:
    """A plain list of all calls, by whichever owner of the lane."""

    calls: list[Call] = field(default_factory=list)

    def check(self, tokens: int, limits: Limits, now: float, counted_at: float = -HOUR) -> None:
        """The call that begins now must fit into all that ends now; so no interval ever holds too much. One that has
        been counted takes no more room where it is still in the window.
        """
        for span, calls, amount in ((MINUTE, limits.rpm, limits.tpm), (HOUR, limits.rph, limits.tph)):
            if now - counted_at <= span + ARRIVAL_MARGIN + 2 * span / SLOTS:
                continue
            within = [call for call in self.calls if now - call.at < span]
            assert calls is None or len(within) < calls
            spent = sum(call.tokens for call in within)
            assert amount is None or spent + tokens <= amount or not spent, "too large is only right when alone"


_some = st.integers(0, 1000)
_tokens = st.sampled_from((0, 1, 10, 40, 100, 700))
_limits = st.builds(
    Limits,
    rpm=st.sampled_from((None, 1, 2, 7, 30, 200)),
    rph=st.sampled_from((None, 1, 3, 20, 100)),
    tpm=st.sampled_from((None, 1, 50, 300, 2000)),
    tph=st.sampled_from((None, 60, 500, 20_000)),
)
_reading = st.none() | st.builds(
    lambda limit, left, reset: Reading(limit, limit * left // 4, reset),
    st.sampled_from((0, 1, 3, 20, 1000)),
    st.integers(0, 4),
    st.sampled_from((None, 0.0, 30.0, LONG_RESET)),
)
_readings = st.one_of(st.just(UNREAD), st.builds(Readings, _reading, _reading))
_jitter = st.sampled_from((0.0, 0.5, 0.999))


class LaneLife(RuleBasedStateMachine):
    """Every call fits when it begins, whoever began the others; what is closed opens again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.lane = Lane(Limits())
        self.ledger = Ledger()
        self.open: list[Call] = []
        self.slots: set[int] = set()

    @initialize(limits=_limits, concurrency=st.sampled_from((1, 2, 5, 64)), shards=st.sampled_from((1, 1, 3)))
    def create(self, limits: Limits, concurrency: int, shards: int) -> None:
        self.lane = Lane(limits, concurrency=concurrency, shards=shards)

    # Calls ---------------------------------------------------------------------------------------------------------

    def _ask(self, tokens: int, light: bool = False) -> float:
        heavy = self.lane.ready_at(tokens, self.now)
        ready = self.lane.ready_at(tokens, self.now, light=True) if light else heavy
        assert self.now <= ready <= heavy, "who asks little never waits longer for it"
        if ready == NEVER:
            assert self.open or self.lane.mode is not Mode.OPEN, "nothing will ever wake it"
        return ready

    def _begin(self, tokens: int, light: bool = False) -> None:
        lane = self.lane
        assert lane.mode is Mode.OPEN
        assert self.now >= lane.paused_until
        self.ledger.check(tokens, lane.effective, self.now)
        circuit = lane.circuit(self.now)
        held = lane.reserve(another(), tokens, self.now, light=light)
        assert circuit is not Circuit.OPEN
        assert held.probe == (circuit is Circuit.HALF_OPEN)
        call = Call(self.now, tokens, held)
        self.ledger.calls.append(call)
        self.open.append(call)
        self.slots.add(held.slot_hour)

    def _go_on(self, tokens: int, light: bool = False) -> None:
        """Wait until the lane is ready, as long as it says, and make the call."""
        for _ in range(5):
            ready = self._ask(tokens, light)
            if ready <= self.now:
                self._begin(tokens, light)
                break
            if ready == NEVER:
                break
            self.now = ready
        else:
            assert self.open, "it names one moment after the other"

    @rule(first=_tokens, tokens=_tokens)
    def call_beside_one_that_waits(self, first: int, tokens: int) -> None:
        """What goes beside one that waits does not make it wait longer than it would by then.

        Where the provider's count knows too many calls on their way, the moment is one to ask again, and moves.
        """
        ready = self._ask(first)
        if not self.now < ready < NEVER:
            return
        moment = self.lane.ready_beside(first, ready, tokens, self.now)
        if moment < ready:
            self.now = max(self.now, moment)
            alone = self.lane.ready_at(first, self.now)
            self._begin(tokens)
            assert self.lane.ready_at(first, self.now) <= max(ready, alone) + 1e-6

    @rule(tokens=_tokens, calls=st.sampled_from((1, 2, 3, 5, 8, 60)), light=st.booleans())
    def call_while_it_may(self, tokens: int, calls: int, light: bool) -> None:
        for _ in range(calls):
            if self._ask(tokens, light) > self.now:
                break
            self._begin(tokens, light)

    @rule(tokens=_tokens, light=st.booleans())
    def wait_and_call(self, tokens: int, light: bool) -> None:
        self._go_on(tokens, light)

    @rule(seconds=st.sampled_from((0.001, 0.05, 1.0, 3.0, 17.0, MINUTE, MINUTE + ARRIVAL_MARGIN, 600.0, HOUR)))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: any(not call.is_sent for call in self.open))
    @rule(number=_some, seconds=st.sampled_from((0.0, 0.04, 0.3, 7.0, 59.0, MINUTE, MINUTE + 1.0, HOUR)))
    def send_after_a_stand_still(self, number: int, seconds: float) -> None:
        """Its provider counts it from now on; where that is too much, it is not sent."""
        self.now += seconds
        waiting = [call for call in self.open if not call.is_sent]
        call = waiting[number % len(waiting)]
        self.ledger.calls.remove(call)
        if self.lane.send(call.held, self.now):
            self.ledger.check(call.tokens, self.lane.effective, self.now, counted_at=call.at)
            # Within a slot of a minute the moment stays what it was.
            call.at = self.now if call.held.sent_at == self.now else call.at
            call.is_sent = True
            self.ledger.calls.append(call)
            self.slots.add(call.held.slot_hour)
        else:
            self.open.remove(call)
            self.lane.release(call.held, self.now)

    # Ends ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: bool(self.open))
    @rule(number=_some, share=st.sampled_from((0, 1, 2, 3, 7)), readings=_readings, jitter=_jitter)
    def answer(self, number: int, share: int, readings: Readings, jitter: float) -> None:
        call = self.open.pop(number % len(self.open))
        call.tokens = call.tokens * share // 2
        assert not self.lane.settle(call.held, answer(call.tokens, readings), self.now, jitter)

    @precondition(lambda self: bool(self.open))
    @rule(number=_some, kind=st.sampled_from(sorted(FAILURES)), calls=st.integers(1, 6), jitter=_jitter)
    def fail(self, number: int, kind: str, calls: int, jitter: float) -> None:
        failure = FAILURES[kind]
        for _ in range(min(calls, len(self.open))):
            call = self.open.pop(number % len(self.open))
            if not failure.may_be_billed:
                call.tokens = 0
            opened = self.lane.settle(call.held, failure, self.now, jitter)
            assert not opened or (failure.is_outage and self.lane.circuit(self.now) is Circuit.OPEN)
            if failure.retry_after:
                assert self.lane.paused_until >= self.now + failure.retry_after
            elif failure.is_rate_limit and failure.retry_after is None:
                assert self.lane.paused_until >= self.now + FIRST_PAUSE

    @precondition(lambda self: self.lane.mode is Mode.OPEN)
    @rule(kind=st.sampled_from(("outage", "bad key", "cut off")))
    def break_down(self, kind: str) -> None:
        """The provider is gone: one call after the other fails, until the circuit opens."""
        for _ in range(THRESHOLD):
            begun = len(self.ledger.calls)
            self._go_on(1)
            if len(self.ledger.calls) == begun or self.lane.circuit(self.now) is Circuit.OPEN:
                break
            call = self.open.pop()
            call.tokens *= FAILURES[kind].may_be_billed
            self.lane.settle(call.held, FAILURES[kind], self.now, 0.0)

    @precondition(lambda self: bool(self.open))
    @rule(number=_some, is_told_twice=st.booleans())
    def release(self, number: int, is_told_twice: bool) -> None:
        call = self.open.pop(number % len(self.open))
        self.ledger.calls.remove(call)
        self.lane.release(call.held, self.now)
        if is_told_twice:
            self.lane.release(call.held, self.now)
            assert not self.lane.settle(call.held, answer(1000), self.now, 0.0)

    # Operators and accidents ---------------------------------------------------------------------------------------

    @rule(limits=_limits)
    def change_limits(self, limits: Limits) -> None:
        self.lane.set_limits(limits)

    @rule(mode=st.sampled_from((Mode.OPEN, Mode.OPEN, Mode.PAUSED, Mode.DRAINING)))
    def set_mode(self, mode: Mode) -> None:
        self.lane.mode = mode

    @rule()
    def kill(self) -> None:
        """A successor knows what is in the table; what was on its way ends nowhere, and stays spent."""
        old = self.lane
        self.lane = Lane(old.limits, concurrency=old.concurrency, shards=old.shards, mode=old.mode)
        self.lane.restore([old.spent(slot) for slot in self.slots], old.condition, self.now)
        self.open = []
        assert self.lane.paused_until == old.paused_until
        assert self.lane.breaker.opened_at == old.breaker.opened_at
        assert self.lane.used(self.now).rph == old.used(self.now).rph
        assert self.lane.used(self.now).tph == old.used(self.now).tph

    @rule()
    def come_back(self) -> None:
        """The lane was given up and taken over again by the same worker: its calls have gone on."""
        old = self.lane
        self.lane = Lane(old.limits, concurrency=old.concurrency, shards=old.shards, mode=old.mode)
        self.lane.restore([old.spent(slot) for slot in self.slots], old.condition, self.now)
        for call in self.open:
            self.lane.adopt(call.held)
            call.is_sent = True
        assert self.lane.used(self.now).rph == old.used(self.now).rph
        assert self.lane.used(self.now).tph == old.used(self.now).tph

    # What must always hold -----------------------------------------------------------------------------------------

    @invariant()
    def calls_are_counted(self) -> None:
        assert self.lane.in_flight == len(self.open)
        assert 0 <= self.lane.in_flight <= self.lane.concurrency

    @invariant()
    def at_most_one_probe_is_on_its_way(self) -> None:
        probes = sum(call.held.probe for call in self.open)
        assert probes <= (self.lane.circuit(self.now) is not Circuit.CLOSED)

    @invariant()
    def its_outlook_is_finite_while_it_is_open(self) -> None:
        wait = self.lane.wait_for(3, 10, self.now)
        assert wait >= 0.0
        assert (wait < NEVER) == (self.lane.mode is Mode.OPEN)

    def teardown(self) -> None:
        """Once all have ended, and the operator lets it, it makes the next calls."""
        for call in self.open:
            self.lane.settle(call.held, FAILURES["invalid"], self.now, 0.0)
            call.tokens = 0
        self.open = []
        self.lane.mode = Mode.OPEN
        asked = self.now
        self._go_on(1)
        assert self.open
        assert self.now <= asked + LONGEST_WAIT


LaneLife.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestLaneLife = LaneLife.TestCase


def opened() -> tuple[Lane, list[Reservation]]:
    """A lane whose circuit has just opened, with two more calls on their way."""
    lane = Lane(Limits())
    held = [lane.reserve(another(), 10, START) for _ in range(THRESHOLD + 2)]
    told = [lane.settle(one, FAILURES["outage"], START, 0.0) for one in held[:THRESHOLD]]
    assert told == [False] * (THRESHOLD - 1) + [True]
    return lane, held[THRESHOLD:]


def test_a_call_that_was_not_made_leaves_the_lane_as_it_was() -> None:
    """Including what the provider was thought to have left."""
    lane = Lane(Limits(rpm=600, tpm=60_000))
    readings = Readings(Reading(600, 3 + 6), Reading(60_000, 100 + 600))
    lane.settle(lane.reserve(another(), 10, START), answer(10, readings), START, 0.0)
    before = lane.ready_at(100, START), lane.used(START)
    for _ in range(5):
        lane.release(lane.reserve(another(), 100, START), START)
    assert (lane.ready_at(100, START), lane.used(START)) == before
    assert before[0] == START


def test_an_error_costs_no_tokens_and_one_request() -> None:
    lane = Lane(Limits())
    lane.settle(lane.reserve(another(), 100, START), FAILURES["invalid"], START + 1.0, 0.0)
    assert lane.used(START + 1.0) == Limits(1, 1, 0, 0)


def test_an_answer_that_may_be_billed_keeps_its_estimate() -> None:
    lane = Lane(Limits())
    lane.settle(lane.reserve(another(), 100, START), FAILURES["cut off"], START + 1.0, 0.0)
    assert lane.used(START + 1.0) == Limits(1, 1, 100, 100)


@pytest.mark.parametrize("used", [3, 100, 5000])
def test_an_answer_puts_what_it_used_in_the_place_of_the_estimate(used: int) -> None:
    lane = Lane(Limits())
    lane.settle(lane.reserve(another(), 100, START), answer(used), START + 1.0, 0.0)
    assert lane.used(START + 1.0) == Limits(1, 1, used, used)


def test_refusals_without_a_wait_pause_longer_each_time_and_an_answer_ends_that() -> None:
    lane, now = Lane(Limits()), START
    pauses: list[float] = []
    for _ in range(9):
        lane.settle(lane.reserve(another(), 1, now), FAILURES["refused"], now, 0.0)
        pauses.append(lane.paused_until - now)
        now = lane.paused_until
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    lane.settle(lane.reserve(another(), 1, now), answer(1), now, 0.0)
    lane.settle(lane.reserve(another(), 1, now), FAILURES["refused"], now, 0.0)
    assert lane.paused_until == now + FIRST_PAUSE


def test_refusals_of_calls_that_were_on_their_way_together_count_once() -> None:
    lane = Lane(Limits(rpm=1000))
    held = [lane.reserve(another(), 1, START) for _ in range(20)]
    for one in held:
        lane.settle(one, FAILURES["refused"], START + 1.0, 0.0)
    assert lane.effective.rpm == 800
    assert lane.paused_until == START + 1.0 + FIRST_PAUSE


def test_a_late_refusal_after_an_answer_still_pauses_for_the_whole_first_pause() -> None:
    lane = Lane(Limits())
    held = [lane.reserve(another(), 1, START) for _ in range(3)]
    lane.settle(held[0], FAILURES["refused"], START + 1.0, 0.0)
    lane.settle(held[1], answer(1), START + 10.0, 0.0)
    lane.settle(held[2], FAILURES["refused"], START + 20.0, 0.0)
    assert lane.paused_until == START + 20.0 + FIRST_PAUSE


def test_what_was_cut_off_after_a_refusal_comes_back_slowly() -> None:
    lane = Lane(Limits(rpm=1000))
    lane.settle(lane.reserve(another(), 1, START), FAILURES["refused"], START, 0.0)
    seen: list[int] = []
    for minute in range(1, 7):
        lane.ready_at(1, START + minute * MINUTE)
        seen.append(lane.effective.rpm or 0)
    assert seen == sorted(seen)
    assert 800 < seen[0] < 900
    assert seen[-1] == 1000


def test_a_refusal_is_news_although_something_came_back_while_its_call_was_on_its_way() -> None:
    lane = Lane(Limits(rpm=1000))
    lane.settle(lane.reserve(another(), 1, START), FAILURES["refused"], START, 0.0)
    held = lane.reserve(another(), 1, START + MINUTE - 1.0)
    lane.ready_at(1, START + MINUTE + 1.0)
    back = lane.effective.rpm or 0
    lane.settle(held, FAILURES["refused"], START + MINUTE + 2.0, 0.0)
    assert (lane.effective.rpm or 0) < back


def test_a_provider_that_tells_its_limits_is_believed_and_not_cut_off() -> None:
    lane = Lane(Limits(rpm=1000, tpm=1000))
    lane.settle(
        lane.reserve(another(), 1, START), answer(1, Readings(Reading(50, 49), Reading(9000, 8999))), START, 0.0
    )
    assert lane.effective == Limits(rpm=50, tpm=1000)
    lane.settle(lane.reserve(another(), 1, START), FAILURES["refused"], START + 1.0, 0.0)
    assert lane.effective == Limits(rpm=50, tpm=1000)


def test_a_limit_of_a_whole_day_is_not_taken_for_one_per_minute() -> None:
    lane = Lane(Limits(rpm=1000))
    lane.settle(lane.reserve(another(), 1, START), answer(1, Readings(Reading(50, 49, reset=80_000.0))), START, 0.0)
    assert lane.effective.rpm == 1000


def test_nothing_goes_through_an_open_circuit_and_one_probe_after_it() -> None:
    lane, late = opened()
    assert lane.ready_at(1, START) == START + FIRST_GAP
    probe = lane.reserve(another(), 1, START + FIRST_GAP)
    assert probe.probe
    assert lane.ready_at(1, START + FIRST_GAP) == NEVER
    lane.settle(late[0], answer(1), START + FIRST_GAP, 0.0)
    assert lane.ready_at(1, START + FIRST_GAP) == NEVER, "an answer to a call from before says nothing"
    lane.settle(probe, answer(1), START + FIRST_GAP + 1.0, 0.0)
    assert lane.ready_at(1, START + FIRST_GAP + 1.0) == START + FIRST_GAP + 1.0


@pytest.mark.parametrize("end", ["release", "refused for now", "invalid"])
def test_a_probe_that_says_nothing_makes_room_for_another(end: str) -> None:
    lane, _ = opened()
    now = START + FIRST_GAP
    probe = lane.reserve(another(), 1, now)
    if end == "release":
        lane.release(probe, now)
    else:
        lane.settle(probe, FAILURES[end], now, 0.0)
    assert lane.ready_at(1, now) == now
    assert lane.reserve(another(), 1, now).probe


def test_after_a_pause_the_saved_burst_is_not_made() -> None:
    lane = Lane(Limits(rpm=600), concurrency=1000)
    lane.settle(lane.reserve(another(), 1, START), FAILURES["refused for a while"], START, 0.0)
    now = lane.ready_at(1, START)
    assert now == START + 20.0
    lane.reserve(another(), 1, now)
    assert lane.ready_at(1, now) > now, "one at a time, from the first"


def test_a_raised_limit_helps_at_once() -> None:
    """A request larger than the old limit does not hold the lane up for as long as that would have taken."""
    lane = Lane(Limits(tpm=10, tph=20))
    lane.reserve(another(), 10_000, START)
    lane.set_limits(Limits(tpm=100_000, tph=1_000_000))
    assert lane.ready_at(10, START) <= START + MINUTE / 10


def test_a_successor_makes_no_second_burst() -> None:
    lane = Lane(Limits(rpm=600), concurrency=1000)
    slot = lane.reserve(another(), 1, START).slot_hour
    heir = Lane(Limits(rpm=600), concurrency=1000)
    heir.restore([lane.spent(slot)], lane.condition, START)
    heir.reserve(another(), 1, START)
    assert heir.ready_at(1, START) > START


def test_a_successor_counts_a_coarse_slot_until_all_of_it_is_old_enough() -> None:
    lane = Lane(Limits(rpm=1))
    slot = lane.reserve(another(), 1, START).slot_hour
    heir = Lane(Limits(rpm=1))
    heir.restore([lane.spent(slot)], None, START)
    assert heir.ready_at(1, START) >= heir.moment_of(slot + 1) + MINUTE


def test_what_is_older_than_an_hour_is_not_restored() -> None:
    lane = Lane(Limits(rph=1))
    slot = lane.reserve(another(), 1, START).slot_hour
    heir = Lane(Limits(rph=1))
    later = START + HOUR + MINUTE
    assert lane.is_forgotten(slot, later)
    heir.restore([lane.spent(slot)], None, later)
    assert heir.ready_at(1, later) == later


def test_limits_circuit_and_readings_count_in_the_minute_that_a_test_has_set() -> None:
    lane = Lane(Limits(rpm=1, rph=3), minute=10.0)
    moments = []
    now = START
    for _ in range(4):
        now = lane.ready_at(1, now)
        moments.append(now - START)
        lane.reserve(another(), 1, now)
    assert moments[0] == 0.0
    assert 10.0 < moments[1] < 11.0 < moments[2] < 22.0, "one in a minute of ten seconds"
    assert moments[3] > 600.0, "and three in an hour of sixty of them"
    told = Lane(Limits(), minute=10.0)
    for _ in range(THRESHOLD):
        told.settle(told.reserve(another(), 1, START), FAILURES["outage"], START, 0.0)
    assert told.ready_at(1, START) == START + FIRST_GAP / 6
    heard = Lane(Limits(), minute=10.0)
    readings = Readings(requests=Reading(10, 0, 10.0))
    heard.settle(heard.reserve(another(), 1, START), answer(1, readings), START, 0.0)
    assert START + 1.0 <= heard.ready_at(1, START) <= START + 3.0, "one comes back each second"


def test_a_call_that_is_sent_after_a_stand_still_counts_from_then_on() -> None:
    lane = Lane(Limits(rpm=2))
    first, second = lane.reserve(another(), 1, START), lane.reserve(another(), 1, START)
    assert lane.send(first, START)
    assert lane.send(second, START + 7.0)
    assert lane.used(START + 7.0).rpm == 2
    assert lane.used(START + MINUTE + 1.0).rpm == 1
    assert lane.ready_at(1, START + MINUTE + 1.0) <= START + MINUTE + 1.0
    lane.reserve(another(), 1, START + MINUTE + 1.0)
    assert lane.ready_at(1, START + MINUTE + 1.0) >= START + 7.0 + MINUTE


def test_a_call_that_has_left_the_window_is_sent_only_where_there_is_room_again() -> None:
    lane, late = Lane(Limits(rpm=2)), START + MINUTE + 1.0
    held = [lane.reserve(another(), 1, START) for _ in range(2)]
    others = [lane.reserve(another(), 1, late) for _ in range(2)]
    assert not lane.send(held[0], late)
    lane.release(others[0], late)
    assert lane.send(held[0], late)
    assert not lane.send(held[1], late)
    assert lane.used(late).rpm == 2


def test_a_call_that_is_sent_late_gives_back_in_the_slot_from_which_it_counts() -> None:
    lane = Lane(Limits(rpm=10, tpm=1000))
    held = lane.reserve(another(), 100, START)
    assert lane.send(held, START + 7.0)
    lane.settle(held, answer(30), START + 8.0, 0.0)
    assert lane.used(START + 8.0) == Limits(1, 1, 30, 30)
    released = lane.reserve(another(), 100, START + 8.0)
    assert lane.send(released, START + 20.0)
    lane.release(released, START + 20.0)
    assert lane.used(START + 20.0) == Limits(1, 1, 30, 30)


def test_a_call_of_an_earlier_life_counts_among_those_at_one_time_and_its_tokens_are_corrected() -> None:
    old = Lane(Limits(tpm=1000), concurrency=1)
    held = old.reserve(another(), 100, START)
    lane = Lane(Limits(tpm=1000), concurrency=1)
    lane.restore([old.spent(held.slot_hour)], None, START + 5.0)
    assert lane.used(START + 5.0) == Limits(1, 1, 100, 100)
    lane.adopt(held)
    assert lane.ready_at(1, START + 30.0) == NEVER
    lane.settle(held, answer(40), START + 30.0, 0.0)
    assert lane.in_flight == 0
    assert lane.used(START + 30.0) == Limits(1, 1, 40, 40)
