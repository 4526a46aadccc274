"""Reports of calls that were made, until the broker has them.

The call is paid for, and its report is all that is known of it. So it is published until it is there: the visit is not
made again because the broker refuses, which would find its own mark and take the call for one of a dead process.

What waits so is memory. When it is more than a worker may have, its lanes make no new calls until it is less.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streams.records import Record
from streams.runtime.agents import BROKER_RETRY, is_passing
from streams.runtime.outbox import Outbox

log = logging.getLogger(__name__)

#: Bytes of reports that may be on their way to the broker while new calls are made.
MOST_BYTES = 64 * 1024 * 1024
#: New calls are made again when it has become this share of that.
GO_ON = 0.5


class Unreported:
    """Publishes reports until the broker has them. `hold` is told True when no new calls should be made, and False when
    they may be.
    """

    def __init__(self, outbox: Outbox, hold: Callable[[bool], None], most: int = MOST_BYTES) -> None:
        self._outbox = outbox
        self._hold = hold
        self._most = most
        self._is_holding = False
        #: What is on its way now.
        self.bytes = 0

    async def publish(self, report: Record) -> None:
        """Return when the broker has it. Raises for what no broker will take: see `letters.TOO_LARGE`."""
        size = len(report.value or b"")
        self._add(size)
        try:
            await self._until_there(report)
        finally:
            self._add(-size)

    async def _until_there(self, report: Record) -> None:
        while True:
            try:
                return await self._outbox.publish(report)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("report_waits: %s[%s]: %s", report.topic, report.partition, type(error).__name__)
            await asyncio.sleep(BROKER_RETRY)

    def _add(self, size: int) -> None:
        self.bytes += size
        if not self._is_holding and self.bytes > self._most:
            log.warning("calls_held: %s bytes of reports wait for the broker", self.bytes)
            self._is_holding = True
            self._hold(True)
        elif self._is_holding and self.bytes <= self._most * GO_ON:
            self._is_holding = False
            self._hold(False)
