"""What people read of an alert."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.alerts.message import text_of
from schemas.alert import BudgetAlert, SpendAnomaly
from schemas.codec import encode

NOW = datetime(2026, 11, 16, tzinfo=UTC)


def alert(**fields: Any) -> BudgetAlert:
    values = {
        "kind": "ai.budget.alert",
        "workspace_id": "acme",
        "month": "2026-11",
        "threshold": 80,
        "spent": "85.2",
        "budget": "100",
        "percent": 85.2,
        "forecast": "170.4",
        "observed_at": NOW,
    }
    return BudgetAlert.model_validate(values | fields)


def test_a_threshold_is_told_with_its_figures_and_where_the_month_leads() -> None:
    assert text_of(alert()) == (
        "Budget alert: acme has spent $85.20 of $100.00 in 2026-11, which is 85.2 % (threshold 80 %). "
        "At this pace the month ends at $170.40."
    )


def test_a_budget_that_is_exceeded_is_called_so() -> None:
    said = text_of(alert(kind="ai.budget.exceeded", threshold=100, spent="101", percent=101.0))
    assert said.startswith("Budget exceeded: acme has spent $101.00 of $100.00 in 2026-11, which is 101 %")


def test_a_month_that_is_over_leads_nowhere() -> None:
    assert "pace" not in text_of(alert(forecast="85.2"))
    assert "pace" not in text_of(alert(forecast=None))


def anomaly(usual: str) -> SpendAnomaly:
    return SpendAnomaly(
        workspace_id="acme",
        month="2026-11",
        hour=datetime(2026, 11, 16, 13, tzinfo=UTC),
        spent=Decimal(12),
        usual=Decimal(usual),
        budget=Decimal(100),
        observed_at=NOW,
    )


def test_a_remarkable_hour_is_told_beside_the_usual_one() -> None:
    assert text_of(anomaly("1.5")) == (
        "Unusual spend: acme has spent $12.00 in the hour from 2026-11-16 13:00 UTC, 8 times the $1.50 of its usual "
        "hour. Its budget for the month is $100.00."
    )


def test_an_hour_is_told_where_a_usual_one_costs_nothing() -> None:
    assert "far more than the $0 of its usual hour" in text_of(anomaly("0"))


def test_no_text_holds_what_slack_would_take_for_markup() -> None:
    assert not set("<>&") & set(text_of(alert(workspace_id="a.b_c:d@e-f")) + text_of(anomaly("1")))
    assert b"forecast" in encode(alert())
