"""The worker's time and its presence, put together; and whether the machine's own clock is right."""

from __future__ import annotations

import logging
from functools import partial

from app.worker.parts import Worker, reader
from streams.runtime.broadcast import StampedBroadcast
from streams.runtime.clock import BrokerClock
from streams.runtime.outbox import Outbox
from streams.runtime.presence import Presence
from streams.topology import OWNERS

log = logging.getLogger(__name__)

#: Once it was wrong, a clock is right when it is within this share of what is tolerated: not now and again at the edge.
RIGHT_AGAIN = 0.8


class ClockCheck:
    """Says when the machine's clock is too far from the broker's, in the log once when it begins and once when it ends.

    `tolerance` is in seconds. What cannot be told from the time that an answer took is not held against the machine.
    """

    def __init__(self, clock: BrokerClock, tolerance: float) -> None:
        self._clock = clock
        self._tolerance = tolerance
        self._is_wrong = False

    def reason(self) -> str | None:
        """What is wrong, and what to do about it; None where nothing is."""
        apart = self._clock.apart()
        if apart is None:
            return None
        bound = self._tolerance * (RIGHT_AGAIN if self._is_wrong else 1.0)
        is_wrong = abs(apart) - self._clock.uncertainty > bound
        reason = self._words(apart) if is_wrong else None
        if is_wrong and not self._is_wrong:
            log.error("clock_apart: %s", reason)
        elif self._is_wrong and not is_wrong:
            log.info("clock_right_again: %.1f s from the broker's", abs(apart))
        self._is_wrong = is_wrong
        return reason

    def _words(self, apart: float) -> str:
        return (
            f"the clock of this machine is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} the broker's, "
            f"where {self._tolerance:g} s are tolerated (AI_CLOCK_TOLERANCE): set the clocks of both by NTP "
            "(chronyc tracking, timedatectl); the worker goes by the broker's time meanwhile"
        )


def add_presence(worker: Worker, outbox: Outbox) -> Presence:
    """The worker says that it lives from when the outbox is open until it closes, hears the others, and learns the
    broker's time by it. Call it between what starts the outbox and what closes it.
    """
    settings = worker.settings
    presence = Presence(worker.app.owners.name, settings.kafka_session_timeout, worker.clock, outbox)
    worker.listen(StampedBroadcast(partial(reader, settings), OWNERS, presence.apply))
    worker.start.append(presence.start)
    worker.close.append(presence.stop)
    worker.clock_reason = ClockCheck(worker.clock, settings.clock_tolerance).reason
    return presence
