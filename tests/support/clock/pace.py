"""Sending at a rate."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """`per_second` steps, counted from the first: what comes late is caught up."""

    def __init__(self, per_second: float) -> None:
        self._distance = 1 / per_second
        self._begun = time.monotonic()
        self._steps = 0

    async def step(self) -> None:
        """Wait until it is time for the next one."""
        self._steps += 1
        ahead = self._begun + self._steps * self._distance - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
