"""The broker's time, kept on a steady clock: no step of the machine's own clock changes what a worker decides.

Deadlines, windows of limits and months are shared between workers, so they need one time. All workers have the same
broker. A worker learns its time from acknowledgements: a record was sent and acknowledged at two moments of the steady
clock, and the broker's timestamp lies between them (Cristian's algorithm, 1989). The steady clock counts on from there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

log = logging.getLogger(__name__)

#: By how much two clocks may drift apart, as a share of the time: each may be slewed by NTP by 500 millionths.
DRIFT = 0.001
#: Seconds for which the best estimate counts. A later one is less exact, but no clock has drifted since.
KEPT = 300.0
#: A broker's timestamp is in whole milliseconds, rounded down.
RESOLUTION = 0.001
#: By how much the clock runs faster or slower until a correction is made up for, as a share of the time. Windows of
#: limits count on it: a minute of them may be wrong by this share and not by more.
SLEW = 0.01
#: Seconds by which the broker's clock must have stepped to be worth a line in the log.
FAR = 1.0

#: Linux's clock that counts suspension; macOS' own monotonic one does, which Python's is not.
_STEADY: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def utc_now() -> datetime:
    """The machine's own clock."""
    return datetime.now(UTC)


def steady_seconds() -> float:
    """Seconds of a clock that nobody sets; where there is one, it also counts while the machine is suspended."""
    return time.monotonic() if _STEADY is None else time.clock_gettime(_STEADY)


@dataclass(frozen=True)
class Estimate:
    """The broker's time is the steady clock's plus `offset`, give or take `uncertainty`, as of the moment `at` of the
    steady clock, at which the record was sent. All in seconds.
    """

    offset: float
    uncertainty: float
    at: float

    @classmethod
    def of(cls, sent: float, acked: float, broker_ms: int) -> Estimate:
        """`sent` and `acked` are by the steady clock, in seconds."""
        stamp = broker_ms / 1000 + RESOLUTION / 2
        return cls(stamp - (sent + acked) / 2, (max(acked - sent, 0.0) + RESOLUTION) / 2, sent)

    def uncertainty_at(self, moment: float) -> float:
        """The same at another moment: the clocks may have drifted apart since."""
        return self.uncertainty + DRIFT * max(moment - self.at, 0.0)

    def agrees(self, other: Estimate) -> bool:
        """Whether one and the same broker's clock can have been read both times."""
        return abs(other.offset - self.offset) <= other.uncertainty + self.uncertainty_at(other.at)


class BrokerClock:
    """Until the first estimate it is the machine's clock. Once it has begun and has an estimate, it never goes back.

    `steady` and `wall` give seconds, the latter since 1970.
    """

    def __init__(self, steady: Callable[[], float] = steady_seconds, wall: Callable[[], float] = time.time) -> None:
        self.steady = steady
        self._wall = wall
        #: The best estimate of the last minutes comes first; each one after it is newer and less exact.
        self._estimates: deque[Estimate] = deque()
        #: What the clock has shown last, and the moment of the steady clock at which it was that.
        self._shown = self._shown_at = 0.0
        self._is_told = self._has_begun = False

    def begin(self) -> None:
        """From here on it is decided by this clock: what is learned later is made up for little by little."""
        self._has_begun = True

    # What a broker has said ----------------------------------------------------------------------------------------

    def hear(self, sent: float, acked: float, broker_ms: int | None) -> None:
        """A record that was sent and acknowledged at these moments of the steady clock has this timestamp, which the
        broker gave it. None: it has not given any.
        """
        if broker_ms is None:
            return self._cannot_learn()
        new, known = Estimate.of(sent, acked, broker_ms), self._estimates
        takes_over = not known or not self._has_begun
        if known:
            self._settle()
            if not known[0].agrees(new):
                self._has_stepped(new.offset - known[0].offset)
                known.clear()
        while known and known[-1].uncertainty_at(new.at) >= new.uncertainty:
            known.pop()
        known.append(new)
        while known[0].at < new.at - KEPT:
            known.popleft()
        if takes_over:
            self._shown_at = self.steady()
            self._shown = self._shown_at + known[0].offset
        return None

    def _has_stepped(self, seconds: float) -> None:
        """Another broker leads, or somebody has set its clock, or the steady one stood still with the whole machine."""
        if abs(seconds) >= FAR:
            log.warning(
                "broker_clock_stepped: by %+.3f s; the worker's time follows by %g %% of the time that passes, or at "
                "once when this machine's clock agrees: look after NTP on the brokers' machines",
                seconds,
                SLEW * 100,
            )

    def _cannot_learn(self) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning(
                "clock_not_learned: the broker gives the records of ai.owners no timestamps of its own "
                "(message.timestamp.type=LogAppendTime); the worker goes by the machine's clock: "
                "run `spillway topics --fix`"
            )

    # What time it is -----------------------------------------------------------------------------------------------

    @property
    def is_learned(self) -> bool:
        """Whether a broker has said what time it is."""
        return bool(self._estimates)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def seconds(self) -> float:
        """The time by which the worker decides, in seconds since 1970."""
        return self._settle() if self._estimates else self._wall()

    def _settle(self) -> float:
        """Let the time pass since the last look: a correction is made up for little by little.

        But where the broker and the machine's clock agree that it is later, the steady clock has stood still: a virtual
        machine was paused. Then that time has passed, and is not made up for over days.
        """
        moment = max(self.steady(), self._shown_at)
        passed = moment - self._shown_at
        broker = moment + self._estimates[0].offset
        error = broker - (self._shown + passed)
        if error >= FAR and abs(self._wall() - broker) < FAR:
            self._shown = broker
        else:
            self._shown += passed + min(max(error, -SLEW * passed), SLEW * passed)
        self._shown_at = moment
        return self._shown

    def broker(self) -> float | None:
        """The broker's time at this moment as far as it is known, in seconds since 1970: it may step."""
        return self.steady() + self._estimates[0].offset if self._estimates else None

    @property
    def uncertainty(self) -> float:
        """By how many seconds `broker` may be wrong, either way."""
        return self._estimates[0].uncertainty_at(self.steady()) if self._estimates else float("inf")

    def apart(self) -> float | None:
        """By how many seconds the machine's clock is ahead of the broker's; below 0 it is behind. None: not known."""
        broker = self.broker()
        return None if broker is None else self._wall() - broker
