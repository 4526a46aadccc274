"""What this worker may do for its lanes at a moment: call, write, and tell the pieces of an answer.

Partitions come and go, and calls go on. A lane is worked on in one life of its partition (`streams.runtime.lives`), and
rows are written in that life only. A call is made only while this worker's lease on the partition holds. A call that is
on the wire when the life ends is finished and reported, and its pieces are told while no other worker can have taken
this one for dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from streams.runtime.lives import Life, Lives


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
    """Answers for one worker. `interval` is the seconds between two looks whether it is taken for alive."""

    def __init__(self, owners: Owners, lives: Lives, presence: Presence, interval: float = 1.0) -> None:
        self._owners = owners
        self._lives = lives
        self._presence = presence
        self._interval = interval
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
        return self._lives.is_current(life) and self._owners.may_call(life.partition)

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
            return self.may_call(life) or (not has_lapsed and self._lapses == since)

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
        while True:
            self._look()
            await asyncio.sleep(self._interval)
