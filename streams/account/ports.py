"""What the sink needs from outside: the ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Protocol

from schemas.usage import UsageEvent

#: A workspace and a month (YYYY-MM, UTC).
WorkspaceMonth = tuple[str, str]


class LedgerUnavailableError(Exception):
    """The ledger cannot take rows now. The sink keeps them in Kafka and tries again."""


class LedgerRejectedError(Exception):
    """The ledger refuses this row, and always will."""


class Ledger(Protocol):
    """Rows keyed by workspace and attempt: writing one again changes nothing."""

    async def write(self, batch: Sequence[UsageEvent]) -> None:
        """Store the batch durably. Raises LedgerUnavailableError, or LedgerRejectedError for its data."""
        ...

    async def spent(self, months: Collection[WorkspaceMonth]) -> dict[WorkspaceMonth, Decimal]:
        """Cost so far, in US dollars, each attempt counted once. Raises LedgerUnavailableError."""
        ...
