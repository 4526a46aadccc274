"""Tests at the end of a month."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from app.clickhouse.period import Period


def this_month() -> str:
    """As money is counted: by the clock in UTC."""
    return f"{datetime.now(UTC):%Y-%m}"


async def in_one_month(seconds: float) -> str:
    """The month that the next so many seconds are in. When it would end within them, it is waited for the next one:
    what is counted by the month would be counted in two.
    """
    left = (Period.month(this_month()).end - datetime.now(UTC)).total_seconds()
    if left < seconds:
        await asyncio.sleep(left + 1.0)
    return this_month()
