"""A lane: what it has spent, what it may spend, and whether its provider is well. Pure: every method takes `now`.

A call goes through a lane in this order: `ready_at` says when, `reserve` takes a request and the estimated tokens from
all limits at once, `send` counts it from the moment at which it goes out, and `settle` puts the actual tokens in their
place and listens to what the provider said. A call that was not made after all is given back with `release`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.control import Mode
from streams.dispatch.breaker import Breaker, Caller, Circuit
from streams.dispatch.charging import Charging, Ended
from streams.dispatch.ports import MINUTE, Answer, Failure, Reading, Readings
from streams.dispatch.quota import MINUTES_OF_AN_HOUR, NEVER, Limits, Meter, Quota, Sent, SlidingWindow

#: Seconds of pause after a 429 that names no wait: doubled by each further one, up to the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
#: The longest wait that is taken at its word, in seconds: the quota of a day comes back within it. Beyond it the lane
#: asks again, and is told again.
LONGEST_WAIT = 86_400.0
#: Waits above the provider's floor are spread over this share of it, at least over the seconds beside it.
PAUSE_JITTER = 0.1
LEAST_JITTER = 0.25

#: A provider that tells no limits and refuses all the same: what is left of ours after each refusal, and what comes
#: back in a minute without one.
REFUSED_FACTOR = 0.8
RECOVERED_PER_MINUTE = 0.05

#: Seconds beyond the pace from which a wait costs the burst that is saved up meanwhile.
HOLD_UP = 3.0

#: Who asks little goes before the pace of those who ask much, by up to half a burst more than they may. They leave it
#: what it is likely to need at once: so much that of its calls this share finds less, as in a queue of random arrivals
#: and turns (M/M/1: more than k wait with the probability load to the power of k). At most it is this share of their
#: calls in the last minute, and of the limit.
LIGHT_BURSTS = 1.5
LIGHT_MISSED = 0.03
LIGHT_SHARE = 1 / 30
LIGHT_MOST = 0.04

#: Weight of the newest value in running means.
NEWEST = 0.1


@dataclass(slots=True, eq=False)
class Reservation:
    """What one call holds in its lane. `slot_minute` and `slot_hour` are where its windows keep it.

    `at` is the moment of the decision, `sent_at` the one from which it counts.
    """

    caller: Caller
    tokens: int
    at: float
    sent_at: float
    slot_minute: int
    slot_hour: int
    probe: bool
    sent_request: Sent
    sent_tokens: Sent
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What a lane spent in one slot of its hour: what a successor must know."""

    slot: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Condition:
    """What else a successor must know: the provider's limits, how long it wants to be left alone, the breaker."""

    rpm: int | None = None
    tpm: int | None = None
    paused_until: float = 0.0
    opened_at: float | None = None
    #: Of the last `resume` by an operator that the lane has followed.
    resumed_at: float = 0.0


@dataclass
class _Mean:
    """A running mean; None before the first value."""

    value: float | None = None

    def add(self, newest: float) -> None:
        self.value = newest if self.value is None else self.value + NEWEST * (newest - self.value)


