"""What a simulation comes to: cost, refusals and waits, then and under the proposal. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from app.simulate.history import Past, cost_of
from app.simulate.run import Fate


@dataclass(frozen=True)
class Waits:
    """Seconds from the request to its first call; None where nobody was called."""

    p50: float | None
    p95: float | None
    longest: float | None

    @classmethod
    def of(cls, waits: Iterable[float]) -> Waits:
        ordered = sorted(waits)
        if not ordered:
            return cls(None, None, None)
        return cls(_rank(ordered, 0.5), _rank(ordered, 0.95), ordered[-1])


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True)
class Finding:
    """One workspace, or all. Costs in US dollars; `then` is what the ledger says."""

    name: str
    requests: int
    attempts: int
    attempts_made: int
    then: Decimal
    cost: Decimal
    refused: int
    expired: int
    first_refused: datetime | None
    waits_then: Waits
    waits: Waits

    @property
    def difference(self) -> Decimal:
        return self.cost - self.then


def finding(name: str, pasts: Sequence[Past], fates: Sequence[Fate]) -> Finding:
    """`pasts` are as they were, `fates` what becomes of the same requests."""
    refusals = [fate.past.requested_at for fate in fates if fate.refused]
    return Finding(
        name=name,
        requests=len(pasts),
        attempts=sum(len(past.attempts) for past in pasts),
        attempts_made=sum(len(fate.paid) for fate in fates),
        then=cost_of(pasts),
        cost=sum((fate.cost for fate in fates), Decimal(0)),
        refused=len(refusals),
        expired=sum(fate.expired for fate in fates),
        first_refused=datetime.fromtimestamp(min(refusals), UTC) if refusals else None,
        waits_then=Waits.of(past.pause_before(0) for past in pasts),
        waits=Waits.of(fate.waited for fate in fates if fate.waited is not None),
    )


def by_workspace(pasts: Sequence[Past], fates: Sequence[Fate]) -> list[Finding]:
    """A finding for each workspace, the dearest first."""
    own: dict[str, tuple[list[Past], list[Fate]]] = {}
    for past, fate in zip(pasts, fates, strict=True):
        mine, its = own.setdefault(past.workspace, ([], []))
        mine.append(past)
        its.append(fate)
    found = [finding(name, *parts) for name, parts in own.items()]
    return sorted(found, key=lambda each: (-each.then, each.name))
