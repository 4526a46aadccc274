"""The circuit breaker of a lane. Pure.

It opens after the failures of `THRESHOLD` different requests with no success between them, all inside `WINDOW` seconds.
Without the "no success between" a busy provider with one failure in a thousand would be cut off all the time: five of
those are inside two minutes at 3 requests a second.

A failure may be the request's own fault: a prompt on which the provider's server always ends with 500. So one request
counts once, however often it is tried; and where more than one workspace has called inside the window, those of one
alone are not enough, unless the provider could not be reached at all.

While it is open, one probe at a time is let through: the first after `FIRST_GAP` seconds, each further one after twice
as long, up to `LONGEST_GAP`. Its end closes or opens the circuit. A request that has failed here is no probe for
`LONGEST_GAP` seconds, and after those only where no other one waits (see `Desk`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from streams.dispatch.ports import MINUTE

THRESHOLD = 5
WINDOW = 120.0
FIRST_GAP = 2.0
LONGEST_GAP = 60.0

LONG_AGO = float("-inf")


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    #: One probe may be made; while it is on its way, nothing else.
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is. `request` is a key that no two requests share."""

    request: str
    workspace: str


@dataclass(frozen=True, slots=True)
class _Failed:
    """The last failure of a request. `reached`: the provider had it, so that it may be to blame itself."""

    at: float
    reached: bool


class _Workspaces:
    """Whether more than one workspace was seen lately: which one was last, and when any other one was."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._last_at = self._other_at = LONG_AGO

    def add(self, workspace: str, now: float) -> None:
        if workspace != self._last:
            self._last, self._other_at = workspace, self._last_at
        self._last_at = now

    def are_several(self, since: float) -> bool:
        return self._other_at > since


class Breaker:
    """Moments are seconds since 1970. `minute` is the seconds of the minute that all its times are counted in."""

    def __init__(self, opened_at: float | None = None, minute: float = MINUTE) -> None:
        share = minute / MINUTE
        self._window, self._first_gap, self._longest_gap = WINDOW * share, FIRST_GAP * share, LONGEST_GAP * share
        self._opened_at = opened_at
        self._gap = self._first_gap
        self._probe_at = LONG_AGO if opened_at is None else opened_at + self._gap
        self._probing = False
        #: By request, the oldest first.
        self._failed: dict[str, _Failed] = {}
        self._calling, self._failing = _Workspaces(), _Workspaces()

    @property
    def opened_at(self) -> float | None:
        """When it opened last; None while it is closed."""
        return self._opened_at

    @property
    def probe_at(self) -> float | None:
        """The moment from which the next probe may be made; None while it is closed."""
        return None if self._opened_at is None else self._probe_at

    def state(self, now: float) -> Circuit:
        if self._opened_at is None:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if now >= self._probe_at else Circuit.OPEN

    def ready_at(self, now: float, failed: str | None = None) -> float | None:
        """The moment from which a call may be made; None: not before the probe has ended.

        `failed` is the request that asks, if it has failed here before: for a while it is no probe.
        """
        if self._opened_at is None:
            return now
        if self._probing:
            return None
        past = self._failed.get(failed) if failed is not None else None
        not_before = past.at + self._longest_gap if past is not None and past.reached else LONG_AGO
        return max(now, self._probe_at, not_before)

    def begin(self, caller: Caller, now: float) -> bool:
        """A call is made. True if it is the probe."""
        self._calling.add(caller.workspace, now)
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
            self._failed.clear()
            self._failing = _Workspaces()
            self._opened_at, self._probing = None, False
        else:
            self._probe_at = min(self._probe_at, now)

    def failed(self, caller: Caller, now: float, *, reached: bool = True, probe: bool = False) -> bool:
        """A failure that says something about the provider. True if it opened the circuit.

        `reached` is False where no connection to the provider could be made.
        """
        self._remember(caller, _Failed(now, reached))
        if self._opened_at is not None:
            if probe:
                self._open(now, min(2.0 * self._gap, self._longest_gap))
            return probe
        if not self._is_outage(now):
            return False
        self._open(now, self._first_gap)
        return True

    def returned(self, *, probe: bool) -> None:
        """The call says nothing (it was not made, or ended for a reason of its own): another may be the probe."""
        if probe:
            self._probing = False

    def _remember(self, caller: Caller, failure: _Failed) -> None:
        self._failing.add(caller.workspace, failure.at)
        self._failed.pop(caller.request, None)
        self._failed[caller.request] = failure
        while (oldest := next(iter(self._failed))) and self._failed[oldest].at <= failure.at - self._window:
            del self._failed[oldest]

    def _is_outage(self, now: float) -> bool:
        if len(self._failed) < THRESHOLD:
            return False
        since = now - self._window
        if self._failing.are_several(since) or not self._calling.are_several(since):
            return True
        return not any(failure.reached for failure in islice(reversed(self._failed.values()), THRESHOLD))

    def _open(self, now: float, gap: float) -> None:
        self._opened_at, self._gap, self._probe_at, self._probing = now, gap, now + gap, False
