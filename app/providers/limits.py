"""What a provider's answer says of its rate limits, out of its headers. Pure.

OpenAI's and Perplexity's: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, the reset as a duration (`6m0s`).
Anthropic's: `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`, the reset as a
moment (RFC 3339, to the second). Others who speak OpenAI's format put seconds there, or a moment: in Unix seconds, in
Unix milliseconds, or as a date. So each of them is read in each form. What is missing or makes no sense is not read;
nothing here raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from streams.dispatch.ports import UNREAD, Reading, Readings

#: A limit above this is no limit that anybody keeps.
LARGEST = 10**12
#: No word of a provider holds a lane longer than so many seconds: then it is asked again, and says it again.
A_DAY = 86_400.0
#: What a bare number may count in. One that is larger than a day is no span but a moment, since 1970.
_UNITS = (1.0, 0.001)
#: The header `date` is in whole seconds, and has been on its way: up to here it says nothing about the clocks.
DATE_EXACT_TO = timedelta(seconds=2)

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_SECONDS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


def their_time(headers: Mapping[str, str], now: datetime | None = None) -> datetime:
    """The time by which a provider states moments: its header `date` where the machine's clock is apart from that, else
    the machine's clock.
    """
    now = now or datetime.now(UTC)
    try:
        told = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return now
    told = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
    return now if abs(told - now) <= DATE_EXACT_TO else told


def read_limits(headers: Mapping[str, str], now: datetime) -> Readings:
    """The readings of an answer's headers, whose names any case may have."""
    if "x-ratelimit-limit-requests" in headers or "x-ratelimit-limit-tokens" in headers:
        return Readings(_openai(headers, "requests", now), _openai(headers, "tokens", now))
    if "anthropic-ratelimit-requests-limit" in headers or "anthropic-ratelimit-tokens-limit" in headers:
        return Readings(_anthropic(headers, "requests", now), _anthropic_tokens(headers, now))
    if "anthropic-ratelimit-input-tokens-limit" in headers:
        return Readings(None, _anthropic_tokens(headers, now))
    return UNREAD


def _openai(headers: Mapping[str, str], what: str, now: datetime) -> Reading | None:
    return _reading(
        headers.get(f"x-ratelimit-limit-{what}"),
        headers.get(f"x-ratelimit-remaining-{what}"),
        seconds_until(headers.get(f"x-ratelimit-reset-{what}"), now),
    )


def _anthropic(headers: Mapping[str, str], what: str, now: datetime) -> Reading | None:
    return _reading(
        headers.get(f"anthropic-ratelimit-{what}-limit"),
        headers.get(f"anthropic-ratelimit-{what}-remaining"),
        seconds_until(headers.get(f"anthropic-ratelimit-{what}-reset"), now),
    )


def _anthropic_tokens(headers: Mapping[str, str], now: datetime) -> Reading | None:
    """Both kinds together where it says so; else the kind of which less is left."""
    both = _anthropic(headers, "tokens", now)
    if both is not None:
        return both
    kinds = [_anthropic(headers, "input-tokens", now), _anthropic(headers, "output-tokens", now)]
    return min((kind for kind in kinds if kind), key=lambda kind: kind.remaining / kind.limit, default=None)


def _reading(limit: str | None, remaining: str | None, reset: float | None) -> Reading | None:
    total, left = _whole(limit), _whole(remaining)
    if not total or left is None:
        return None
    return Reading(total, min(left, total), reset)


def _whole(text: str | None) -> int | None:
    """A count, or None for what is none."""
    if text is None or not text.strip().isascii() or not text.strip().isdigit():
        return None
    value = text.strip()
    return int(value) if len(value) <= len(str(LARGEST)) and int(value) <= LARGEST else None


def read_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms`, or from `retry-after` as seconds or as an HTTP date (RFC 9110); others
    write a moment in Unix seconds, or a duration.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None and (seconds := _bare(millis / 1000, now)) is not None:
        return seconds
    return seconds_until(headers.get("retry-after"), now)


def seconds_until(text: str | None, now: datetime) -> float | None:
    """Seconds until a limit is whole again, a day at most: of a duration, a bare number, or a moment in any form. 0 for
    a moment that has passed.
    """
    number = _number(text)
    if number is not None:
        return _bare(number, now)
    seconds = duration(text)
    if seconds is None and (moment := _moment(text)) is not None:
        seconds = max((moment - now).total_seconds(), 0.0)
    return None if seconds is None else min(seconds, A_DAY)


def _bare(number: float, now: datetime) -> float | None:
    """Seconds of a number without a unit: up to a day it is them; above, a moment, if that is within a day of now."""
    if number <= A_DAY:
        return number
    apart = (number * unit - now.timestamp() for unit in _UNITS)
    return next((max(seconds, 0.0) for seconds in apart if abs(seconds) <= A_DAY), None)


def duration(text: str | None) -> float | None:
    """Seconds of `20ms`, `1.5s`, `6m0s`, `1h2m3s`, `1d2h`, or of a bare number."""
    text = (text or "").strip()
    number = _number(text)
    if number is not None:
        return number
    found = _DURATION.fullmatch(text) if text and text.isascii() else None
    if found is None:
        return None
    parts = zip(found.groups(), _SECONDS, strict=True)
    seconds = sum(float(part) * unit for part, unit in parts if part)
    return seconds if math.isfinite(seconds) else None


def _number(text: str | None) -> float | None:
    """A number of seconds that is one."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _moment(text: str | None) -> datetime | None:
    """A date as in ISO 8601 or as in HTTP; without a zone it is in UTC."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read((text or "").strip())
        except ValueError:
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None
