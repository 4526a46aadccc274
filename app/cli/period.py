"""The period that a command is asked about: two moments, a month, or the last hours. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

import typer

from app.clickhouse.period import Period

#: Years of which something can be told: none began before, and nearer to the calendar's ends no day can be added.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_DAY = re.compile(r"^\d{4}-\d\d-\d\d$")


def moment(text: str, option: str) -> datetime:
    """A day (its first moment in UTC), or a moment with a zone. Raises BadParameter."""
    try:
        if _DAY.match(text):
            found = datetime.combine(date.fromisoformat(text), time(), UTC)
        else:
            found = datetime.fromisoformat(text)
        if found.tzinfo is not None and _FIRST <= found <= _LAST:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    example = "2026-11-01 or 2026-11-01T09:30:00Z"
    raise typer.BadParameter(
        f"{text!r} is no day and no moment with a zone; write it like {example}.", param_hint=option
    )


def between(start: str, end: str) -> Period:
    """From the one until just before the other. Raises BadParameter."""
    return _ordered(Period(moment(start, "--from"), moment(end, "--to")))


def chosen(start: str | None, end: str | None, month: str | None, now: datetime) -> Period:
    """What was asked for; without a word, the 24 hours until now. Raises BadParameter."""
    if month is not None:
        if start or end:
            raise typer.BadParameter("give either --month, or --from and --to", param_hint="--month")
        try:
            found = Period.month(month)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.", param_hint="--month") from None
        if not _FIRST <= found.start < _LAST:
            raise typer.BadParameter(f"{month!r} is not a month like 2026-11.", param_hint="--month")
        return found
    until = moment(end, "--to") if end else now
    since = moment(start, "--from") if start else until - timedelta(days=1)
    return _ordered(Period(since, until))


def _ordered(period: Period) -> Period:
    if period.start >= period.end:
        raise typer.BadParameter("--from must be before --to.", param_hint="--from")
    return period


def told(period: Period) -> str:
    """For people: whole days without their hours."""
    return f"{_short(period.start)} to {_short(period.end)}"


def _short(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if at.time() == time() else f"{at:%Y-%m-%d %H:%M}Z"
