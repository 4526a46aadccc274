"""A stage that pauses: it acknowledges nothing, says so, and tries again from where it stopped after a while.

Its partitions are not read meanwhile. What was read and is not acknowledged is given up, and read again when the stage
goes on: all of it, in order, because a later event must not be applied before an earlier one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from streams.runtime.faults import Whose

if TYPE_CHECKING:
    from streams.runtime.app import SpillwayApp

log = logging.getLogger(__name__)

#: Seconds between two looks whether what was begun has ended.
POLL = 0.1


def _never() -> bool:
    return False


def _nobody(_: bool) -> None:
    """Whom to tell, where nobody wants to know."""


class StagePause:
    """Of the stage that reads one topic. `is_busy` says whether events are still worked on whose order matters;
    `tell` hears when a pause begins (True) and ends (False).
    """

    def __init__(
        self,
        app: SpillwayApp,
        stage: str,
        topic: str,
        *,
        is_busy: Callable[[], bool] = _never,
        tell: Callable[[bool], None] = _nobody,
    ) -> None:
        self._app = app
        self._stage = stage
        self._topic = topic
        self._is_busy = is_busy
        self._tell = tell
        self._faults = app.limits.count_of(stage)
        self._going_on: asyncio.Task[None] | None = None
        self._is_told = False
        #: Why the stage is paused; None while it is not.
        self.reason: str | None = None

    @property
    def is_on(self) -> bool:
        return self.reason is not None

    def takes(self, whose: Whose, workspace: str, words: str) -> bool:
        """The work on an event has failed. True: it is not to be buried, because the stage pauses."""
        if self.is_on:
            return True
        if whose is Whose.OURS:
            self.begin(words)
        elif self._faults.add(workspace):
            self.begin(f"one event after the other fails; the last one: {words}")
        return self.is_on

    def succeeded(self) -> None:
        """An event was handled. One that was begun before a pause says nothing of what the pause is for."""
        if self.is_on:
            return
        self._faults.succeeded()
        if self._is_told:
            self._is_told = False
            log.info("stage_goes_on: %s", self._stage)

    def begin(self, reason: str) -> None:
        self.reason = reason
        if not self._is_told:
            # Once, however often it tries in vain: /ready has the newest reason.
            self._is_told = True
            log.error("stage_paused: %s: %s; it tries again every %g s", self._stage, reason, self._app.limits.pause)
        self._tell(True)
        self.hold()
        self._going_on = asyncio.get_running_loop().create_task(self._go_on())

    def hold(self) -> None:
        """Read no more: also after partitions have changed hands, when all are read."""
        if own := self._partitions():
            self._app.consumer.pause_partitions(own)

    async def _go_on(self) -> None:
        while not await self._read_again():
            log.warning("stage_stays_paused: %s: its partitions could not be sought", self._stage)
        # Nothing has been handed over since they were sought.
        self.reason = None
        log.debug("stage_tries_again: %s", self._stage)
        self._tell(False)

    async def _read_again(self) -> bool:
        await asyncio.sleep(self._app.limits.pause)
        consumer = cast(Any, self._app.consumer)
        while self._app.rebalancing or self._is_busy() or consumer.has_handed_over(self._topic):  # noqa: ASYNC110
            await asyncio.sleep(POLL)
        try:
            await consumer.read_again(self._partitions())
        except Exception:  # noqa: BLE001 - without this the stage would be paused for ever, and not say so
            return False
        return True

    def _partitions(self) -> set[Any]:
        return {tp for tp in self._app.consumer.assignment() if tp.topic == self._topic}
