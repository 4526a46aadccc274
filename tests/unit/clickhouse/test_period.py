"""Months of the report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.clickhouse.report import Period


def test_a_month_ends_where_the_next_one_begins() -> None:
    november, december = Period.month("2026-11"), Period.month("2026-12")
    assert november.end == december.start
    assert december.end == datetime(2027, 1, 1, tzinfo=UTC)


def test_the_month_of_a_moment_is_the_one_in_utc() -> None:
    east = datetime(2026, 12, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert Period.month_of(east) == Period.month("2026-11")


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-00", "26-11", "2026-11-01", "0000-01", "November", ""])
def test_anything_else_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match="is not a month"):
        Period.month(text)
