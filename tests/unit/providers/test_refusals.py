"""Whose fault a 4xx is: bodies as servers really send them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.providers.errors import from_status
from app.providers.keys import KeyRing, judge_key
from app.providers.refusals import judge_refusal, words_of
from app.providers.reported import failure_of
from streams.dispatch.ports import ErrorClass, Failure

WALL = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><body>blocked</body></html>"


def error(message: str = "No.", **fields: object) -> dict[str, object]:
    return {"error": {"message": message, **fields}}


def cases() -> list[tuple[str, int, object]]:
    """One a line: what the refusal is, its status, and its body."""
    lines = (Path(__file__).parents[2] / "data" / "refusals.jsonl").read_text(encoding="utf-8").splitlines()
    return [(case["code"], case["status"], case["body"]) for case in map(json.loads, lines)]


CLASSES = {"content_refused": ErrorClass.TERMINAL, "rate_limited": ErrorClass.RETRYABLE}


@pytest.mark.parametrize(("code", "status", "body"), cases())
def test_a_refusal_is_known_by_its_words_and_goes_to_the_next_provider(code: str, status: int, body: object) -> None:
    failure = from_status(status, {}, body)
    assert (failure.code, failure.error_class) == (code, CLASSES.get(code, ErrorClass.FALL_BACK))
    assert not failure.may_be_billed


@pytest.mark.parametrize("status", [status for status in range(400, 500) if status not in (408, 409, 425, 429)])
def test_every_other_4xx_without_a_word_falls_back(status: int) -> None:
    assert judge_refusal(status, None)[0] is ErrorClass.FALL_BACK


def test_the_same_error_in_a_stream_is_the_same_refusal() -> None:
    body = {"error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."}}
    failure = failure_of(body)
    assert (failure.code, failure.error_class) == ("quota_exhausted", ErrorClass.FALL_BACK)


def test_an_error_with_the_status_200_says_which_field_it_refuses() -> None:
    body = {"error": {"code": 400, "message": "Unsupported parameter.", "param": "temperature"}}
    failure = failure_of(body)
    assert failure.is_refusal
    assert failure.fields == ("temperature",)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": [{"msg": "Field required", "input": "a prompt"}]}, "Field required"),
        ({"object": "error", "message": "too bad"}, "too bad"),
        ([{"error": {"message": "in a list"}}], "in a list"),
        ("plain words", "plain words"),
        ({"error": "a text"}, "a text"),
        ({"errors": [{"message": "one of some"}]}, "one of some"),
        (WALL, ""),
        ({"error": {}}, ""),
        (None, ""),
    ],
)
def test_the_response_says_why_in_the_servers_words(body: object, words: str) -> None:
    assert words_of(body) == words
    assert from_status(400, {}, body).message == (words or "The provider answered with HTTP status 400.")


@pytest.mark.parametrize(
    "body", [WALL, error('Your input was flagged for "violence".'), error("You do not have access to model m")]
)
def test_a_403_that_is_not_about_the_key_rests_none(body: object) -> None:
    ring = KeyRing("X", "sk-a,sk-b")
    for _ in range(4):
        failure = judge_key(from_status(403, {}, body), ring.take(), ring)
        assert failure.code != "key_refused"
        assert not failure.is_outage
    assert {key.value for key in (ring.take(), ring.take()) if key} == {"sk-a", "sk-b"}


def test_an_account_that_is_used_up_rests_its_key_and_counts_as_an_outage() -> None:
    def refused(ring: KeyRing) -> Failure:
        return judge_key(
            from_status(400, {}, error("You have reached your specified API usage limits.")), ring.take(), ring
        )

    ring = KeyRing("X", "sk-a,sk-b")
    assert refused(ring).code == "key_refused"
    last = refused(ring)
    assert (last.code, last.error_class, last.is_outage) == ("quota_exhausted", ErrorClass.FALL_BACK, True)
