"""Which budget alerts a workspace's spend calls for. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from schemas.alert import BudgetAlert, WorkspaceSpend
from schemas.money import usd

FULL = 100


@dataclass(frozen=True)
class BudgetPolicy:
    """A monthly budget in US dollars, and the percentages of it that are announced."""

    budget: Decimal
    thresholds: tuple[int, ...] = (50, 80, 90, 100)


def crossed(
    spend: WorkspaceSpend, announced: Collection[int], policy: BudgetPolicy, now: datetime
) -> tuple[BudgetAlert, ...]:
    """An alert for each threshold that is reached and not announced yet, the lowest first.

    Exact: the comparison is between decimals, so 50 % of the budget is reached at 50 % and not near it.
    """
    return tuple(
        _alert(spend, threshold, policy, now)
        for threshold in sorted(set(policy.thresholds))
        if threshold not in announced and spend.spent * FULL >= policy.budget * threshold
    )


def _alert(spend: WorkspaceSpend, threshold: int, policy: BudgetPolicy, now: datetime) -> BudgetAlert:
    return BudgetAlert(
        kind="ai.budget.exceeded" if threshold >= FULL else "ai.budget.alert",
        workspace_id=spend.workspace_id,
        month=spend.month,
        threshold=threshold,
        spent=spend.spent,
        budget=usd(policy.budget),
        percent=float(round(spend.spent * FULL / policy.budget, 2)),
        observed_at=now,
    )
