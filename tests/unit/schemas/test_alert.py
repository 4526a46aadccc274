"""Alerts as they are read from their topic."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.alert import BudgetAlert, SpendAnomaly, read_alert
from schemas.codec import UndecodableError, encode

NOW = datetime(2026, 11, 23, 7, 5, tzinfo=UTC)
CROSSED = BudgetAlert(
    kind="ai.budget.alert",
    workspace_id="acme",
    month="2026-11",
    threshold=80,
    spent="81",
    budget="100",
    percent=81.0,
    observed_at=NOW,
)
REMARKABLE = SpendAnomaly(
    workspace_id="acme",
    month="2026-11",
    hour=NOW.replace(minute=0),
    spent="12",
    usual="1",
    budget="100",
    observed_at=NOW,
)


@pytest.mark.parametrize("alert", [CROSSED, CROSSED.model_copy(update={"occurrence": 2}), REMARKABLE])
def test_an_alert_is_read_as_what_it_was(alert: BudgetAlert | SpendAnomaly) -> None:
    assert read_alert(encode(alert)) == alert


def test_alerts_of_one_workspace_have_names_of_their_own() -> None:
    again = CROSSED.model_copy(update={"occurrence": 2})
    assert [alert.event_id for alert in (CROSSED, again, REMARKABLE)] == [
        "acme/2026-11/80",
        "acme/2026-11/80/2",
        "acme/2026-11-23T07/anomaly",
    ]


@pytest.mark.parametrize("value", [None, b"", b"nonsense", b"{}", b'{"kind": "ai.budget.party"}'])
def test_what_is_no_alert_is_said_to_be_none(value: bytes | None) -> None:
    with pytest.raises(UndecodableError):
        read_alert(value)
