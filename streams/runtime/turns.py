"""Turns: the events of a partition are decided in the order of the log, even where one has to wait before it can be.

An account carries the offset that it applied last. That is enough only if nothing is applied before something older:
else the older one, coming after it, would pass for done.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from streams.runtime.errors import AbandonedError
from streams.runtime.transport import DrainSignal


class Turns:
    """One turn at a time for each partition, in the order in which they are asked for."""

    def __init__(self, drain: DrainSignal) -> None:
        self._drain = drain
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        #: Whether no event may be decided any more, for now.
        self.is_closed: Callable[[], bool] = lambda: False
        #: The partitions in which an event was abandoned in its turn, and in which drain.
        self._left: dict[int, int] = {}

    @asynccontextmanager
    async def turn(self, partition: int) -> AsyncIterator[None]:
        """Raises AbandonedError after an older event of the partition was abandoned, and while the stage is paused:
        both are delivered again.
        """
        asked_in = self._drain.ended
        async with self._locks[partition]:
            if self.is_closed() or self._left.get(partition, -1) >= asked_in:
                raise AbandonedError
            yield

    async def wait(self, partition: int, seconds: float) -> None:
        """Wait in a turn. Raises AbandonedError when a drain begins."""
        ended = self._drain.ended
        if await self._drain.wait(seconds):
            # As it was before: the drain may be over by now, and what comes after it is another delivery.
            self._left[partition] = ended
            raise AbandonedError
