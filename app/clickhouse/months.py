"""Months of budgets, and where their rows are. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from streams.forecast import forecast

_MONTH = re.compile(r"^(\d{4})-(0[1-9]|1[0-2])$")
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 1, tzinfo=UTC)


def checked(text: str) -> str:
    """The month itself. Raises ValueError for anything else."""
    if _MONTH.match(text) is None or text.startswith("0000"):
        raise ValueError(f"{text!r} is not a month like 2026-11")
    return text


def month_of(moment: datetime) -> str:
    """The month of a moment, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m}"


def start_of(month: str) -> datetime:
    """The first moment, in UTC, of a month like 2026-11."""
    return datetime(int(month[:4]), int(month[5:7]), 1, tzinfo=UTC)


def shifted(moment: datetime, months: int) -> datetime:
    """The beginning of the month that is so many after the moment's; at the ends of the calendar, these."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if year < _FIRST.year:
        return _FIRST
    return datetime(year, month + 1, 1, tzinfo=UTC) if year <= _LAST.year else _LAST


def last_moment(month: str) -> datetime:
    """Of the month, in UTC."""
    return shifted(start_of(month), 1) - timedelta(microseconds=1)


def around(months: Collection[str]) -> tuple[datetime, datetime]:
    """Between which moments whatever counts in these budget months has begun: a request is admitted in its month by the
    workspace's clock, and an attempt may begin later than that.
    """
    return shifted(start_of(min(months)), -1), shifted(start_of(max(months)), 2)


def at_this_pace(month: str, cost: Decimal, now: datetime) -> Decimal | None:
    """What the month will cost at the pace so far, in US dollars; None where nothing was spent.

    The months of all workspaces are taken as those in UTC here; the alerts know each one's own clock.
    """
    return forecast(cost, month, ZoneInfo("UTC"), now) if cost else None
