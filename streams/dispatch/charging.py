"""What a provider's limit charges of the tokens that a call might have used, and has not. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from streams.dispatch.ports import Reading

#: By how much the ways of two calls to the provider differ, in seconds: so long after another a call may have come
#: before it.
ON_THE_WAY = 0.1
#: Where a quota may have been full nobody can say what was charged. Comparing begins below this share of its limit.
LOW = 0.95
#: What it takes to believe the readings: so many calls, and unused tokens of this share of the limit.
EVIDENCE_CALLS = 5
EVIDENCE_SHARE = 0.05
#: Where there is more than this, half of it is forgotten: a provider may change its ways, and requests theirs.
MOST_EVIDENCE_SHARE = 4.0
#: So many calls may have ended behind one that goes on; one more, and nothing is learned of those before.
MOST_BEHIND = 2_000


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that is over: when it was sent, in seconds since 1970, what it reserved and used, in tokens, and what its
    answer said of the limit. One that was not made, or failed, has used nothing as far as anybody knows.
    """

    at: float
    reserved: int = 0
    used: int = 0
    reading: Reading | None = None


class Charging:
    """Finds out how much a provider charges of what a call might have used, and has not.

    OpenAI counts `max_tokens` when the call comes and gives nothing back; Anthropic counts what was written; and each
    counts a prompt in its own way. Giving back what the provider keeps would put more into a window than its limit, so
    until the readings have shown that unused tokens return, they do not. A provider without readings is taken at its
    answers' usage.

    A provider takes calls off when they come, and that is about as they were sent, whenever they are answered. So they
    are read in the order of sending: what is missing between two readings, and what came back in the time between the
    two calls, was charged to the second one and to all between them. Over many calls that adds up, but for the two
    ends: calls that overtook each other on their way there. These may be wrong to the lane's cost, never to its gain.
    """

    def __init__(self) -> None:
        #: The share of the unused tokens that is charged.
        self.kept = 0.0
        self._has_heard = False
        #: By number: calls that have ended while one that was sent before them has not.
        self._behind: dict[int, Ended] = {}
        self._next = 1
        #: Those that may have come after the one that was sent last.
        self._near: deque[Ended] = deque()
        self._near_reserved = 0
        #: What is compared: since when, up to which reading, and the calls after that one.
        self._begun_at = 0.0
        self._last: tuple[Reading, float] | None = None
        self._after = _Sums()
        #: The newest reading of all.
        self._newest: tuple[Reading, float] | None = None
        #: What remainders are rounded to: Anthropic's are in thousands.
        self._grain = 0
        #: All that was compared, and what the end of it may hide.
        self._all = _Sums()
        self._doubt = 0.0
        #: Calls of which only the most is known.
        self._at_most = _Sums()

    def charge(self, reserved: int, used: int) -> int:
        """What a call was charged, as far as is known; more than was reserved if it has used more."""
        return used + math.ceil(self.kept * max(reserved - used, 0))

    def hear(self, number: int, ended: Ended) -> None:
        """The call that was sent as the `number`th, from 1, has ended."""
        if ended.reading is not None and not self._has_heard:
            self.kept, self._has_heard = 1.0, True
        if number < self._next:
            return
        self._behind[number] = ended
        if len(self._behind) > MOST_BEHIND:
            self._next = min(self._behind)
            self._break_off()
        while self._next in self._behind:
            self._follow(self._behind.pop(self._next))
            self._next += 1

    def refuted(self) -> None:
        """The provider has refused a call: what was found out is not believed any more, and found out anew."""
        self.kept = float(self._has_heard)
        self._all, self._at_most, self._last, self._doubt = _Sums(), _Sums(), None, 0.0

    def _follow(self, ended: Ended) -> None:
        """The next one, in the order of sending."""
        near = self._sent_shortly_before(ended)
        self._after.add(ended)
        reading = ended.reading
        if reading is None:
            return
        self._grain = math.gcd(self._grain, reading.limit, reading.remaining)
        if self._last is not None and _may_have_been_full(*self._last, ended.at):
            self._break_off()
        if self._last is not None:
            self._compare(*self._last, reading, ended.at, near)
        elif not self._begins(reading, ended.at, near):
            self._look_at_one(ended, reading)
        self._after, self._newest = _Sums(), (reading, ended.at)

    def _look_at_one(self, ended: Ended, reading: Reading) -> None:
        """A quota that was full when the call came tells of this one, which was charged what is missing. If others may
        be missing too, that is what it was charged at most.
        """
        missing = reading.limit - reading.remaining + self._grain / 2
        if missing <= ended.reserved:
            was_full = self._newest is not None and _must_have_been_full(*self._newest, ended.at)
            (self._all if was_full else self._at_most).add(ended, missing)
            self._learn(reading)

    def _sent_shortly_before(self, ended: Ended) -> int:
        """What those have reserved that this one may have overtaken."""
        while self._near and self._near[0].at < ended.at - ON_THE_WAY:
            self._near_reserved -= self._near.popleft().reserved
        near = self._near_reserved
        self._near.append(ended)
        self._near_reserved += ended.reserved
        return near

    def _begins(self, reading: Reading, at: float, near: int) -> bool:
        """Whether calls are compared from this one on: below a full quota, at a quiet moment. Who sends many calls at
        once begins after them.
        """
        on_the_way = reading.rate * ON_THE_WAY
        if reading.remaining >= LOW * reading.limit or near > 2 * on_the_way:
            return False
        self._last, self._begun_at = (reading, at), at
        # The first call's way there may have been the longer one.
        self._all.charged += on_the_way + self._grain
        return True

    def _break_off(self) -> None:
        self._all.charged += self._doubt
        self._last, self._doubt = None, 0.0

    def _compare(self, before: Reading, at: float, reading: Reading, now: float, near: int) -> None:
        self._after.charged = before.remaining + before.rate * max(now - at, 0.0) - reading.remaining
        if now - self._begun_at <= ON_THE_WAY:
            # The first reading may have seen these.
            self._after.charged += self._after.reserved
        self._all.join(self._after)
        self._last, self._doubt = (reading, now), near
        self._learn(reading)

    def _learn(self, reading: Reading) -> None:
        known = self._all if self._all.are_enough(reading.limit) else self._all.joined(self._at_most)
        if not known.are_enough(reading.limit):
            return
        self.kept = min(max((known.charged + self._doubt - known.used) / known.unused, 0.0), 1.0)
        for sums in (self._all, self._at_most):
            if sums.unused > MOST_EVIDENCE_SHARE * reading.limit:
                sums.halve()


