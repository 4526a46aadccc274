"""What the stages tell whoever counts: a port with five words, each said at one place with data that does not change.

Counted is what has happened, not what was delivered: a repeat that this process has seen before is not counted again
(`Once`). What a process has counted and not acknowledged when it dies is delivered to another one and counted there as
well; the ledger, which knows each attempt by its name, has the exact figures.
"""

from __future__ import annotations

from typing import Protocol

from schemas.base import Month
from schemas.response import Response
from schemas.usage import UsageEvent
from streams.accounts import Account

#: Repeats are known for so many answers and attempts.
REMEMBERED = 20_000


class Metrics(Protocol):
    """Every method returns at once and never raises."""

    def answered(self, response: Response) -> None:
        """A terminal response is with the broker. Said by admission and by settlement."""
        ...

    def attempted(self, usage: UsageEvent) -> None:
        """An attempt's usage is with the broker. Said by settlement."""
        ...

    def stands(self, workspace_id: str, month: Month, account: Account, partition: int) -> None:
        """A workspace's month has changed, or this worker was given it. Said by the statements."""
        ...

    def buried(self, code: str) -> None:
        """A dead letter was handed to the producer. Said by the outbox."""
        ...

    def gone(self, topic: str, count: int) -> None:
        """So many offsets of a topic were deleted before they were read, and the broker has the letter of it."""
        ...


class NoMetrics:
    """Nobody counts."""

    def answered(self, response: Response) -> None: ...

    def attempted(self, usage: UsageEvent) -> None: ...

    def stands(self, workspace_id: str, month: Month, account: Account, partition: int) -> None: ...

    def buried(self, code: str) -> None: ...

    def gone(self, topic: str, count: int) -> None: ...


NO_METRICS = NoMetrics()


class Once:
    """Tells what is new from what was seen before, among the newest `remembered` names."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        # Their hashes: a name is text from outside, and may be long. In the order of arrival.
        self._seen: dict[int, None] = {}

    def is_new(self, *name: str | int) -> bool:
        mark = hash(name)
        if mark in self._seen:
            return False
        self._seen[mark] = None
        if len(self._seen) > self._remembered:
            del self._seen[next(iter(self._seen))]
        return True
