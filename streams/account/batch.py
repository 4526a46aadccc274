"""When a batch is due, and what it touches. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.usage import UsageEvent
from streams.account.ports import WorkspaceMonth

MAX_DOUBLINGS = 60


@dataclass(frozen=True)
class BatchPolicy:
    """A batch is written when it has `rows`, or when its oldest row has waited `seconds`."""

    rows: int = 5_000
    seconds: float = 1.0
    #: Seconds between two tries while the ledger is away.
    retry: float = 1.0
    max_retry: float = 15.0
    #: Bytes of a batch: answers may be long.
    size: int = 16 * 1024 * 1024

    def retry_wait(self, tries: int) -> float:
        # The exponent is bounded: a float ends at 2 ** 1024, and a ledger may be away for longer than that.
        return min(self.retry * 2.0 ** min(tries - 1, MAX_DOUBLINGS), self.max_retry)

    @property
    def capacity(self) -> int:
        """Rows that are held in memory at most: more than this waits in Kafka."""
        return 2 * self.rows


def months_of(batch: Iterable[UsageEvent]) -> frozenset[WorkspaceMonth]:
    """The months whose cost the batch changes: an attempt counts in the month of its request, as the event says it."""
    return frozenset((usage.workspace_id, usage.budget_month) for usage in batch)
