"""What a lane may still spend: sliding windows, a pace, and the provider's own word. Pure: every method takes `now`.

All moments are seconds since 1970, all spans are seconds. Amounts are requests or tokens; both are whole numbers, so
nothing here rounds in the lane's favour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from streams.dispatch.ports import MINUTE, Reading

MINUTES_OF_AN_HOUR = 60
HOUR = MINUTES_OF_AN_HOUR * MINUTE

#: A provider counts a call when it arrives, which is later than we sent it, by a time that varies. An amount is held
#: this much longer than its window, so that two calls at the two ends of a window never meet inside it there. The
#: time varies by what a new connection's handshakes take beyond a kept one's: three round trips of 100 ms.
ARRIVAL_MARGIN = 0.3
#: Slots of a window: what was taken within one slot leaves the window together, when the whole slot has.
SLOTS = 1200

#: The share of a limit that an idle lane may spend at once; the rest comes at the limit's own pace. An hour's limit is
#: for long runs: half of it may go as fast as the minute's limit lets it.
MINUTE_BURST = 0.1
HOUR_BURST = 0.5
#: What may be spent at once however small the limit is, in requests.
BURST_REQUESTS = 5

#: How much slower or faster than the limit's own rate a minute may be spent, so that it lasts until what was spent in a
#: burst comes back, and none of it is left over; how often that is looked at, in seconds, and how far ahead, in shares
#: of the window.
SLOWEST, FASTEST = 0.5, 1.1
LOOK_AGAIN = 0.5
LOOK_FROM, LOOK_TO = 1 / 20, 1 / 2
#: A rate that is so close below the limit's own is that: what grains of large calls seem to ask for.
CLOSE = 0.9

#: A reading's remainder is a moment old, and its provider counts prompts in its own way: this share stays untouched.
READING_RESERVE = 0.01
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests and tokens per minute and per hour; None: unlimited."""

    rpm: int | None = None
    rph: int | None = None
    tpm: int | None = None
    tph: int | None = None

    def shard(self, number: int, count: int) -> Limits:
        """The part of one of `count` shards. The parts add up to the whole, exactly."""

        def part(limit: int | None) -> int | None:
            return None if limit is None else limit // count + (number < limit % count)

        return Limits(part(self.rpm), part(self.rph), part(self.tpm), part(self.tph))

    def too_small_for(self, shards: int) -> str | None:
        """What is wrong if one of the limits cannot be divided: a shard without any would call nobody, ever."""
        for name in ("rpm", "rph", "tpm", "tph"):
            limit = getattr(self, name)
            if limit is not None and limit < shards:
                return f"a limit of {limit} ({name}) cannot be divided among {shards} shards; use fewer, or raise it"
        return None

    def lowered(self, rpm: int | None, tpm: int | None) -> Limits:
        """The lower of these and what somebody else says."""
        return replace(self, rpm=_lower(self.rpm, rpm), tpm=_lower(self.tpm, tpm))

    def scaled(self, factor: float) -> Limits:
        """The limits per minute, cut down to a share of at least one."""

        def cut(limit: int | None) -> int | None:
            return None if limit is None else max(int(limit * factor), 1)

        return replace(self, rpm=cut(self.rpm), tpm=cut(self.tpm))


