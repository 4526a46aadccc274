"""What the page shows, before it is HTML: plain values, whoever they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from app.dlq.letters import Letter
from app.dlq.notes import Notes
from schemas.budget import BudgetState
from schemas.control import LaneState, Mode
from streams.budgets import BudgetBook
from streams.topology import Lane


@dataclass(frozen=True)
class Minute:
    """Terminal responses of one minute."""

    at: datetime
    succeeded: int = 0
    cached: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Flow:
    """Terminal responses: by minute, oldest first, and of the last few minutes together. Latencies are in seconds."""

    minutes: tuple[Minute, ...] = ()
    answered: int = 0
    succeeded: int = 0
    cached: int = 0
    failed: int = 0
    p50: float | None = None
    p95: float | None = None


@dataclass(frozen=True)
class HourCost:
    """What a provider's model cost in an hour, in US dollars."""

    hour: datetime
    provider: str
    model: str
    attempts: int
    tokens: int
    cost: Decimal


@dataclass(frozen=True)
class Tried:
    """One attempt at a provider."""

    number: int
    provider: str
    model: str
    lane: str
    outcome: str
    error_code: str | None
    tokens: int
    cost: Decimal
    cost_source: str
    started_at: datetime
    latency: float


@dataclass(frozen=True)
class Answered:
    """A request and what became of it. No prompt and no answer is in it."""

    workspace: str
    request_id: str
    kind: str
    status: str
    error_code: str | None
    provider: str | None
    model: str | None
    purpose: str | None
    cached: bool
    tokens: int
    cost: Decimal
    saved: Decimal
    requested_at: datetime | None
    answered_at: datetime
    latency: float
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """What ClickHouse knows. `at` is when it was asked, None before the first answer; `problem` why it is not newer."""

    flow: Flow = Flow()
    costs: tuple[HourCost, ...] = ()
    latest: tuple[Answered, ...] = ()
    at: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Streams:
    """What Kafka knows. `waiting` is records that are not acknowledged yet, by what they wait for."""

    book: BudgetBook
    lanes: Mapping[str, LaneState] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    states: Mapping[str, BudgetState] = field(default_factory=dict)
    letters: tuple[Letter, ...] = ()
    #: Which letters have been sent again.
    notes: Notes = field(default_factory=Notes)
    waiting: Mapping[str, int] = field(default_factory=dict)
    lane_backlog: Mapping[str, int] = field(default_factory=dict)
    #: Requests that came in the last minute; None until that long was watched.
    arriving: int | None = None
    at: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Seen:
    """All of it, at one moment. `lanes` are those that this deployment has."""

    now: datetime
    streams: Streams
    ledger: Ledger
    lanes: tuple[Lane, ...] = ()
