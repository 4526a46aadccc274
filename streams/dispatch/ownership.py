"""What this worker may do for its lanes at a moment: call, write, and tell the pieces of an answer.

Partitions come and go, and calls go on. A lane is worked on in one life of its partition (`streams.runtime.lives`), and
rows are written in that life only. A call is made only while this worker's lease on the partition holds. A call that is
on the wire when the life ends is finished and reported, and its pieces are told while no other worker can have taken
this one for dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from streams.runtime.clock import steady_seconds
from streams.runtime.lives import Life, Lives

log = logging.getLogger(__name__)

#: Seconds between two looks beyond those that were meant, after which this process has stood still; and those within
#: which it hears what was said meanwhile: cancellations, lanes that were paused, limits.
STOOD_STILL, CATCH_UP = 2.0, 1.0


class Owners(Protocol):
    """What the partitions' owner knows of itself."""

    @property
    def name(self) -> str:
        """New for each start of the process: it stands in the marks of its calls."""
        ...

    def may_call(self, partition: int) -> bool:
        """Whether the lease holds, and the partition is this worker's."""
        ...


class Presence(Protocol):
    """Which workers live, by what they have said lately."""

    def lives(self, name: str) -> bool:
        """Whether a worker may still finish a call and report it."""
        ...

    def holds(self) -> bool:
        """Whether all others still take this worker for alive."""
        ...


class Ownership:
    """Answers for one worker. `interval` is the seconds between two looks whether it is taken for alive, and whether it
    has stood still; `steady` is a clock of seconds.
    """

    def __init__(
        self,
        owners: Owners,
        lives: Lives,
        presence: Presence,
        interval: float = 1.0,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._owners = owners
        self._lives = lives
        self._presence = presence
        self._interval = interval
        self._steady = steady
        #: The moment of the last look; None while nobody looks again and again.
        self._looked_at: float | None = None
        self._awake_from = float("-inf")
        #: How often others may have taken this worker for dead.
        self._lapses = 0
        self._has_lapsed = False

    @property
    def name(self) -> str:
        return self._owners.name

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call when partitions have been given up, or were lost."""
        self._lives.on_end(lambda _: callback())

    def life(self, partition: int) -> Life | None:
        """The partition's present life; None where it is not this worker's."""
        return self._lives.current(partition)

    def is_current(self, life: Life) -> bool:
        return self._lives.is_current(life)

    def may_call(self, life: Life) -> bool:
        """Whether a call may be made that was decided in this life."""
        return self._is_awake() and self._holds(life)

    def _holds(self, life: Life) -> bool:
        return self._lives.is_current(life) and self._owners.may_call(life.partition)

    def _is_awake(self) -> bool:
        """Whether this process knows what was said until now. One that has just stood still does not: a request may
        have been cancelled, or a lane paused.
        """
        if self._looked_at is None:
            return True
        now = self._steady()
        if (missed := now - self._looked_at) > self._interval + STOOD_STILL:
            self._awake_from = now + CATCH_UP
            log.warning("stood_still: for %.1f s; no call is made for %g s", missed, CATCH_UP)
        self._looked_at = now
        return now >= self._awake_from

    def is_alive(self, name: str) -> bool:
        """Whether another worker may still finish its calls and report them."""
        return self._presence.lives(name)

    # Pieces of an answer -------------------------------------------------------------------------------------------

    def telling(self, life: Life) -> Callable[[], bool]:
        """Asked before each piece of a call that begins now: whether it may be told.

        While the partition is this worker's nobody else can have taken the call for lost. After that, nobody can while
        all others take this worker for alive. Once they may not have, the next attempt may have begun, and what it
        says must not be mixed with what this one says, however alive this worker is later.
        """
        since = None if self._look() else self._lapses

        def may_tell() -> bool:
            has_lapsed = self._look()
            return self._holds(life) or (not has_lapsed and self._lapses == since)

        return may_tell

    def _look(self) -> bool:
        """Whether this worker is not taken for alive now."""
        is_taken_for_dead = not self._presence.holds()
        if is_taken_for_dead and not self._has_lapsed:
            self._lapses += 1
        self._has_lapsed = is_taken_for_dead
        return is_taken_for_dead

    async def watch(self) -> None:
        """Look again and again. After a stand-still this comes before any new word of this worker can have arrived."""
        self._looked_at = self._steady()
        while True:
            self._is_awake()
            self._look()
            await asyncio.sleep(self._interval)
