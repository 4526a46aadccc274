"""Notices when a part of a worker stands still although it has work to do, says so, and at last ends the worker.

Nothing should ever stand still. If it does all the same, the worker answers that it is not ready, and after a while it
ends: its partitions go to others, and whoever runs it starts it again. That costs no more than a kill.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from streams.runtime.progress import Progress, Standing

log = logging.getLogger(__name__)

#: Seconds between two looks, and those for which nothing may move before the worker says that it is not ready.
INTERVAL = 5.0
PATIENCE = 60.0


class Source(Protocol):
    """Says how the parts stand; None while nobody can expect progress: the broker is away, partitions change hands."""

    async def __call__(self) -> Mapping[str, Standing] | None: ...


class Watch:
    """Looks until cancelled. `end_after` is in seconds; 0: the worker is never ended."""

    def __init__(self, source: Source, end_after: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._end_after = end_after
        self._patience = min(PATIENCE, end_after or PATIENCE)
        self._clock = clock
        self._progress = Progress()
        self._told: set[str] = set()
        #: For how long each part has stood still that has done so for longer than the patience.
        self.still: Mapping[str, float] = {}
        #: Set when the worker should end.
        self.is_over = asyncio.Event()

    @property
    def reason(self) -> str | None:
        """For those who ask whether the worker is ready."""
        if not self.still:
            return None
        parts = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in sorted(self.still.items()))
        return f"work waits and nothing is done: {parts}"

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        while True:
            await sleep(INTERVAL)
            await self.look()

    async def look(self) -> None:
        standings = await self._source()
        since = self._progress.look(standings or {}, self._clock())
        self.still = {name: seconds for name, seconds in since.items() if seconds >= self._patience}
        for name in self.still.keys() - self._told:
            log.error("stands_still: %s: work waits and nothing is done; SIGUSR1 shows what its tasks wait for", name)
        for name in self._told - self.still.keys():
            log.info("goes_on: %s", name)
        self._told = set(self.still)
        longest = max(self.still.values(), default=0.0)
        if self._end_after and longest >= self._end_after and not self.is_over.is_set():
            log.error("worker_gives_up: %s; it ends, so that others go on with its partitions", self.reason)
            self.is_over.set()
