"""How long rows are kept."""

from __future__ import annotations

import pytest

from app.clickhouse.retention import changes, ttl_of
from app.settings import load_settings

ENGINE = "ReplacingMergeTree(version) PARTITION BY toYYYYMM(started_at) ORDER BY (workspace_id, request_id)"
THIRTY_DAYS = {"contents": "toDateTime(at) + toIntervalDay(30)"}


def planned(current: dict[str, str], **settings: object) -> list[str]:
    return list(changes(load_settings(**settings), current))


@pytest.mark.parametrize("rest", ["", " SETTINGS index_granularity = 8192"])
def test_the_ttl_is_read_from_the_engine(rest: str) -> None:
    assert ttl_of(f"{ENGINE} TTL toDateTime(started_at) + toIntervalMonth(13){rest}") == (
        "toDateTime(started_at) + toIntervalMonth(13)"
    )
    assert ttl_of(ENGINE + rest) == ""


def test_by_default_the_ledger_is_left_as_it_is() -> None:
    assert planned(THIRTY_DAYS) == []
    assert planned({**THIRTY_DAYS, "attempts": "toDateTime(started_at) + toIntervalMonth(13)"}) == []


def test_content_is_kept_for_thirty_days_unless_told_otherwise() -> None:
    assert planned({}) == ["ALTER TABLE contents MODIFY TTL toDateTime(at) + toIntervalDay(30)"]
    assert planned(THIRTY_DAYS, content_retention_days=0) == ["ALTER TABLE contents REMOVE TTL"]


def test_months_are_for_attempts_outcomes_and_their_figures_alike() -> None:
    found = planned(THIRTY_DAYS, ledger_retention_months=13)
    assert [statement.split()[2] for statement in found] == ["attempts", "outcomes", "usage_hours", "outcome_hours"]
    assert all(statement.endswith("+ toIntervalMonth(13)") for statement in found)


def test_what_is_so_already_is_not_changed_again_and_a_change_is_a_change() -> None:
    current = {**THIRTY_DAYS, "usage_hours": "hour + toIntervalMonth(13)", "outcome_hours": "hour + toIntervalMonth(6)"}
    found = [statement for statement in planned(current, ledger_retention_months=13) if "_hours" in statement]
    assert found == ["ALTER TABLE outcome_hours MODIFY TTL hour + toIntervalMonth(13)"]