@dataclass(slots=True)
class _Sums:
    """Of some calls, what they reserved, used and were charged."""

    calls: int = 0
    reserved: float = 0.0
    used: float = 0.0
    charged: float = 0.0

    @property
    def unused(self) -> float:
        return self.reserved - self.used

    def are_enough(self, limit: int) -> bool:
        return self.calls >= EVIDENCE_CALLS and self.unused > EVIDENCE_SHARE * limit

    def add(self, ended: Ended, charged: float = 0.0) -> None:
        self.join(_Sums(1, ended.reserved, ended.used, charged))

    def join(self, other: _Sums) -> None:
        self.calls += other.calls
        self.reserved += other.reserved
        self.used += other.used
        self.charged += other.charged

    def joined(self, other: _Sums) -> _Sums:
        both = replace(self)
        both.join(other)
        return both

    def halve(self) -> None:
        self.reserved /= 2
        self.used /= 2
        self.charged /= 2


def _may_have_been_full(reading: Reading, at: float, now: float) -> bool:
    """Whether all of the limit may have been there at some time between a reading and the next call."""
    return reading.remaining + reading.rate * (now - at + ON_THE_WAY) >= reading.limit


def _must_have_been_full(reading: Reading, at: float, now: float) -> bool:
    """Whether all of the limit was there when the next call came, whatever the two calls' ways."""
    return reading.remaining + reading.rate * (now - at - ON_THE_WAY) >= reading.limit
