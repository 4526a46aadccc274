"""When to ask again, where an error says it in its body: for servers that send no `retry-after`.

Google's errors hold a `RetryInfo` with a `retryDelay`; gateways have a `retry_after` beside the message or in its
metadata; OpenAI, Groq and others write it into the message ("Please try again in 6m0s").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from app.providers.limits import A_DAY, duration, seconds_until

#: The longest wait that is taken from a sentence, which may quote what an application has sent.
AN_HOUR = 3_600.0
_DEEPEST = 4

_FIELDS = (
    "retryDelay",
    "retry_delay",
    "retry_after",
    "retryAfter",
    "retry-after",
    "Retry-After",
    "retry_after_seconds",
)
_MILLIS = ("retry_after_ms", "retryAfterMs")
_SENTENCE = re.compile(
    r"\b(?:try again|retry|wait)\b[^.\d]{0,30}?((?:\d[\d.]*(?:ms|[dhms]))+|\d[\d.]*)"
    r"\s?(milliseconds?|seconds?|secs?|minutes?|mins?|hours?)?\b",
    re.IGNORECASE,
)
_WORDS = {"mil": 0.001, "sec": 1.0, "min": 60.0, "hou": 3_600.0}


def told_delay(body: object, message: str, now: datetime) -> float | None:
    """Seconds until it is worth asking again, as an error's body says; None where it does not."""
    for inner in _objects(body):
        for name in _FIELDS:
            if (seconds := _seconds(inner.get(name), now)) is not None:
                return min(seconds, A_DAY)
        for name in _MILLIS:
            millis = inner.get(name)
            if isinstance(millis, int | float) and not isinstance(millis, bool) and millis >= 0:
                return min(millis / 1000, A_DAY)
    return _in_words(message)


def _objects(value: object, depth: int = 0) -> Iterator[Mapping[str, object]]:
    """The objects of a body, the outer ones first."""
    if isinstance(value, Mapping):
        yield value
    parts = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    for part in parts if depth < _DEEPEST else ():
        yield from _objects(part, depth + 1)


def _seconds(value: object, now: datetime) -> float | None:
    """Of a number, a duration, a moment, or `{"seconds": 5}`, as Google's libraries write it."""
    if isinstance(value, Mapping):
        value = value.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return seconds_until(str(value), now)


def _in_words(message: str) -> float | None:
    for found in _SENTENCE.finditer(message[:2_000]):
        number, word = found[1].rstrip("."), (found[2] or "")[:3].lower()
        seconds = duration(number)
        # A bare number says nothing without its unit.
        if seconds is None or not (word or number[-1].isalpha()):
            continue
        return min(seconds * _WORDS.get(word, 1.0), AN_HOUR)
    return None
