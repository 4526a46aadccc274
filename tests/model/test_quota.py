"""Windows, paces and meters against plain models: no interval holds too much, and nobody waits for nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.usage import Tokens
from streams.dispatch.lane import Lane, Reservation
from streams.dispatch.ports import MINUTE, Answer, Reading
from streams.dispatch.quota import (
    ARRIVAL_MARGIN,
    BURST_REQUESTS,
    HOUR,
    MINUTE_BURST,
    SLOTS,
    Limits,
    Meter,
    Pace,
    Quota,
    Sent,
    SlidingWindow,
)
from tests.support.values.callers import another
from tests.support.values.examples import EXAMPLES

START = 1_760_000_000.0
GRAIN = MINUTE / SLOTS
#: What a moment of today may be off in floating point, with two additions.
ROUNDING = 1e-6

# The sliding window ----------------------------------------------------------------------------------------------


@dataclass
class Taken:
    moment: float
    arrived: float
    amount: int
    least: int
    slot: int


@dataclass
class Spender:
    """Takes from a window when it is told that it may, and keeps a plain list of it."""

    limit: int
    now: float
    window: SlidingWindow = field(default_factory=lambda: SlidingWindow(MINUTE))
    taken: list[Taken] = field(default_factory=list)

    def take(self, need: int, delay: float) -> None:
        within = [one.amount for one in self.taken if self.now - one.moment < MINUTE]
        assert sum(within) + need <= self.limit or not any(within)
        slot = self.window.take(need, self.now)
        self.taken.append(Taken(self.now, self.now + delay, need, need, slot))

    def try_to_take(self, need: int, delay: float) -> None:
        if self.window.ready_at(need, self.limit, self.now) <= self.now:
            self.take(need, delay)

    def wait_and_take(self, need: int, delay: float) -> None:
        ready = self.window.ready_at(need, self.limit, self.now)
        if ready > self.now:
            self.now = max(math.nextafter(ready, 0.0), self.now)
            assert self.window.ready_at(need, self.limit, self.now) == ready, "not a moment earlier"
            self.now = ready
            assert self.window.ready_at(need, self.limit, ready) == ready, "and not a moment later"
        self.take(need, delay)

    def correct(self, number: int, amount: int) -> None:
        if not self.taken:
            return
        one = self.taken[number % len(self.taken)]
        before, is_over = self.window.used(self.now), self.window.is_over(one.slot, self.now)
        self.window.correct(one.slot, amount - one.amount)
        assert self.window.used(self.now) == before + (0 if is_over else amount - one.amount)
        one.amount, one.least = amount, min(one.least, amount)
        if room := max(self.limit - self.window.used(self.now), 0):
            assert self.window.ready_at(room, self.limit, self.now) == self.now, "what came back can be used at once"

    def hand_over(self) -> None:
        """A successor that is told what every slot holds."""
        heir = SlidingWindow(MINUTE)
        for slot in sorted({one.slot for one in self.taken}):
            if not self.window.is_over(slot, self.now):
                heir.restore(slot, self.window.amount_in(slot))
        assert heir.used(self.now) == self.window.used(self.now)
        self.window = heir

    def check_window(self) -> None:
        """It holds what is younger than its span and the margin, and nothing that is a slot older than that."""
        ages = [(self.now - one.moment - MINUTE - ARRIVAL_MARGIN, one.amount) for one in self.taken]
        young = sum(amount for age, amount in ages if age < -ROUNDING)
        old = sum(amount for age, amount in ages if age <= GRAIN + ROUNDING)
        assert young <= self.window.used(self.now) <= old

    def check_every_interval(self) -> None:
        """No interval holds too much, neither by our clock nor by the provider's, whose calls arrive later."""
        for moments in ([one.moment for one in self.taken], [one.arrived for one in self.taken]):
            events = sorted(zip(moments, (one.least for one in self.taken), strict=True))
            for number, (first, _) in enumerate(events):
                inside = [amount for moment, amount in events[number:] if moment < first + MINUTE - ROUNDING]
                assert sum(inside) <= self.limit or sum(amount > 0 for amount in inside) == 1


