"""When a provider wants to be asked again, where it says so in the body of its error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.providers.errors import from_status
from app.providers.retry_delay import told_delay

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo"}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        # Google's, bare and in the list that its interface for OpenAI's format gives.
        (
            {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "x"}, {**INFO, "retryDelay": "34.07s"}],
            },
            34.07,
        ),
        ([{"error": {"code": 429, "details": [{**INFO, "retryDelay": "34s"}]}}], 34.0),
        ({"error": {"details": [{**INFO, "retryDelay": {"seconds": 5}}]}}, 5.0),
        # Gateways.
        ({"error": {"code": 429, "metadata": {"retry_after": 12}}}, 12.0),
        ({"detail": "slow down", "retry_after": "3"}, 3.0),
        ({"retryAfter": "Mon, 30 Nov 2026 12:00:09 GMT"}, 9.0),
        ({"error": {"retry_after_ms": 250}}, 0.25),
        ({"retry_after": 1796040007}, 7.0),
        # What is none.
        ({"retry_after": None, "error": {"message": "busy"}}, None),
        ({"retry_after": True}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": -3}, None),
        ("<html>", None),
        (None, None),
        ({"retry_after": 10**30}, None),
    ],
)
def test_fields_of_an_error_say_when_to_ask_again(body: Any, seconds: float | None) -> None:
    assert told_delay(body, "", NOW) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (
            "Rate limit reached for gpt-4o on requests: Limit 3, Used 3. Please try again in 20s. Visit …",
            20.0,
        ),
        ("Limit 30000, Used 29000. Please try again in 6m0s.", 360.0),
        ("Please try again in 345ms.", 0.345),
        ("Please try again in 1.242s.", 1.242),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Please retry after 5 seconds.", 5.0),
        ("Requests have exceeded the call rate limit. Please retry after 2 minutes.", 120.0),
        ("Too many requests; wait for 12 secs and send again", 12.0),
        ("Please try again in 7h21m3s.", 3_600.0),
        ("You can retry at most 3 times", None),
        ("Try again later.", None),
        ("Please try again. 12 seconds have passed", None),
        ("The model has 20s", None),
    ],
)
def test_a_sentence_says_when_to_ask_again(message: str, seconds: float | None) -> None:
    assert told_delay({}, message, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_a_header_counts_before_the_body_and_only_where_it_is_worth_asking_again() -> None:
    body = {"error": {"message": "Please try again in 20s.", "retry_after": 12}}
    assert from_status(429, {}, body, now=NOW).retry_after == 12.0
    assert from_status(429, {"retry-after": "3"}, body, now=NOW).retry_after == 3.0
    assert from_status(400, {}, body, now=NOW).retry_after is None
