"""What a month will have cost at its end, by the clock of the workspace's time zone. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from schemas.base import Month
from schemas.money import usd

#: A month that has just begun says little: until it is as old as this, its spend is taken for that of so long a time.
LEAST_ELAPSED = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_DECEMBER = 12


def month_bounds(month: Month, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When a month begins, and when the next one does, in UTC."""
    year, number = map(int, month.split("-"))
    begin = datetime(year, number, 1, tzinfo=zone)
    end = datetime(year + 1, 1, 1, tzinfo=zone) if number == _DECEMBER else begin.replace(month=number + 1)
    return begin.astimezone(UTC), end.astimezone(UTC)


def forecast(spent: Decimal, month: Month, zone: ZoneInfo, now: datetime) -> Decimal:
    """US dollars at the end of the month, if it goes on at the pace of the month so far.

    In a straight line over the seconds that the month has by the zone's clock. For a month that is over it is what was
    spent. The first day counts as a whole one, so that a first request does not foretell a fortune.
    """
    begin, end = month_bounds(month, zone)
    if now >= end:
        return usd(spent)
    elapsed = max(now - begin, LEAST_ELAPSED)
    return usd(spent * ((end - begin) // _MICROSECOND) / (elapsed // _MICROSECOND))
