"""The calendar, for tests of programs that ask the clock themselves."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

#: Seconds that a test of "this month" may take.
ENOUGH = 40.0


def wait_for_a_month_with_time_left(seconds: float = ENOUGH) -> None:
    """Return at once; where the month (in UTC) is over within so many seconds, when the next one has begun."""
    left = seconds_left(datetime.now(UTC))
    if left < seconds:
        time.sleep(left + 0.1)


def seconds_left(now: datetime) -> float:
    """Until the first moment of the next month. Pure."""
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((begin + timedelta(days=32)).replace(day=1) - now).total_seconds()
