"""How values are said on the page. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from app.cli.output import count, money, seconds
from app.web.markup import Html, tag

__all__ = ["clock", "count", "money", "number", "seconds", "state"]


def number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def clock(moment: datetime, now: datetime) -> Html:
    """A moment, in UTC; with its day where that is another one."""
    moment = moment.astimezone(UTC)
    day = "" if moment.date() == now.astimezone(UTC).date() else f"{moment:%Y-%m-%d} "
    return tag("time", f"{day}{moment:%H:%M:%S}", datetime=f"{moment:%Y-%m-%dT%H:%M:%S}Z")


def state(word: str, kind: str) -> Html:
    """A word with a colour that says the same: `good`, `bad`, `warn` or `plain`."""
    return tag("span", word, class_=f"state {kind}")