_amounts = st.integers(0, 12)
_delays = st.sampled_from((0.0, 0.001, 0.25, ARRIVAL_MARGIN))
_pauses = st.sampled_from((0.001, 0.04, GRAIN, 0.3, 1.0, 7.5, 29.0, 59.5, MINUTE, MINUTE + ARRIVAL_MARGIN, 61.0, 150.0))
_window_steps = st.lists(
    st.one_of(
        st.tuples(st.just("try"), _amounts, _delays),
        st.tuples(st.just("wait"), _amounts, _delays),
        st.tuples(st.just("correct"), _amounts, st.integers(0, 30)),
        st.tuples(st.just("pass"), st.just(0), _pauses),
        st.tuples(st.just("edge"), st.integers(0, 30), st.sampled_from((-ROUNDING, 0.0, ROUNDING))),
        st.tuples(st.just("hand over"), st.just(0), st.just(0.0)),
    ),
    min_size=1,
    max_size=50,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(limit=st.integers(1, 10), offset=st.floats(0.0, 100.0), steps=_window_steps)
@example(limit=1, offset=0.0, steps=[("try", 1, ARRIVAL_MARGIN), ("wait", 1, 0.0), ("wait", 1, 0.0)])
@example(limit=3, offset=0.049, steps=[("try", 3, ARRIVAL_MARGIN), ("edge", 0, 0.0), ("try", 3, 0.0)])
def test_no_interval_of_a_window_holds_more_than_the_limit(
    limit: int, offset: float, steps: list[tuple[str, int, float]]
) -> None:
    spender = Spender(limit, START + offset)
    for kind, number, value in steps:
        match kind:
            case "try":
                spender.try_to_take(number, value)
            case "wait":
                spender.wait_and_take(number, value)
            case "correct":
                spender.correct(int(value), number)
            case "pass":
                spender.now += value
            case "edge" if spender.taken:
                one = spender.taken[number % len(spender.taken)]
                spender.now = max(spender.now, one.moment + MINUTE + value)
            case "hand over":
                spender.hand_over()
        spender.check_window()
    spender.check_every_interval()


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    limit=st.integers(1, 20),
    past=st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 30)), max_size=20),
    needs=st.lists(st.integers(0, 20), max_size=20),
)
def test_restored_slots_count_like_taken_ones(limit: int, past: list[tuple[int, int]], needs: list[int]) -> None:
    spender = Spender(limit, START)
    for back, amount in sorted(past, reverse=True):
        slot = spender.window.slot_of(START) - back
        spender.window.restore(slot, amount)
        moment = spender.window.start_of(slot)
        spender.taken.append(Taken(moment, moment, amount, amount, slot))
    for need in needs:
        spender.wait_and_take(need, 0.0)
        spender.check_window()


# From the decision to the first byte ---------------------------------------------------------------------------------


