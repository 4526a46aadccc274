"""An alert as a sentence or two for people. Pure."""

from __future__ import annotations

from decimal import Decimal

from app.cli.output import money
from schemas.alert import Alert, BudgetAlert, SpendAnomaly


def text_of(alert: Alert) -> str:
    """What has happened, with figures. Plain text: a workspace's id holds nothing that Slack would take for markup."""
    return _anomaly(alert) if isinstance(alert, SpendAnomaly) else _threshold(alert)


def _threshold(alert: BudgetAlert) -> str:
    what = "Budget exceeded" if alert.kind == "ai.budget.exceeded" else "Budget alert"
    said = (
        f"{what}: {alert.workspace_id} has spent {money(alert.spent)} of {money(alert.budget)} "
        f"in {alert.month}, which is {alert.percent:g} % (threshold {alert.threshold} %)."
    )
    if alert.forecast is None or alert.forecast <= alert.spent:
        return said
    return f"{said} At this pace the month ends at {money(alert.forecast)}."


def _anomaly(alert: SpendAnomaly) -> str:
    return (
        f"Unusual spend: {alert.workspace_id} has spent {money(alert.spent)} in the hour from "
        f"{alert.hour:%Y-%m-%d %H:%M} UTC, {_times(alert.spent, alert.usual)} the {money(alert.usual)} "
        f"of its usual hour. Its budget for the month is {money(alert.budget)}."
    )


def _times(spent: Decimal, usual: Decimal) -> str:
    return f"{spent / usual:,.0f} times" if usual else "far more than"
