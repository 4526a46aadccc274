"""The period that a command is asked about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from app.audit.ledger import months_of
from app.cli.period import between, chosen, told
from app.clickhouse.period import Period

NOW = datetime(2026, 11, 25, 14, 30, tzinfo=UTC)


def test_without_a_word_it_is_the_last_day() -> None:
    assert chosen(None, None, None, NOW) == Period(NOW - timedelta(days=1), NOW)
    assert chosen("2026-11-01", None, None, NOW) == Period(datetime(2026, 11, 1, tzinfo=UTC), NOW)


def test_days_are_utcs_and_moments_have_a_zone() -> None:
    found = between("2026-11-01", "2026-11-02T01:00:00+02:00")
    assert found == Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, 23, tzinfo=UTC))
    assert told(found) == "2026-11-01 to 2026-11-01 23:00Z"


def test_a_month_is_whole() -> None:
    found = chosen(None, None, "2026-02", NOW)
    assert (found.start, found.end) == (datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("yesterday", "2026-11-02"),
        ("2026-11-31", "2026-12-02"),
        ("2026-11-01T10:00", "2026-11-02"),
        ("2026-11-02",) * 2,
        # The ledger is asked about days around a period, and the calendar has ends.
        ("0001-01-01", "2026-11-02"),
        ("2026-11-01", "9999-12-31T23:59:59Z"),
    ],
)
def test_what_is_no_period_is_refused(start: str, end: str) -> None:
    with pytest.raises(typer.BadParameter):
        between(start, end)


@pytest.mark.parametrize("month", ["2026-13", "0001-01", "9999-12"])
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a month like"):
        chosen(None, None, month, NOW)


@pytest.mark.parametrize(
    ("start", "end", "months"),
    [
        ("2026-11-10", "2026-11-11", ["2026-11"]),
        ("2026-11-30T20:00:00Z", "2026-11-30T21:00:00Z", ["2026-11", "2026-12"]),
        ("2026-12-31", "2027-02-03", ["2026-12", "2027-01", "2027-02"]),
        ("2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", ["2026-10", "2026-11"]),
    ],
)
def test_the_months_of_a_period_are_those_of_any_zone(start: str, end: str, months: list[str]) -> None:
    assert months_of(between(start, end)) == months