@dataclass
class Sending:
    """A lane whose process may stand still between a decision and the first byte, and a provider that counts what it
    gets. `limit` is in requests a minute.
    """

    limit: int
    now: float = START
    decided: list[Reservation] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lane = Lane(Limits(rpm=self.limit))

    def decide(self, most: int) -> None:
        for _ in range(most):
            if self.lane.ready_at(1, self.now) > self.now:
                break
            self.decided.append(self.lane.reserve(another(), 1, self.now))

    def send(self, number: int) -> None:
        if self.decided:
            held = self.decided.pop(number % len(self.decided))
            if self.lane.send(held, self.now):
                self.sent_at.append(self.now)
                self.lane.settle(held, Answer("", "m", "stop", Tokens()), self.now, 0.0)
            else:
                self.lane.release(held, self.now)

    def check_every_minute(self) -> None:
        moments = sorted(self.sent_at)
        for number, first in enumerate(moments):
            within = [moment for moment in moments[number:] if moment < first + MINUTE - ROUNDING]
            assert len(within) <= self.limit, "by the provider's count"


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    limit=st.integers(1, 12),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("decide"), st.integers(1, 12)),
            st.tuples(st.just("send"), st.integers(0, 12)),
            st.tuples(st.just("pass"), st.sampled_from((1, 40, 500, 7_000, 30_000, 59_900, 60_300, 61_000, 130_000))),
        ),
        min_size=1,
        max_size=80,
    ),
)
@example(limit=1, steps=[("decide", 1), ("pass", 7_000), ("send", 0), ("pass", 59_900), ("decide", 1), ("send", 0)])
def test_however_long_a_call_waits_for_its_first_byte_no_minute_of_the_provider_holds_too_much(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    sending = Sending(limit)
    for kind, number in steps:
        match kind:
            case "decide":
                sending.decide(number)
            case "send":
                sending.send(number)
            case "pass":
                sending.now += number / 1000.0
    sending.check_every_minute()


def test_a_clock_that_is_put_back_lets_nothing_leave_too_early() -> None:
    window = SlidingWindow(MINUTE)
    window.take(1, START + 30.0)
    window.take(1, START)
    assert window.used(START + 30.0 + MINUTE) == 2
    assert window.ready_at(1, 2, START) >= START + 30.0 + MINUTE


def test_what_is_taken_after_a_restored_slot_never_counts_before_it() -> None:
    """What an earlier owner took is known only coarsely, and may lie ahead of the clock."""
    window = SlidingWindow(MINUTE)
    ahead = window.slot_of(START) + 50
    window.restore(ahead, 1)
    assert window.take(1, START) == ahead
    assert window.used(START + MINUTE + ARRIVAL_MARGIN) == 2


def test_a_correction_that_comes_after_its_slot_has_left_changes_nothing() -> None:
    window = SlidingWindow(MINUTE)
    slot = window.take(7, START)
    assert window.used(START + 2 * MINUTE) == 0
    window.correct(slot, 5)
    window.correct(slot, -5)
    assert window.used(START + 2 * MINUTE) == 0


def test_a_slot_never_holds_less_than_nothing() -> None:
    window = SlidingWindow(MINUTE)
    slot = window.take(3, START)
    window.correct(slot, -10)
    assert window.used(START) == window.amount_in(slot) == 0


def test_no_limit_means_no_wait() -> None:
    window, pace = SlidingWindow(MINUTE), Pace(MINUTE, MINUTE_BURST)
    window.take(1_000_000, START)
    pace.take(1_000_000, None, START)
    pace.correct(1_000_000, None)
    pace.forfeit(None, START)
    assert window.ready_at(1_000_000, None, START) == pace.ready_at(None, START) == START


# The pace --------------------------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    limit=st.integers(20, 100_000),
    shares=st.lists(st.tuples(st.floats(0.05, 1.0), st.floats(0.1, 2.0)), min_size=1, max_size=8),
    least_burst=st.sampled_from((0, BURST_REQUESTS)),
    span=st.sampled_from((MINUTE, HOUR)),
)
def test_a_greedy_taker_gets_the_whole_limit_and_not_more(
    limit: int, shares: list[tuple[float, float]], least_burst: int, span: float
) -> None:
    """Its amounts are up to the whole limit, and turn out to be smaller or larger than they were estimated."""
    pace = Pace(span, MINUTE_BURST, least_burst)
    taken: list[tuple[float, int]] = []
    now, turn = START, 0
    while now < START + 6 * span:
        now = pace.ready_at(limit, now)
        assert pace.ready_at(limit, now) == now, "at the moment that it names it may be taken"
        share, actual = shares[turn % len(shares)]
        estimate, turn = max(int(limit * share / 2), 1), turn + 1
        amount = max(int(estimate * actual), 1)
        pace.take(estimate, limit, now)
        pace.correct(amount - estimate, limit)
        taken.append((now, amount))
    largest = max(amount for _, amount in taken)
    after_the_first = sum(amount for moment, amount in taken if START + span <= moment < START + 6 * span)
    assert after_the_first - largest <= 5 * limit
    assert after_the_first + largest >= 5 * limit * 0.98


@given(limit=st.integers(1, 10_000), idle=st.floats(0.0, 10 * HOUR))
def test_forfeiting_leaves_only_the_limits_own_rate(limit: int, idle: float) -> None:
    pace = Pace(MINUTE, MINUTE_BURST, BURST_REQUESTS)
    pace.take(1, limit, START)
    now = START + idle
    pace.forfeit(limit, now)
    ready = pace.ready_at(limit, now)
    pace.take(1, limit, ready)
    distance = (MINUTE + ARRIVAL_MARGIN) / limit
    assert abs(pace.ready_at(limit, ready) - ready - distance) < ROUNDING


def test_an_idle_pace_lets_a_burst_through_and_then_its_rate() -> None:
    pace, limit = Pace(MINUTE, MINUTE_BURST, BURST_REQUESTS), 600
    at_once = 0
    while pace.ready_at(limit, START) <= START:
        pace.take(1, limit, START)
        at_once += 1
    assert limit * MINUTE_BURST - 1 <= at_once <= limit * MINUTE_BURST + 1
    assert pace.ready_at(limit, START) - START <= 1.01 * MINUTE / limit


