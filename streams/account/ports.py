"""What the sinks need from outside: the ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from schemas.usage import UsageEvent
from streams.account.announced import Announced
from streams.account.answered import Answered
from streams.account.content import Content

#: A workspace and a month (YYYY-MM) of its budget.
WorkspaceMonth = tuple[str, str]
#: A workspace and the beginning of an hour in UTC.
WorkspaceHour = tuple[str, datetime]


class LedgerUnavailableError(Exception):
    """The ledger cannot take rows now. The sink keeps them in Kafka and tries again."""


class LedgerRejectedError(Exception):
    """The ledger refuses this row, and always will."""


class Ledger(Protocol):
    """Rows keyed by workspace and attempt (request, alert): writing one again changes nothing.

    Each method raises LedgerUnavailableError; the ones that write also LedgerRejectedError, for their data.
    """

    async def write(self, batch: Sequence[UsageEvent]) -> None:
        """Store attempts durably."""
        ...

    async def write_outcomes(self, batch: Sequence[Answered]) -> None:
        """Store what became of requests durably."""
        ...

    async def write_alerts(self, batch: Sequence[Announced]) -> None:
        """Store announced alerts durably."""
        ...

    async def write_contents(self, batch: Sequence[Content]) -> None:
        """Store what was asked and answered durably."""
        ...

    async def recount_attempts(self, hours: Collection[WorkspaceHour]) -> None:
        """Bring the hourly figures up to what the attempts of these hours (by their start) say now."""
        ...

    async def recount_outcomes(self, hours: Collection[WorkspaceHour]) -> None:
        """The same for the outcomes of these hours (by their answer)."""
        ...

    async def spent(self, months: Collection[WorkspaceMonth]) -> dict[WorkspaceMonth, Decimal]:
        """Cost so far, in US dollars, each attempt counted once."""
        ...
