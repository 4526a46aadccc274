"""The circuit breaker of a lane. Pure.

It opens after `THRESHOLD` failures with no success between them, all inside `WINDOW` seconds; after `OPEN_FOR` seconds
it lets one probe through, whose end closes or opens it again. Without the "no success between" a busy provider with
one failure in a thousand would be cut off all the time: five of those are inside two minutes at 3 requests a second.
"""

from __future__ import annotations

from enum import StrEnum

from streams.dispatch.ports import MINUTE

THRESHOLD = 5
WINDOW = 120.0
OPEN_FOR = 60.0


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    #: One probe may be made; while it is on its way, nothing else.
    HALF_OPEN = "half_open"


class Breaker:
    """Moments are seconds since 1970. `minute` is the seconds of the minute that it opens for."""

    def __init__(self, opened_at: float | None = None, minute: float = MINUTE) -> None:
        self.open_for = OPEN_FOR * minute / MINUTE
        self._window = WINDOW * minute / MINUTE
        self._failures: list[float] = []
        self._opened_at = opened_at
        self._probing = False

    @property
    def opened_at(self) -> float | None:
        """When it opened last; None while it is closed."""
        return self._opened_at

    def state(self, now: float) -> Circuit:
        if self._opened_at is None:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if now >= self._opened_at + self.open_for else Circuit.OPEN

    def ready_at(self, now: float) -> float | None:
        """The moment from which a call may be made; None: not before the probe has ended."""
        if self._opened_at is None:
            return now
        return None if self._probing else max(now, self._opened_at + self.open_for)

    def begin(self, now: float) -> bool:
        """A call is made. True if it is the probe."""
        if self.state(now) is not Circuit.HALF_OPEN or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self, now: float, *, probe: bool = False) -> None:
        """An answer. Only the probe closes; one to a call from before the opening lets the probe go at once.

        Where hundreds of calls begin together, those that fail are back first: five quick refusals open the circuit of
        a provider that answers all the others well.
        """
        if self._opened_at is None or probe:
            self._failures.clear()
            self._opened_at, self._probing = None, False
        else:
            self._opened_at = min(self._opened_at, now - self.open_for)

    def failed(self, now: float, *, probe: bool = False) -> bool:
        """A failure that says something about the provider. True if it opened the circuit."""
        if self._opened_at is not None:
            if probe:
                self._opened_at, self._probing = now, False
            return probe
        self._failures = [at for at in (*self._failures, now) if at > now - self._window]
        if len(self._failures) < THRESHOLD:
            return False
        self._failures.clear()
        self._opened_at = now
        return True

    def returned(self, *, probe: bool) -> None:
        """The call says nothing (it was not made, or ended for a reason of its own): another may be the probe."""
        if probe:
            self._probing = False