@given(
    before=st.integers(1, 1000),
    after=st.integers(1, 1_000_000),
    amounts=st.lists(st.tuples(st.integers(0, 10_000_000), st.integers(0, 10_000_000)), min_size=1, max_size=5),
)
@example(before=10, after=100_000, amounts=[(10_000, 10_000)])
def test_no_debt_is_longer_than_the_window(before: int, after: int, amounts: list[tuple[int, int]]) -> None:
    """Neither what was too large, nor what was taken below another limit, stops a lane for ever."""
    pace = Pace(MINUTE, MINUTE_BURST)
    for estimate, actual in amounts:
        pace.take(estimate, before, START)
        pace.correct(actual - estimate, before)
        assert pace.ready_at(before, START) <= START + MINUTE + ARRIVAL_MARGIN + ROUNDING
    assert pace.ready_at(after, START) <= START + MINUTE + ARRIVAL_MARGIN + ROUNDING


def test_a_raised_limit_makes_what_is_owed_flow_off_faster() -> None:
    pace = Pace(HOUR, 0.0)
    pace.take(10, 10, START)
    assert pace.ready_at(10, START) > START + 0.99 * HOUR
    assert pace.ready_at(1000, START) <= START + 0.0101 * HOUR


def test_a_lowered_limit_makes_what_is_owed_flow_off_slower() -> None:
    pace = Pace(MINUTE, 0.0)
    pace.take(10, 1000, START)
    assert abs(pace.ready_at(100, START) - START - (MINUTE + ARRIVAL_MARGIN) / 10) < ROUNDING


def test_what_held_a_quota_up_takes_its_burst() -> None:
    quota = Quota("requests", MINUTE)
    quota.limit = 600
    quota.held_up = True
    quota.take(1, START)
    assert quota.soft(START) > START
    assert not quota.held_up, "once"


# The meter -------------------------------------------------------------------------------------------------------


@dataclass
class Flight:
    """A call on its way. `reading` is what the provider says once it has counted it."""

    sent: Sent
    reading: Reading | None = None
    counted: bool = False


@dataclass
class Bucket:
    """A provider's limit, full at the start."""

    limit: int
    at: float
    level: float = 0.0

    def __post_init__(self) -> None:
        self.level = float(self.limit)

    def count(self, flight: Flight, now: float) -> None:
        self.level = min(self.level + (now - self.at) * self.limit / MINUTE, self.limit)
        self.at = now
        assert self.level + self.limit * ROUNDING >= flight.sent.amount, "the provider refuses"
        self.level -= flight.sent.amount
        flight.counted, flight.reading = True, Reading(self.limit, max(math.floor(self.level), 0))


@dataclass
class Caller:
    """Calls when its meter says that it may."""

    limit: int
    now: float
    meter: Meter = field(default_factory=Meter)
    flights: list[Flight] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket = Bucket(self.limit, self.now)
        self.call(1)
        self.answer(0, has_reading=True)

    def call(self, need: int) -> None:
        if self.meter.ready_at(need, self.now) <= self.now:
            self.flights.append(Flight(self.meter.send(need)))

    def count(self, number: int) -> None:
        if waiting := [flight for flight in self.flights if not flight.counted]:
            self.bucket.count(waiting[number % len(waiting)], self.now)

    def answer(self, number: int, *, has_reading: bool) -> None:
        if not self.flights:
            return
        flight = self.flights.pop(number % len(self.flights))
        if not flight.counted:
            self.bucket.count(flight, self.now)
        self.meter.hear(flight.sent, flight.reading if has_reading else None, self.now)

    def take_back(self) -> None:
        """A call that was never made."""
        if self.flights and not self.flights[-1].counted:
            self.meter.take_back(self.flights.pop().sent)

    def go_on(self, need: int) -> None:
        """With all calls answered the next one is only a refill away."""
        while self.flights:
            self.answer(0, has_reading=False)
        asked, moments = self.now, 0
        while (ready := self.meter.ready_at(need, self.now)) > self.now:
            self.now, moments = ready, moments + 1
            assert moments < 4, "the moment that it names is the moment"
        assert self.now <= asked + 2 * MINUTE + ROUNDING
        self.call(need)
        self.count(0)


_meter_steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 100), st.just(False)),
        st.tuples(st.just("count"), st.integers(0, 20), st.just(False)),
        st.tuples(st.just("answer"), st.integers(0, 20), st.booleans()),
        st.tuples(st.just("pass"), st.sampled_from((1, 50, 700, 3000, 20_000, 90_000)), st.just(False)),
        st.tuples(st.just("take back"), st.just(0), st.just(False)),
        st.tuples(st.just("go on"), st.integers(1, 100), st.just(False)),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(limit=st.sampled_from((2, 3, 10, 50, 1000)), steps=_meter_steps)
