"""What a lane may still spend: sliding windows, a pace, and the provider's own word. Pure: every method takes `now`.

All moments are seconds since 1970, all spans are seconds. Amounts are requests or tokens; both are whole numbers, so
nothing here rounds in the lane's favour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from streams.dispatch.ports import Reading

MINUTE = 60.0
HOUR = 3600.0

#: A provider counts a call when it arrives, which is later than we sent it, by a time that varies. An amount is held
#: this much longer than its window, so that two calls at the two ends of a window never meet inside it there.
ARRIVAL_MARGIN = 0.5
#: Slots of a window: what was taken within one slot leaves the window together, when the whole slot has.
SLOTS = 1200

#: The share of a limit that an idle lane may spend at once; the rest comes at the limit's own pace. An hour's limit is
#: for long runs: half of it may go as fast as the minute's limit lets it.
MINUTE_BURST = 0.1
HOUR_BURST = 0.5
#: What may be spent at once however small the limit is, in requests.
BURST_REQUESTS = 5

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
    long run the rate is the window's, margin included, so that a paced lane never meets the window's end.
    """

    def __init__(self, span: float, burst_share: float, least_burst: int = 0) -> None:
        self._span = span + ARRIVAL_MARGIN
        self._burst_share = burst_share
        self._least_burst = least_burst
        self._due = 0.0

    def ready_at(self, limit: int | None, now: float) -> float:
        if limit is None:
            return now
        return max(now, self._due - self._tolerance(limit))

    def take(self, amount: int, limit: int | None, now: float) -> None:
        if limit is not None:
            self._due = max(self._due, now) + amount * self._span / max(limit, 1)

    def correct(self, difference: int, limit: int | None) -> None:
        if limit is not None:
            self._due += difference * self._span / max(limit, 1)

    def forfeit(self, limit: int | None, now: float) -> None:
        """What was saved up while something else held the lane up is gone: the next burst would end the same way."""
        if limit is not None:
            self._due = max(self._due, now + self._tolerance(limit))

    def _tolerance(self, limit: int) -> float:
        burst = max(limit * self._burst_share, min(self._least_burst, limit))
        return burst * self._span / max(limit, 1)


@dataclass(frozen=True, slots=True)
class Sent:
    """A call as the meter remembers it: its amount, and all that had been answered when it was sent."""

    amount: int
    answered_before: int
    number: int


class Meter:
    """One limit as its provider keeps it: the remainder of the newest answer, less what it may not have seen.

    An answer's remainder is from some moment between sending and receiving. Calls that were answered before it was
    sent are in it; all others may not be, and are taken off. So the estimate errs on the low side only, and each
    answer sets it right.
    """

    def __init__(self) -> None:
        self._sent = 0
        self._answered = 0
        self._count = 0
        self._newest = 0
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._seen = 0

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
        if reading is None or reading.limit <= 0 or sent.number < self._newest:
            return
        self._newest = sent.number
        self._reading, self._read_at = reading, now
        self._seen = sent.answered_before + sent.amount

    def ready_at(self, need: int, now: float) -> float:
        """The moment from which the provider has `need` left, as far as is known."""
        if self._reading is None:
            return now
        limit = self._reading.limit
        need = min(need + math.ceil(limit * READING_RESERVE), limit)
        level = self._level(now)
        if level >= need:
            return now
        rate = self._reading.rate
        return now + (need - level) / rate if rate > 0 else NEVER

    def _level(self, now: float) -> float:
        assert self._reading is not None  # noqa: S101 - for the type checker; asked by the caller
        came_back = self._reading.rate * max(now - self._read_at, 0.0)
        unseen = self._sent - self._seen
        return min(self._reading.remaining + came_back, self._reading.limit) - unseen


class Quota:
    """One limit of a lane: its window, its pace and, where the provider tells of it, the meter.

    `hard` is what must not be passed, `soft` is the pace.
    """

    def __init__(self, unit: Literal["requests", "tokens"], span: float, meter: Meter | None = None) -> None:
        self.unit = unit
        self.window = SlidingWindow(span)
        least = BURST_REQUESTS if unit == "requests" else 0
        self._pace = Pace(span, MINUTE_BURST if span == MINUTE else HOUR_BURST, least)
        self._meter = meter
        self.limit: int | None = None
        #: Something other than the pace made a call wait: the burst that was saved up meanwhile must not be made.
        self.held_up = False

    def hard(self, need: int, now: float) -> float:
        ready = self.window.ready_at(need, self.limit, now)
        return ready if self._meter is None else max(ready, self._meter.ready_at(need, now))

    def soft(self, now: float) -> float:
        return self._pace.ready_at(self.limit, now)

    def take(self, amount: int, now: float) -> int:
        if self.held_up:
            self._pace.forfeit(self.limit, now)
            self.held_up = False
        self._pace.take(amount, self.limit, now)
        return self.window.take(amount, now)

    def correct(self, slot: int, difference: int) -> None:
        """An amount that was taken turned out to be another."""
        self.window.correct(slot, difference)
        self._pace.correct(difference, self.limit)

    @property
    def is_per_minute(self) -> bool:
        return self.window.span == MINUTE

    def per_second(self) -> float:
        """The rate that the limit allows in the long run."""
        return NEVER if self.limit is None else max(self.limit, 1) / (self.window.span + ARRIVAL_MARGIN)
