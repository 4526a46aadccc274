"""Months of budgets, and where their rows are. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 1, tzinfo=UTC)


def shifted(moment: datetime, months: int) -> datetime:
    """The beginning of the month that is so many after the moment's; at the ends of the calendar, these."""
    count = moment.year * 12 + moment.month - 1 + months
    year, month = divmod(count, 12)
    if year < _FIRST.year:
        return _FIRST
    return datetime(year, month + 1, 1, tzinfo=UTC) if year <= _LAST.year else _LAST


def start_of(month: str) -> datetime:
    """The first moment, in UTC, of a month like 2026-11."""
    return datetime(int(month[:4]), int(month[5:7]), 1, tzinfo=UTC)


def around(months: Collection[str]) -> tuple[datetime, datetime]:
    """Between which moments whatever counts in these budget months has begun: a request is admitted in its month by the
    workspace's clock, and an attempt may begin later than that.
    """
    return shifted(start_of(min(months)), -1), shifted(start_of(max(months)), 2)
