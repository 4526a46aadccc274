"""A call's time limit in a worker that may be busy.

An event loop that has been busy runs the timers that are due before it reads what has arrived. An answer that came in
time would be given up, and paid for, because nobody has looked at it yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Seconds by which a timer must be late for the loop to count as busy, and for as long as which it may have been: one
#: that is later has stood still, and the limit is over for good.
BUSY, STOOD_STILL = 0.02, 3.0
#: Seconds in which what has arrived is read.
READING = 0.2
#: Before the limit's own timer, which would run first otherwise.
_BEFORE = 0.001


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`; a loop that was busy at the end reads first what has arrived. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout_at(due) as limit:

        def look() -> None:
            if BUSY < loop.time() - due < STOOD_STILL:
                limit.reschedule(loop.time() + READING)

        looking = loop.call_at(due - _BEFORE, look)
        try:
            yield
        finally:
            looking.cancel()
