"""Months as periods."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.clickhouse.period import Period


def test_a_month_ends_where_the_next_one_begins() -> None:
    november, december = Period.month("2026-11"), Period.month("2026-12")
    assert november.end == december.start
    assert december.end == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-00", "26-11", "2026-11-01", "0000-01", "November", ""])
def test_anything_else_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match="is not a month"):
        Period.month(text)