@dataclass
class Lane:
    """`shards` is the number of lanes that share the provider's quota; `concurrency` the calls at one time. `minute` is
    the seconds of the minute that its limits and its circuit count in.
    """

    limits: Limits
    concurrency: int = 64
    shards: int = 1
    mode: Mode = Mode.OPEN
    minute: float = MINUTE
    #: This worker makes no new calls for now.
    is_held: bool = False
    in_flight: int = 0
    breaker: Breaker = field(init=False)
    _heard: Limits = field(default_factory=Limits)
    _paused_until: float = 0.0
    _resumed_at: float = 0.0
    _refusals: int = 0
    _refused_at: float = 0.0
    _recovers_from: float = 0.0
    _factor: float = 1.0
    _latency: _Mean = field(default_factory=_Mean)
    _need: _Mean = field(default_factory=_Mean)

    def __post_init__(self) -> None:
        self.breaker = Breaker(minute=self.minute)
        self._requests_meter, self._tokens_meter = Meter(), Meter()
        self._charging = Charging()
        #: The calls of light workspaces, and what tokens they usually reserve.
        self._light_calls = SlidingWindow(self.minute)
        self._light_need = _Mean()
        hour = MINUTES_OF_AN_HOUR * self.minute
        self._requests = Quota("requests", self.minute, self._requests_meter)
        self._requests_hour = Quota("requests", hour, is_per_minute=False)
        self._tokens = Quota("tokens", self.minute, self._tokens_meter)
        self._tokens_hour = Quota("tokens", hour, is_per_minute=False)
        #: In the order of the fields of Limits.
        self._quotas = (self._requests, self._requests_hour, self._tokens, self._tokens_hour)
        self._apply()

    # Limits --------------------------------------------------------------------------------------------------------

    def set_limits(self, limits: Limits) -> None:
        """The operator's new limits; what was spent stays spent."""
        self.limits = limits
        self._apply()

    @property
    def effective(self) -> Limits:
        """The limits in force: the lower of ours and the provider's."""
        return self._effective

    def _apply(self) -> None:
        limits = self._effective = self.limits.scaled(self._factor).lowered(self._heard.rpm, self._heard.tpm)
        self._requests.limit, self._requests_hour.limit = limits.rpm, limits.rph
        self._tokens.limit, self._tokens_hour.limit = limits.tpm, limits.tph

    # A call --------------------------------------------------------------------------------------------------------

    def ready_at(self, tokens: int, now: float, *, light: bool = False, failed: str | None = None) -> float:
        """The moment from which the next call, with so many tokens, may be made; NEVER where only an event can tell.

        `light`: its workspace asks little while others have long lines. It may use what those have to leave, and need
        not wait for their pace. A limit holds for all alike. `failed` is the request's key, if it has failed here.

        Ask it for the call that is next and waits: what holds that one up takes the saved-up bursts with it.
        """
        if self._closed():
            return NEVER
        self._recover(now)
        apart = max(self.breaker.ready_at(now, failed) or now, self._paused_until)
        moments = [apart]
        light_calls = 0 if light else self._light_calls.used(now)
        for quota in self._quotas:
            need = 1 if quota.unit == "requests" else tokens
            hard, soft = quota.hard(need, now), quota.soft(now, LIGHT_BURSTS if light else 1.0)
            # A moment's wait for a slot's end is no hold-up, nor is one for as much as a large call takes itself: what
            # it costs must be caught up, or each minute is a little slower than the one before.
            latest = max(soft, now) + HOLD_UP + need / quota.per_second()
            quota.held_up |= hard > latest or (apart > latest and quota.is_per_minute)
            moments += (hard, soft)
            if kept := self._kept(quota, need, light_calls):
                moments.append(quota.hard(need + kept, now))
        return max(moments)

    def _kept(self, quota: Quota, need: int, light_calls: int) -> int:
        """What a call that needs so much must leave in a quota for light ones, of which there were so many in the last
        minute. A very large one leaves nothing: it waits for an empty window as it is.
        """
        if not light_calls or not quota.is_per_minute or quota.limit is None or need > quota.limit / 2:
            return 0
        each = 1 if quota.unit == "requests" else round(self._light_need.value or 0.0)
        calls, load = light_calls * LIGHT_SHARE, light_calls * each / quota.limit
        if 0.0 < load < 1.0:
            calls = min(calls, math.log(LIGHT_MISSED) / math.log(load))
        return round(min(int(calls) * each, LIGHT_MOST * quota.limit))

    def ready_beside(self, first: int, ready: float, tokens: int, now: float) -> float:
        """The moment from which a call with `tokens` may be made without making one wait longer that needs `first` of
        them and may be made at `ready`. NEVER if there is none before that one.

        A long prompt waits until enough of the minute has come back; what comes back beyond that, and would be lost
        until then, is of use to short ones.
        """
        if self.in_flight + 2 > self.concurrency or self.breaker.state(now) is not Circuit.CLOSED:
            return NEVER
        light_calls = self._light_calls.used(now)
        moments = (
            quota.ready_beside(1, 1, ready, now, self._kept(quota, 1, light_calls))
            if quota.unit == "requests"
            else quota.ready_beside(tokens, first, ready, now, self._kept(quota, tokens, light_calls))
            for quota in self._quotas
        )
        moment = max(self._paused_until, *moments)
        return moment if moment < ready else NEVER

    def _closed(self) -> bool:
        if self.is_held or self.mode is not Mode.OPEN or self.in_flight >= self.concurrency:
            return True
        # A probe is on its way: its end will tell.
        return self.breaker.ready_at(0.0) is None

    def reserve(self, caller: Caller, tokens: int, now: float, *, light: bool = False) -> Reservation:
        """Take one request and the tokens from all limits. Ask `ready_at` before."""
        if light:
            self._light_calls.take(1, now)
            self._light_need.add(tokens)
        slot_minute = self._requests.take(1, now)
        slot_hour = self._requests_hour.take(1, now)
        self._tokens.take(tokens, now)
        self._tokens_hour.take(tokens, now)
        self.in_flight += 1
        self._need.add(tokens)
        return Reservation(
            caller=caller,
            tokens=tokens,
            at=now,
            sent_at=now,
            slot_minute=slot_minute,
            slot_hour=slot_hour,
            probe=self.breaker.begin(caller, now),
            sent_request=self._requests_meter.send(1),
            sent_tokens=self._tokens_meter.send(tokens),
        )

    def send(self, held: Reservation, now: float) -> bool:
        """The call goes out now. The provider counts it from now on, and so do the windows: a process may have stood
        still since the decision. False: there is no room for it any more, and it must not go.
        """
        if self._requests.window.slot_of(now) <= held.slot_minute:
            return True
        places = tuple(
            (
                quota,
                held.slot_minute if quota.is_per_minute else held.slot_hour,
                1 if quota.unit == "requests" else held.tokens,
            )
            for quota in self._quotas
        )
        if not all(quota.may_move(slot, amount, now) for quota, slot, amount in places):
            return False
        # In the order of the fields of Limits; a window's slots have the same numbers for requests and tokens.
        slots = [quota.move(slot, amount, now) for quota, slot, amount in places]
        held.slot_minute, held.slot_hour, held.sent_at = slots[0], slots[1], now
        return True

    def adopt(self, held: Reservation) -> None:
        """A call that was made before this lane was given up and taken over again is still on the wire. It counts for
        the calls at one time; what it takes from the limits is in what was restored, where its slot of the hour ends.
        """
        hour, minute = self._requests_hour.window, self._requests.window
        self.in_flight += 1
        held.slot_minute = minute.slot_of(hour.start_of(held.slot_hour + 1)) - 1
        # An earlier breaker's: the probe of this one is another call.
        held.probe = False
        held.sent_request, held.sent_tokens = self._requests_meter.send(1), self._tokens_meter.send(held.tokens)

    def release(self, held: Reservation, now: float) -> None:  # noqa: ARG002 - as every step of a call
        """The call was not made: all that it held is free again."""
        if held.ended:
            return
        held.ended = True
        self.in_flight -= 1
        self._requests_meter.take_back(held.sent_request)
        self._tokens_meter.take_back(held.sent_tokens)
        self._charging.hear(held.sent_tokens.number, Ended(held.at))
        self._requests.correct(held.slot_minute, -1)
        self._requests_hour.correct(held.slot_hour, -1)
        self._correct_tokens(held, -held.tokens)
        self.breaker.returned(probe=held.probe)

    def settle(self, held: Reservation, result: Answer | Failure, now: float, jitter: float) -> bool:
        """The call has ended. True if that opened the circuit. `jitter` is in [0, 1)."""
        if held.ended:
            return False
        held.ended = True
        self.in_flight -= 1
        readings = result.readings.counted_in(self.minute)
        self._listen(held, readings, now)
        if isinstance(result, Answer):
            used = result.tokens.total_tokens
            ended = Ended(held.at, held.tokens, used, readings.tokens)
            self._charging.hear(held.sent_tokens.number, ended)
            self._correct_tokens(held, self._charging.charge(held.tokens, used) - held.tokens)
            self._latency.add(max(now - held.sent_at, 0.0))
            self._refusals = 0
            self.breaker.succeeded(now, probe=held.probe)
            return False
        return self._after_failure(held, result, now, jitter)

    def _after_failure(self, held: Reservation, failure: Failure, now: float, jitter: float) -> bool:
        self._charging.hear(held.sent_tokens.number, Ended(held.at))
        if not failure.may_be_billed:
            # An error costs no tokens; the provider did count the request.
            self._correct_tokens(held, -held.tokens)
        if failure.is_rate_limit:
            self._refused(failure, held, now, jitter)
        elif failure.retry_after:
            self._pause(failure.retry_after, now, jitter)
        if failure.is_outage:
            return self.breaker.failed(held.caller, now, reached=failure.is_reached, probe=held.probe)
        self.breaker.returned(probe=held.probe)
        return False

    def _listen(self, held: Reservation, readings: Readings, now: float) -> None:
        requests = readings.requests.shard(self.shards) if readings.requests else None
        tokens = readings.tokens.shard(self.shards) if readings.tokens else None
        self._requests_meter.hear(held.sent_request, requests, now)
        self._tokens_meter.hear(held.sent_tokens, tokens, now)
        self._hear(requests, tokens)

    def _correct_tokens(self, held: Reservation, difference: int) -> None:
        self._tokens.correct(held.slot_minute, difference)
        self._tokens_hour.correct(held.slot_hour, difference)

    # The provider's word -------------------------------------------------------------------------------------------

    def _hear(self, requests: Reading | None, tokens: Reading | None) -> None:
        """A limit that was set too high is found here; one that is lower than the provider's is the operator's wish."""
        rpm = requests.limit if requests and requests.is_per_minute and requests.limit > 0 else self._heard.rpm
        tpm = tokens.limit if tokens and tokens.is_per_minute and tokens.limit > 0 else self._heard.tpm
        if (rpm, tpm) != (self._heard.rpm, self._heard.tpm):
            self._heard = Limits(rpm=rpm, tpm=tpm)
            self._apply()

    def _refused(self, failure: Failure, held: Reservation, now: float, jitter: float) -> None:
        """A 429: one pause for all. Those that were on their way when it came say nothing new."""
        news = held.sent_at >= self._refused_at
        if news:
            self._refused_at = self._recovers_from = now
            self._refusals += 1
            self._charging.refuted()
            if self._heard == Limits():
                self._factor = max(self._factor * REFUSED_FACTOR, 0.01)
                self._apply()
        wait = failure.retry_after
        if wait is None:
            wait = min(FIRST_PAUSE * 2.0 ** min(max(self._refusals - 1, 0), 10), LONGEST_PAUSE)
        self._pause(wait, now, jitter)

    def _pause(self, seconds: float, now: float, jitter: float) -> None:
        spread = max(seconds * PAUSE_JITTER, LEAST_JITTER)
        self._paused_until = max(self._paused_until, now + min(seconds + spread * jitter, LONGEST_WAIT))

    def resume(self, at: float) -> None:
        """An operator wants calls again, since this moment: what the provider said before counts no more. One that was
        followed already changes nothing.
        """
        if at <= self._resumed_at:
            return
        self._resumed_at = at
        self._paused_until = 0.0
        self._refusals = 0
        self._factor = 1.0
        self._heard = Limits()
        for meter in (self._requests_meter, self._tokens_meter):
            meter.forget()
        self._apply()

    def _recover(self, now: float) -> None:
        """What was cut off after refusals comes back, slowly."""
        minutes = (now - self._recovers_from) / self.minute
        if self._factor < 1.0 and minutes >= 1.0:
            self._factor = min(self._factor + RECOVERED_PER_MINUTE * minutes, 1.0)
            self._recovers_from = now
            self._apply()

    # What others ask -----------------------------------------------------------------------------------------------

    @property
    def latency(self) -> float:
        """What a call usually takes, in seconds; 0 while nobody knows."""
        return self._latency.value or 0.0

    @property
    def usual_tokens(self) -> int:
        """What a call usually reserves."""
        return round(self._need.value or 0.0)

    @property
    def kept(self) -> float:
        """The share of its unused tokens that a call is believed to be charged."""
        return self._charging.kept

    @property
    def paused_until(self) -> float:
        return self._paused_until

    def circuit(self, now: float) -> Circuit:
        return self.breaker.state(now)

    def wait_for(self, ahead: int, tokens: int, now: float) -> float:
        """About how many seconds a call waits behind so many others; NEVER while the operator keeps the lane closed."""
        if self.mode is not Mode.OPEN:
            return NEVER
        moments = [self.breaker.ready_at(now) or now, self._paused_until]
        for quota in self._quotas:
            moments += (quota.hard(1 if quota.unit == "requests" else tokens, now), quota.soft(now))
        first = max(max(moments) - now, 0.0)
        if self.in_flight >= self.concurrency:
            first = max(first, self.latency / self.concurrency)
        return first + ahead * self.seconds_per_call()

    def seconds_per_call(self) -> float:
        """The long-run distance between two calls."""
        need = max(self._need.value or 0.0, 1.0)
        return max(
            1.0 / min(self._requests.per_second(), self._requests_hour.per_second()),
            need / min(self._tokens.per_second(), self._tokens_hour.per_second()),
            self.latency / self.concurrency,
        )

    def used(self, now: float) -> Limits:
        """What the windows hold at the moment."""
        return Limits(*(quota.window.used(now) for quota in self._quotas))

    # Memory --------------------------------------------------------------------------------------------------------

    def spent(self, slot: int) -> Spent:
        """What was spent in one slot of the hour."""
        return Spent(slot, self._requests_hour.window.amount_in(slot), self._tokens_hour.window.amount_in(slot))

    def moment_of(self, slot: int) -> float:
        """When a slot of the hour begins."""
        return self._requests_hour.window.start_of(slot)

    def is_forgotten(self, slot: int, now: float) -> bool:
        """Whether a slot has left the hour."""
        return self._requests_hour.window.is_over(slot, now)

    @property
    def condition(self) -> Condition:
        return Condition(self._heard.rpm, self._heard.tpm, self._paused_until, self.breaker.opened_at, self._resumed_at)

    def restore(self, spent: Iterable[Spent], condition: Condition | None, now: float) -> None:
        """Go on where an earlier owner of the lane stopped. Where its memory is coarse, the amounts count longer."""
        for past in sorted(spent, key=lambda past: past.slot):
            if self.is_forgotten(past.slot, now):
                continue
            for hour, minute, amount in (
                (self._requests_hour.window, self._requests.window, past.requests),
                (self._tokens_hour.window, self._tokens.window, past.tokens),
            ):
                hour.restore(past.slot, amount)
                # Within a slot of the hour the moment is not known any more: the last one is the safe one.
                minute.restore(minute.slot_of(hour.start_of(past.slot + 1)) - 1, amount)
        if condition is not None:
            self._heard = Limits(rpm=condition.rpm, tpm=condition.tpm)
            self._paused_until = min(condition.paused_until, now + LONGEST_WAIT)
            self._resumed_at = condition.resumed_at
            self.breaker = Breaker(condition.opened_at, self.minute)
            self._apply()
        if self._requests_hour.window.used(now):
            # How much of the burst is spent is not known: none of it is left.
            for quota in self._quotas:
                quota.held_up = quota.is_per_minute
