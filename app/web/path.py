"""A request's way through the stages, told from its ledger rows: admitted, waited, called, answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from app.web.facts import Answered, Tried

#: Seconds of waiting that are worth a line; less is the way through Kafka.
WORTH_TELLING = 0.05


@dataclass(frozen=True)
class Admitted:
    """The request was taken in."""

    at: datetime


@dataclass(frozen=True)
class Waited:
    """So many seconds for a turn: in the lane that called next, or until the end where none did."""

    seconds: float
    lane: str | None


@dataclass(frozen=True)
class Called:
    """One attempt."""

    tried: Tried


@dataclass(frozen=True)
class Ended:
    """The terminal response, so many seconds after admission."""

    at: datetime
    status: str
    cached: bool
    seconds: float


Moment = Admitted | Called | Ended
Step = Moment | Waited


def path(each: Answered) -> list[Step]:
    """The steps in their order. What a clock that went back makes of a wait is left out."""
    moments: list[Moment] = [] if each.requested_at is None else [Admitted(each.requested_at)]
    moments += [Called(tried) for tried in sorted(each.tried, key=lambda tried: tried.number)]
    moments.append(Ended(each.answered_at, each.status, each.cached, each.latency))
    steps: list[Step] = list(moments[:1])
    for before, after in pairwise(moments):
        steps += [*_wait(before, after), after]
    return steps


def _wait(before: Moment, after: Moment) -> list[Step]:
    seconds = (_begin(after) - _end(before)).total_seconds()
    lane = after.tried.lane if isinstance(after, Called) else None
    return [Waited(seconds, lane)] if seconds >= WORTH_TELLING else []


def _begin(step: Moment) -> datetime:
    return step.tried.started_at if isinstance(step, Called) else step.at


def _end(step: Moment) -> datetime:
    return _begin(step) + timedelta(seconds=step.tried.latency if isinstance(step, Called) else 0.0)
