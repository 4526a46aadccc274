"""The provider's word on its limits, in every dialect, and in none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.errors import from_status
from app.providers.limits import A_DAY, duration, read_limits, read_wait, seconds_until, their_time
from streams.dispatch.ports import UNREAD, Reading, Readings

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
UNIX = int(NOW.timestamp())
OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-tokens": "149000",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-23T12:00:02Z",
    "anthropic-ratelimit-input-tokens-limit": "1000",
    "anthropic-ratelimit-input-tokens-remaining": "900",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-23T11:59:00Z",
    "anthropic-ratelimit-output-tokens-limit": "200",
    "anthropic-ratelimit-output-tokens-remaining": "20",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-23T12:01:00Z",
}


def test_openais_headers_are_read() -> None:
    assert read_limits(OPENAI, NOW) == Readings(Reading(500, 499, 0.12), Reading(150_000, 149_000, 360.0))


def test_of_anthropics_two_kinds_of_tokens_the_scarcer_one_counts() -> None:
    assert read_limits(ANTHROPIC, NOW) == Readings(Reading(50, 49, 2.0), Reading(200, 20, 60.0))


def test_anthropics_tokens_together_come_before_the_kinds() -> None:
    both = {f"anthropic-ratelimit-tokens-{name}": value for name, value in (("limit", "100"), ("remaining", "7"))}
    assert read_limits(ANTHROPIC | both, NOW).tokens == Reading(100, 7)


def test_the_sdks_own_headers_are_found_in_any_case() -> None:
    headers = httpx2.Headers({name.title(): value for name, value in OPENAI.items()})
    assert read_limits(headers, NOW).requests == Reading(500, 499, 0.12)


def test_an_error_status_carries_its_readings() -> None:
    assert from_status(429, OPENAI, {}, now=NOW).readings.requests == Reading(500, 499, 0.12)


def test_an_answer_without_such_headers_says_nothing() -> None:
    assert read_limits({"content-type": "application/json"}, NOW) is UNREAD


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2d", 172_800.0),
        ("7", 7.0),
        ("1m30s", 90.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [None, "", "soon", "-1s", "1 fortnight", "nan", "inf", "٣s"])
def test_what_is_no_duration_is_not_read(text: str | None) -> None:
    assert duration(text) is None


@pytest.mark.parametrize("limit", ["0", "-5", "many", "", "1e3", "9" * 400, "٣"])
def test_a_limit_that_makes_no_sense_is_not_read(limit: str) -> None:
    assert read_limits(OPENAI | {"x-ratelimit-limit-requests": limit}, NOW).requests is None


def test_more_left_than_there_is_means_all_of_it() -> None:
    assert read_limits(OPENAI | {"x-ratelimit-remaining-requests": "900"}, NOW).requests == Reading(500, 500, 0.12)


@given(st.dictionaries(st.sampled_from([*OPENAI, *ANTHROPIC]), st.text(max_size=30)))
def test_nothing_in_these_headers_is_ever_an_error(headers: dict[str, str]) -> None:
    assert isinstance(read_limits(headers, NOW), Readings)


@pytest.mark.parametrize("apart", [-300, 300, 86_400])
def test_moments_are_read_by_the_provider_s_own_time_where_the_machine_s_clock_is_wrong(apart: int) -> None:
    headers = ANTHROPIC | {"date": "Mon, 23 Nov 2026 12:00:00 GMT"}
    assert their_time(headers, NOW + timedelta(seconds=apart)) == NOW


@pytest.mark.parametrize("date", ["Mon, 23 Nov 2026 11:59:59 GMT", "", "soon"])
def test_a_date_that_says_nothing_about_the_clock_costs_no_exactness(date: str) -> None:
    now = NOW + timedelta(milliseconds=700)
    assert their_time({"date": date}, now) == now
    assert their_time({}, now) == now


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60.0),
        ("86400", A_DAY),
        (f"{UNIX + 45}", 45.0),
        (f"{UNIX + 45}.5", 45.5),
        (f"{(UNIX + 45) * 1000}", 45.0),
        (f"{UNIX - 45}", 0.0),
        (f"{UNIX + 86_400}", A_DAY),
        (f"{UNIX + 86_401}", None),
        (f"{UNIX - 86_401}", None),
        (f"{(UNIX + 45) * 1_000_000}", None),
        ("86401", None),
        ("1e300", None),
        ("2026-11-23T12:00:45Z", 45.0),
        ("2026-11-23T12:00:45", 45.0),
        ("2026-11-23T13:00:45+01:00", 45.0),
        ("Mon, 23 Nov 2026 12:00:45 GMT", 45.0),
        ("2026-12-23T12:00:00Z", A_DAY),
        ("9999-12-31T23:59:59Z", A_DAY),
        ("2020-01-01T00:00:00Z", 0.0),
        ("1d2h", A_DAY),
        ("23h59m", 86_340.0),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_reset_is_read_in_every_form_and_never_longer_than_a_day(text: str | None, seconds: float | None) -> None:
    assert seconds_until(text, NOW) == seconds
    for names in (OPENAI, ANTHROPIC):
        resets = {name: text for name in names if "reset" in name and text is not None}
        found = read_limits({name: value for name, value in names.items() if "reset" not in name} | resets, NOW)
        assert found.requests is not None
        assert found.requests.reset == seconds


@given(st.floats() | st.integers() | st.text(max_size=30))
def test_no_reset_is_ever_longer_than_a_day(value: object) -> None:
    seconds = seconds_until(str(value), NOW)
    assert seconds is None or 0.0 <= seconds <= A_DAY


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "1250"}, 1.25),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "x", "retry-after": "4"}, 4.0),
        ({"retry-after": f"{UNIX + 30}"}, 30.0),
        ({"retry-after": f"{(UNIX + 30) * 1000}"}, 30.0),
        ({"retry-after-ms": f"{(UNIX + 30) * 1000}"}, 30.0),
        ({"retry-after": "2026-11-23T12:00:30Z"}, 30.0),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "Wed, 25 Nov 2026 12:00:00 GMT"}, A_DAY),
        ({"retry-after": "31536000"}, None),
    ],
)
def test_the_wait_is_read_in_every_form_of_the_header(headers: dict[str, str], seconds: float | None) -> None:
    assert read_wait(headers, NOW) == seconds