def _lower(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


class SlidingWindow:
    """What was taken within the last `span` seconds, wherever that interval begins.

    Two counters that start anew at fixed moments would let twice the limit through around such a moment. Here each
    amount leaves `span` seconds after it was taken: at most one slot and the arrival margin later, never earlier.
    """

    def __init__(self, span: float) -> None:
        self.span = span
        self._grain = span / SLOTS
        self._slots: dict[int, int] = {}  # in order of time
        self._total = 0
        self._latest = 0

    def take(self, amount: int, now: float) -> int:
        """Count an amount, and return its slot. A clock that was put back counts into the latest slot: nothing leaves
        too early.
        """
        slot = self._latest = max(self.slot_of(now), self._latest)
        self._slots[slot] = self._slots.get(slot, 0) + amount
        self._total += amount
        return slot

    def correct(self, slot: int, difference: int) -> None:
        """Change what was taken in a slot; nothing happens if it has left the window."""
        if slot in self._slots:
            # A recovered window may hold less than it has to give back: never below nothing.
            difference = max(difference, -self._slots[slot])
            self._slots[slot] += difference
            self._total += difference

    def restore(self, slot: int, amount: int) -> None:
        """Put back what an earlier owner of the lane took in a slot. In order of time, before anything is taken."""
        self._slots[slot] = self._slots.get(slot, 0) + amount
        self._total += amount
        self._latest = max(self._latest, slot)

    def slot_of(self, moment: float) -> int:
        return int(moment / self._grain)

    def start_of(self, slot: int) -> float:
        return slot * self._grain

    def amount_in(self, slot: int) -> int:
        return self._slots.get(slot, 0)

    def used(self, now: float) -> int:
        for slot in list(self._leaving(now)):
            self._total -= self._slots.pop(slot)
        return self._total

    def ready_at(self, need: int, limit: int | None, now: float) -> float:
        """The first moment from which `need` more fits below the limit, if nothing else is taken or given back.

        More than the limit itself fits into the empty window: such a request waits longest, and not for ever.
        """
        if limit is None:
            return now
        if limit <= 0:
            return NEVER
        over = self.used(now) + min(need, limit) - limit
        if over <= 0:
            return now
        for slot, amount in self._slots.items():
            over -= amount
            if over <= 0:
                return self._end(slot)
        return NEVER

    def steady_rate(self, limit: int, now: float) -> float:
        """The highest rate, per second, that can be kept for some while without running out on the way."""
        left = limit - self.used(now)
        rate, first, last = NEVER, LOOK_FROM * self.span, LOOK_TO * self.span
        for slot, amount in self._slots.items():
            within = self._end(slot) - now
            if within >= first:
                rate = min(rate, left / within)
            if within > last:
                return rate
            left += amount
        return min(rate, left / last)

    def is_over(self, slot: int, now: float) -> bool:
        return self._end(slot) <= now

    def _leaving(self, now: float) -> Iterator[int]:
        for slot in self._slots:
            if self._end(slot) > now:
                return
            yield slot

    def _end(self, slot: int) -> float:
        return (slot + 1) * self._grain + self.span + ARRIVAL_MARGIN


class Pace:
    """Spreads what a window allows: a burst when idle, then the limit's own rate (the generic cell rate algorithm).

    Without it a busy lane spends its minute in a second and leaves everyone who comes then waiting for 59. In the
    long run the rate is the window's, margin included, so that a paced lane never meets the window's end. For a while
    it may be another (`haste`): after a burst a slower one, so that the minute lasts until the burst comes back.

    No debt is longer than the window: what was too large for the limit itself, or was taken below a higher limit,
    holds nobody up after the window has forgotten it.
    """

    def __init__(self, span: float, burst_share: float, least_burst: int = 0) -> None:
        self._span = span + ARRIVAL_MARGIN
        self._burst_share = burst_share
        self._least_burst = least_burst
        self._due = 0.0
        self._set(1)

    def ready_at(self, limit: int | None, now: float, bursts: float = 1.0) -> float:
        """The moment from which the next amount may be taken, `bursts` ahead of the limit's own rate at most."""
        if limit is None:
            return now
        self._follow(limit, now)
        return max(now, self._due - bursts * self._tolerance)

    def ready_after(self, amount: int, limit: int | None, moment: float, *, forfeits: bool) -> float:
        """As `ready_at`, at the latest, had an amount been taken at a moment."""
        if limit is None:
            return moment
        self._follow(limit, moment)
        due = max(self._due, moment + self._tolerance if forfeits else moment)
        return due + amount * self._distance / SLOWEST - self._tolerance

    def take(self, amount: int, limit: int | None, now: float, haste: float = 1.0) -> None:
        if limit is not None:
            self._follow(limit, now)
            self._due = max(self._due, now) + amount * self._distance / haste

    def correct(self, difference: int, limit: int | None) -> None:
        if limit is not None:
            self._due += difference * self._distance

    def forfeit(self, limit: int | None, now: float) -> None:
        """What was saved up while something else held the lane up is gone: the next burst would end the same way."""
        if limit is not None:
            self._follow(limit, now)
            self._due = max(self._due, now + self._tolerance)

    def _follow(self, limit: int, now: float) -> None:
        """A limit that has changed: what is owed stays owed, and flows off at the new rate."""
        if limit != self._limit:
            owed = max(self._due - now, 0.0) / self._distance
            self._set(limit)
            self._due = now + owed * self._distance
        self._due = min(self._due, now + self._tolerance + self._span)

    def _set(self, limit: int) -> None:
        """What follows from a limit alone. `_distance` is in seconds for each one of an amount."""
        self._limit = limit
        self._distance = self._span / max(limit, 1)
        burst = max(limit * self._burst_share, min(self._least_burst, limit))
        # The first of a burst needs no tolerance.
        self._tolerance = max(burst - 1.0, 0.0) * self._distance


@dataclass(frozen=True, slots=True)
class Sent:
    """A call as the meter remembers it: its amount, and all that had been answered when it was sent."""

    amount: int
    answered_before: int
    number: int


class Meter:
    """One limit as its provider keeps it: the remainder of the newest answer, less what it may not have seen.

    An answer's remainder is from some moment between sending and receiving. Calls that were answered before it was
    sent are in it; all others may not be, and are taken off: those on their way whenever one asks, and the others once,
    at their end, because what they took comes back like all the rest. So the estimate errs on the low side only, and
    each answer sets it right. It is never below nothing: a provider that has nothing left refuses.
    """

    def __init__(self) -> None:
        self._sent = 0
        self._answered = 0
        self._count = 0
        self._newest = 0
        self._reading: Reading | None = None
        #: What the provider had left at least at a moment, had no call been on its way.
        self._level = 0.0
        self._at = 0.0

    @property
    def reading(self) -> Reading | None:
        return self._reading

    def send(self, amount: int) -> Sent:
        self._count += 1
        self._sent += amount
        return Sent(amount, self._answered, self._count)

    def hear(self, sent: Sent, reading: Reading | None, now: float) -> None:
        """The call has ended, with or without the provider's word."""
        self._answered += sent.amount
        if reading is not None and reading.limit > 0 and sent.number >= self._newest:
            self._newest = sent.number
            self._reading = reading
            level: float = reading.remaining - (self._answered - sent.answered_before - sent.amount)
        else:
            level = self._refilled(now) - sent.amount
        self._level, self._at = max(level, 0.0), now

    def forget(self) -> None:
        """What the provider has said counts no more, nor what it says to calls that are on their way."""
        self._reading = None
        self._newest = self._count + 1

    def take_back(self, sent: Sent) -> None:
        """The call was not made."""
        self._sent -= sent.amount

    def ready_at(self, need: int, now: float) -> float:
        """The moment from which the provider has `need` left, as far as is known.

        Where that is only when others have been answered, it is the moment to ask again: not at every instant.
        """
        if self._reading is None:
            return now
        limit = self._reading.limit
        need = min(need + math.ceil(limit * READING_RESERVE), limit)
        on_their_way = self._sent - self._answered
        missing = need + on_their_way - self._refilled(now)
        if missing <= 0:
            return now
        if need + on_their_way > limit:
            missing = max(missing, need)
        return now + missing / _rate(self._reading)

    def _refilled(self, now: float) -> float:
        if self._reading is None:
            return 0.0
        came_back = _rate(self._reading) * max(now - self._at, 0.0)
        return min(self._level + came_back, self._reading.limit)


def _rate(reading: Reading) -> float:
    """What comes back, per second. A limit of which nothing is missing tells no rate: all of it within its reset."""
    return reading.rate if reading.rate > 0 else reading.limit / max(reading.reset or 0.0, reading.minute)


class Quota:
    """One limit of a lane: its window, its pace and, where the provider tells of it, the meter.

    `hard` is what must not be passed, `soft` is the pace. `span` is the seconds that it is for: a minute, or an hour.
    """

    def __init__(
        self,
        unit: Literal["requests", "tokens"],
        span: float,
        meter: Meter | None = None,
        *,
        is_per_minute: bool = True,
    ) -> None:
        self.unit = unit
        self.is_per_minute = is_per_minute
        self.window = SlidingWindow(span)
        least = BURST_REQUESTS if unit == "requests" else 0
        self._pace = Pace(span, MINUTE_BURST if is_per_minute else HOUR_BURST, least)
        self._meter = meter
        self.limit: int | None = None
        #: Something other than the pace made a call wait: the burst that was saved up meanwhile must not be made.
        self.held_up = False
        self._haste = 1.0
        self._look_at = 0.0

    def hard(self, need: int, now: float) -> float:
        ready = self.window.ready_at(need, self.limit, now)
        return ready if self._meter is None else max(ready, self._meter.ready_at(need, now))

    def soft(self, now: float, bursts: float = 1.0) -> float:
        return self._pace.ready_at(self.limit, now, bursts)

    def ready_beside(self, need: int, first: int, ready: float, now: float, kept: int = 0) -> float:
        """The moment from which `need` may be taken and `kept` stays, if `first` may be at `ready` all the same; NEVER
        if not.
        """
        told = self._meter.reading if self._meter is not None else None
        moment = max(self.hard(need + kept, now), self.soft(now))
        fits = (
            (self.limit is None or need + first <= self.limit)
            and (told is None or need + first <= told.limit)
            and self.hard(need + first, now) <= ready
            and self._pace.ready_after(need, self.limit, moment, forfeits=self.held_up) <= ready
        )
        return moment if fits else NEVER

    def take(self, amount: int, now: float) -> int:
        if self.held_up:
            self._pace.forfeit(self.limit, now)
            self.held_up = False
        self._pace.take(amount, self.limit, now, self._hurry(now))
        return self.window.take(amount, now)

    def may_move(self, slot: int, amount: int, now: float) -> bool:
        """Whether an amount may count from now on instead. That one is no more in the window than before; one that has
        left it needs room like any other.
        """
        return not self.window.is_over(slot, now) or self.window.ready_at(amount, self.limit, now) <= now

    def move(self, slot: int, amount: int, now: float) -> int:
        """An amount that was taken counts from now on: returns its new slot. The pace stays as it is."""
        self.window.correct(slot, -amount)
        return self.window.take(amount, now)

    def _hurry(self, now: float) -> float:
        """The rate at which the minute lasts, in relation to the limit's own. An hour is not spent evenly."""
        if self.limit and self.is_per_minute and not self._look_at - LOOK_AGAIN <= now < self._look_at:
            steady = self.window.steady_rate(self.limit, now) / self.per_second()
            steady = 1.0 if CLOSE <= steady <= 1.0 else steady
            self._haste, self._look_at = min(max(steady, SLOWEST), FASTEST), now + LOOK_AGAIN
        return self._haste

    def correct(self, slot: int, difference: int) -> None:
        """An amount that was taken turned out to be another."""
        self.window.correct(slot, difference)
        self._pace.correct(difference, self.limit)

    def per_second(self) -> float:
        """The rate that the limit allows in the long run."""
        return NEVER if self.limit is None else max(self.limit, 1) / (self.window.span + ARRIVAL_MARGIN)
