"""Months of budgets and of the report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clickhouse.months import around, at_this_pace, checked, month_of, shifted, start_of

MONTHS = st.builds("{:04d}-{:02d}".format, st.integers(1, 9999), st.integers(1, 12))


def test_the_month_of_a_moment_is_the_one_in_utc() -> None:
    east = datetime(2026, 12, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert month_of(east) == "2026-11"


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-00", "26-11", "2026-11-01", "0000-01", "November", ""])
def test_anything_else_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match="is not a month"):
        checked(text)


@given(MONTHS)
def test_a_month_is_itself_and_shifting_there_and_back_comes_home(month: str) -> None:
    assert checked(month) == month
    if "0001-01" < month < "9999-12":
        assert shifted(shifted(start_of(month), 1), -1) == start_of(month) == shifted(shifted(start_of(month), -1), 1)


def test_rows_of_a_budget_month_are_looked_for_in_its_neighbours_as_well() -> None:
    assert around({"2026-12"}) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC))
    assert around({"2026-12", "2027-03"})[1] == datetime(2027, 5, 1, tzinfo=UTC)


@given(MONTHS)
def test_every_month_can_be_looked_for(month: str) -> None:
    start, end = around({month})
    assert start <= start_of(month) <= end


def test_a_forecast_is_that_of_the_alerts_for_a_month_in_utc() -> None:
    middle = datetime(2026, 11, 16, tzinfo=UTC)
    assert at_this_pace("2026-11", Decimal(10), middle) == Decimal(20)


@pytest.mark.parametrize("month", ["2026-11", "9999-12", "0001-01"])
def test_where_nothing_was_spent_nothing_is_foretold(month: str) -> None:
    assert at_this_pace(month, Decimal(0), datetime(2026, 11, 16, tzinfo=UTC)) is None
