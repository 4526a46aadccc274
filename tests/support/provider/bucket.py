"""A provider in virtual time that keeps its quota in a bucket, takes calls off as they come, and says what is left."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from schemas.usage import Tokens
from streams.dispatch.desk import Granted, Turn
from streams.dispatch.lane import Reservation
from streams.dispatch.ports import MINUTE, Answer, ErrorClass, Failure, Reading, Readings
from streams.dispatch.quota import Limits
from tests.support.clock.virtual import START, Story, VirtualDesk

#: What a call is charged, by what it reserved and will have used, in tokens.
Charge = Callable[[int, int], int]


@dataclass
class Bucket:
    """A minute's limit that comes back evenly."""

    limit: int
    level: float = field(init=False)
    at: float = START

    def __post_init__(self) -> None:
        self.level = float(self.limit)

    def refill(self, now: float) -> None:
        self.level = min(self.level + (now - self.at) * self.limit / MINUTE, self.limit)
        self.at = now

    def reading(self) -> Reading:
        return Reading(self.limit, max(math.floor(self.level), 0), (self.limit - self.level) * MINUTE / self.limit)


class BucketDesk(VirtualDesk):
    """A desk before such a provider, with the lane's limits. All spans are seconds: `way` and `latency` are what a call
    takes to the provider and there, each a least and what may come on top, drawn anew for every call.
    """

    def __init__(
        self,
        limits: Limits,
        charge: Charge,
        *,
        way: tuple[float, float] = (0.005, 0.02),
        latency: tuple[float, float] = (0.2, 0.1),
        seed: int = 1,
    ) -> None:
        super().__init__(limits, latency=-1, look_ahead=400, concurrency=256)
        self._requests = Bucket(limits.rpm) if limits.rpm else None
        self._tokens = Bucket(limits.tpm) if limits.tpm else None
        self._charge, self._way, self._takes = charge, way, latency
        self._chance = random.Random(seed)  # noqa: S311 - a die, and nothing secret
        #: When the provider took what off, in tokens; and the calls that it refused.
        self.taken: list[tuple[float, int]] = []
        self.refused = 0

    def _told(self, story: Story, turn: Turn) -> None:
        super()._told(story, turn)
        if isinstance(turn, Granted):
            held = turn.reservation
            self.at(self.now + self._drawn(self._way), lambda: self._arrived(story, held))

    def _drawn(self, span: tuple[float, float]) -> float:
        return span[0] + span[1] * self._chance.random()

    def _arrived(self, story: Story, held: Reservation) -> None:
        used = self._chance.randint(story.place.tokens // 3, story.place.tokens // 2)
        needs = [(self._requests, 1), (self._tokens, self._charge(story.place.tokens, used))]
        kept = [(bucket, need) for bucket, need in needs if bucket is not None]
        for bucket, _ in kept:
            bucket.refill(self.now)
        result: Answer | Failure
        if any(bucket.level < need for bucket, need in kept):
            self.refused += 1
            result = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=1.0)
        else:
            for bucket, need in kept:
                bucket.level -= need
            self.taken.append((self.now, needs[1][1]))
            told = Readings(*(bucket.reading() if bucket else None for bucket, _ in needs))
            result = Answer("hello", "some-model", "stop", Tokens(prompt_tokens=used), readings=told)
        self.at(self.now + self._drawn(self._takes), lambda: self.desk.settle(held, result))

    def busiest_minute(self) -> int:
        """The most tokens that the provider took off in any 60 seconds, wherever they begin."""
        return max((_sum_of(self.taken[: number + 1], since=at - MINUTE) for number, (at, _) in enumerate(self.taken)))

    def used(self, begin: float, end: float) -> float:
        """The share of the tokens' limit that was taken off between two moments."""
        assert self._tokens is not None
        taken = sum(amount for at, amount in self.taken if begin <= at < end)
        return taken / (end - begin) * MINUTE / self._tokens.limit


def _sum_of(taken: Sequence[tuple[float, int]], since: float) -> int:
    first = bisect_right(taken, since, key=lambda one: one[0])
    return sum(amount for _, amount in taken[first:])