def test_who_waits_for_the_meter_is_never_refused_and_never_stuck(
    limit: int, steps: list[tuple[str, int, bool]]
) -> None:
    caller = Caller(limit, START)
    for kind, number, flag in steps:
        match kind:
            case "call":
                caller.call(1 + number % limit)
            case "count":
                caller.count(number)
            case "answer":
                caller.answer(number, has_reading=flag)
            case "pass":
                caller.now += number / 1000.0
            case "take back":
                caller.take_back()
            case "go on":
                caller.go_on(1 + number % limit)
    caller.go_on(limit)


def test_calls_that_nobody_reported_come_back_with_time() -> None:
    """Ten at once spend all of the limit, and each answer has seen its own only."""
    meter = Meter()
    sent = [meter.send(1) for _ in range(10)]
    for one in sent:
        meter.hear(one, Reading(10, 0), START)
    assert meter.ready_at(1, START) > START
    assert meter.ready_at(1, START + 2 * MINUTE) == START + 2 * MINUTE


def test_a_call_that_was_counted_after_a_reading_and_answered_before_it_is_taken_off() -> None:
    meter = Meter()
    slow, fast, later = meter.send(5), meter.send(40), meter.send(20)
    meter.hear(fast, None, START)
    meter.hear(slow, Reading(100, 95), START)
    meter.take_back(later)
    assert meter.ready_at(54, START) == START, "of which one stays in reserve"
    assert meter.ready_at(55, START) > START


def test_a_provider_never_has_less_than_nothing_left() -> None:
    """A call larger than the whole limit was refused, or is told of in the next answer: nobody waits for its return."""
    meter = Meter()
    meter.hear(meter.send(1), Reading(100, 0), START)
    meter.hear(meter.send(1_000_000), None, START)
    assert meter.ready_at(100, START) <= START + MINUTE + ROUNDING


def test_where_only_an_answer_can_help_it_does_not_ask_at_every_instant() -> None:
    meter = Meter()
    meter.hear(meter.send(1), Reading(100_000, 100_000), START)
    meter.send(99_000)
    assert meter.ready_at(1, START) >= START + 0.5


def test_an_answer_that_was_overtaken_does_not_change_what_is_known() -> None:
    meter = Meter()
    older, newer = meter.send(1), meter.send(1)
    meter.hear(newer, Reading(100, 50), START)
    meter.hear(older, Reading(100, 90), START)
    assert meter.reading == Reading(100, 50)


def test_a_limit_of_which_nothing_is_missing_still_comes_back() -> None:
    """A reading of a long limit tells its rate by what is missing; here nothing was."""
    meter = Meter()
    meter.hear(meter.send(1), Reading(10, 10, reset=1000.0), START)
    for _ in range(10):
        meter.hear(meter.send(1), None, START)
    assert meter.ready_at(10, START) <= START + 1000.0 + ROUNDING


def test_without_a_reading_the_meter_holds_nobody_up() -> None:
    meter = Meter()
    meter.hear(meter.send(1_000_000), None, START)
    meter.hear(meter.send(1_000_000), Reading(0, 0), START)
    assert meter.ready_at(1_000_000, START) == START
    assert meter.reading is None


# Limits ----------------------------------------------------------------------------------------------------------

_limits = st.none() | st.integers(1, 1_000_000)


@given(limits=st.builds(Limits, _limits, _limits, _limits, _limits), count=st.integers(1, 12))
def test_the_shards_of_limits_add_up_to_the_whole(limits: Limits, count: int) -> None:
    shards = [limits.shard(number, count) for number in range(count)]
    for name in ("rpm", "rph", "tpm", "tph"):
        parts = [getattr(shard, name) for shard in shards]
        whole = getattr(limits, name)
        assert (parts == [None] * count) if whole is None else (sum(parts) == whole and max(parts) - min(parts) <= 1)


@given(limits=st.builds(Limits, _limits, _limits, _limits, _limits), factor=st.floats(0.01, 1.0))
def test_scaled_limits_leave_at_least_one_and_the_hour_alone(limits: Limits, factor: float) -> None:
    scaled = limits.scaled(factor)
    for before, after in ((limits.rpm, scaled.rpm), (limits.tpm, scaled.tpm)):
        assert after is None if before is None else after is not None and 1 <= after <= before
    assert (scaled.rph, scaled.tph) == (limits.rph, limits.tph)


def test_the_lower_of_two_limits_is_in_force() -> None:
    limits = Limits(rpm=10, rph=None, tpm=None, tph=7)
    assert limits.lowered(None, None) == limits
    assert limits.lowered(5, 100) == Limits(rpm=5, tpm=100, tph=7)
    assert limits.lowered(50, None) == limits
