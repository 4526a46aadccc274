"""A request as it is published: what was said, and nothing else."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from app.client.errors import InvalidRequestError, RequestExpired, RequestFailed, RequestRejected, checked
from app.client.outgoing import Outgoing, outgoing
from schemas.request import CacheOptions, Message
from schemas.response import Error, Status
from streams.admit.parse import Parsed, Raw, parse
from tests.unit.client.making import NOW, response


def make(timeout: float | None = 30.0, reply_to: str | None = "ai.replies", **fields: Any) -> Outgoing:
    return outgoing(fields, workspace_id="acme", timeout=timeout, reply_to=reply_to, now=NOW)


def body(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(make(**fields).value)
    return found


def test_defaults_are_left_to_the_deployment() -> None:
    assert set(body(prompt="hi")) == {"kind", "prompt", "request_id", "workspace_id", "deadline", "reply_to"}


def test_what_nobody_waits_for_has_no_deadline_and_no_reply_address() -> None:
    assert set(body(prompt="hi", timeout=None, reply_to=None)) == {"kind", "prompt", "request_id", "workspace_id"}


def test_the_time_out_is_the_deadline() -> None:
    made = make(prompt="hi", timeout=2.5)
    assert made.timeout == 2.5
    assert json.loads(made.value)["deadline"] == (NOW + timedelta(seconds=2.5)).isoformat().replace("+00:00", "Z")


def test_a_request_says_more_than_its_client() -> None:
    made = make(prompt="hi", workspace_id="globex", request_id="job-1", timeout=1.0)
    assert (made.workspace_id, made.request_id, made.timeout) == ("globex", "job-1", 1.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [Message(role="user", content="hi"), {"role": "assistant", "content": "ho"}], "stop": ["x"]},
        {"prompt": "hi", "cache": CacheOptions(ttl=5), "priority": "batch", "preferred_providers": ["openai"]},
        {"prompt": "hi", "tools": [{"type": "function"}], "response_format": {"type": "json_object"}},
        {"kind": "embedding", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64"},
        {"kind": "search", "query": "tides", "recency": "week", "domains_include": ["shom.fr"]},
        {"prompt": "hi", "metadata": {"a": "b"}, "provider_options": {"openai": {"top_p": 1}}, "user_id": "u"},
    ],
    ids=["messages", "options", "tools", "embedding", "search", "rest"],
)
def test_admission_reads_what_is_published(fields: dict[str, Any]) -> None:
    made = make(**fields)
    read = parse(Raw(made.value, made.headers, "t-0-0"), max_bytes=900_000)
    assert isinstance(read, Parsed)
    for name in fields:
        assert json.loads(made.value)[name] is not None
        assert getattr(read.request, name)
    assert read.envelope.reply is not None
    assert read.envelope.reply.topic == "ai.replies"


def test_a_trace_goes_on() -> None:
    assert ("traceparent", b"00-1-2-01") in make(prompt="hi", traceparent="00-1-2-01").headers


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "give either `messages`"),
        ({"prompt": "secret", "messages": [{"role": "user", "content": "secret"}]}, "not both"),
        ({"prompt": "secret", "temperature": 3}, "temperature"),
        ({"prompt": "secret", "temprature": 0.1}, "temprature: not known"),
        ({"prompt": "secret", "timeout": 0}, "timeout"),
        ({"kind": "telepathy"}, "kind: use one of"),
        ({"prompt": "secret", "workspace_id": "a b"}, "workspace_id"),
        ({"prompt": "secret", "provider_options": {"openai": {"n": 2**70}}}, "cannot be written as JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_request_is_told_before_it_is_published(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        make(**fields)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(Status.REJECTED, RequestRejected), (Status.FAILED, RequestFailed), (Status.EXPIRED, RequestExpired)],
)
def test_an_error_carries_its_response(status: Status, kind: type[Exception]) -> None:
    found = response(None, status=status, error=Error(code="c", message="Why.", retryable=True))
    with pytest.raises(kind, match=r"Why\.") as caught:
        checked(found)
    error: Any = caught.value
    assert (error.response, error.code, error.retryable, error.request_id) == (found, "c", True, "r-1")


def test_a_success_is_handed_on() -> None:
    assert checked(response()).content == "whole"


@pytest.mark.parametrize("timeout", [float("inf"), 1e15, 1e300])
def test_a_time_out_that_no_calendar_holds_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"^timeout: "):
        make(prompt="hi", timeout=timeout)
