"""An alert as the ledger keeps it, whatever its kind."""

from __future__ import annotations

from typing import Any, ClassVar

from schemas.base import Event, Moment, Month, WorkspaceId
from schemas.codec import decode, header
from schemas.money import Usd


class Announced(Event):
    """What all alerts have in common, and what some of them have."""

    ce_type: ClassVar[str] = "ai.budget.alert"

    workspace_id: WorkspaceId
    kind: str
    month: Month
    #: The record's CloudEvents id, the same in each repeat.
    event_id: str = ""
    threshold: int | None = None
    spent: Usd
    budget: Usd | None = None
    percent: float | None = None
    forecast: Usd | None = None
    observed_at: Moment


def read_announced(record: Any) -> Announced:
    """The alert in a record of Kafka. Raises UndecodableError."""
    alert = decode(Announced, record.value)
    told = header(record.headers or (), "ce_id")
    event_id = told.decode(errors="replace") if told else f"{alert.month}/{alert.kind}/{alert.threshold or 0}"
    return alert.model_copy(update={"event_id": event_id})
