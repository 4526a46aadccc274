"""A stretch of time of the ledger. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.clickhouse.months import checked, shifted, start_of


@dataclass(frozen=True)
class Period:
    """From `start` until just before `end`, in UTC."""

    start: datetime
    end: datetime

    @classmethod
    def month(cls, text: str) -> Period:
        """The month YYYY-MM. Raises ValueError for anything else."""
        start = start_of(checked(text))
        return cls(start, shifted(start, 1))
