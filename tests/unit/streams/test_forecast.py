"""What a month will have cost at its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.budgets import Budget
from streams.forecast import forecast, month_bounds

ZONES = ("UTC", "Europe/Vienna", "Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata", "America/Havana")
UTC_ZONE = ZoneInfo("UTC")


@pytest.mark.parametrize(
    ("month", "zone", "begin", "end"),
    [
        ("2026-11", "UTC", datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12", "UTC", datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-10", "Europe/Vienna", datetime(2026, 9, 30, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ("2026-03", "Europe/Vienna", datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC)),
    ],
)
def test_a_month_is_as_long_as_the_zones_clock_makes_it(month: str, zone: str, begin: datetime, end: datetime) -> None:
    assert month_bounds(month, ZoneInfo(zone)) == (begin, end)


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_moment_lies_within_its_month(zone: str, moment: datetime) -> None:
    begin, end = month_bounds(Budget(Decimal(1), time_zone=zone).month_of(moment), ZoneInfo(zone))
    assert begin <= moment < end


@given(st.sampled_from(ZONES), st.integers(2020, 2035), st.integers(1, 12))
def test_the_month_turns_at_the_same_instant_for_the_budget_and_the_forecast(zone: str, year: int, month: int) -> None:
    named, budget = f"{year}-{month:02}", Budget(Decimal(1), time_zone=zone)
    _, end = month_bounds(named, ZoneInfo(zone))
    instant = timedelta(microseconds=1)
    assert budget.month_of(end - instant) == named
    assert budget.month_of(end) > named
    assert forecast(Decimal(7), named, ZoneInfo(zone), end) == 7
    assert forecast(Decimal(7), named, ZoneInfo(zone), end - timedelta(hours=1)) > 7


def test_it_goes_on_at_the_pace_of_the_month_so_far() -> None:
    assert forecast(Decimal(10), "2026-11", UTC_ZONE, datetime(2026, 11, 11, tzinfo=UTC)) == 30


def test_the_first_day_counts_as_a_whole_one() -> None:
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    seen = {forecast(Decimal(1), "2026-11", UTC_ZONE, begin + timedelta(hours=hours)) for hours in (-5, 0, 1, 24)}
    assert seen == {Decimal(30)}


@given(st.decimals(0, 10**9, places=9), st.timedeltas(timedelta(days=-1), timedelta(days=40)))
def test_it_is_never_below_what_was_spent_nor_above_a_month_of_first_days(spent: Decimal, age: timedelta) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC) + age
    assert spent <= forecast(spent, "2026-11", UTC_ZONE, now) <= spent * 30
