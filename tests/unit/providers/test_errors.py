"""What a failure of a provider becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

import aiohttp
import anthropic
import httpx
import httpx2
import openai
import pytest

from app.providers.errors import from_exception, from_status
from app.providers.redact import MESSAGE_LIMIT, mask_keys, without_secrets
from schemas.request import CompletionRequest
from streams.dispatch.ports import ErrorClass, Failure

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RETRYABLE, FALL_BACK, TERMINAL = ErrorClass.RETRYABLE, ErrorClass.FALL_BACK, ErrorClass.TERMINAL
SENT = httpx2.Request("POST", "https://provider.example/v1")


def told(kind: str = "", code: str | None = None, message: str = "No.") -> dict[str, object]:
    return {"error": {"type": kind, "code": code, "message": message}}


@pytest.mark.parametrize(
    ("status", "body", "error_class", "code"),
    [
        (302, None, FALL_BACK, "unexpected_status"),
        (400, told("invalid_request_error"), FALL_BACK, "invalid_request"),
        (400, told("invalid_request_error", message="Your credit balance is too low."), FALL_BACK, "quota_exhausted"),
        (400, told("invalid_request_error", "content_policy_violation"), TERMINAL, "content_refused"),
        (400, told("invalid_request_error", "context_length_exceeded"), FALL_BACK, "prompt_too_long"),
        (400, told(message="prompt is too long: 210000 tokens"), FALL_BACK, "prompt_too_long"),
        (400, told("invalid_model"), FALL_BACK, "no_such_model"),
        (401, told("authentication_error"), FALL_BACK, "bad_key"),
        (402, told("billing_error"), FALL_BACK, "quota_exhausted"),
        (403, told("permission_error"), FALL_BACK, "forbidden"),
        (404, told("not_found_error"), FALL_BACK, "no_such_model"),
        (404, told("invalid_request_error", "model_not_found"), FALL_BACK, "no_such_model"),
        (408, told(), RETRYABLE, "timeout"),
        (409, told(), RETRYABLE, "conflict"),
        (413, told("request_too_large"), FALL_BACK, "prompt_too_long"),
        (405, told(), FALL_BACK, "unexpected_status"),
        (407, None, FALL_BACK, "blocked"),
        (410, told(), FALL_BACK, "no_such_model"),
        (418, told(), FALL_BACK, "invalid_request"),
        (421, told(), FALL_BACK, "unexpected_status"),
        (422, told(), FALL_BACK, "invalid_request"),
        (424, told(), FALL_BACK, "failed_dependency"),
        (425, told(), RETRYABLE, "too_early"),
        (451, told(), FALL_BACK, "blocked"),
        (498, told(), FALL_BACK, "over_capacity"),
        (499, told(), FALL_BACK, "closed_early"),
        (429, told("rate_limit_error"), RETRYABLE, "rate_limited"),
        (429, told("insufficient_quota", "insufficient_quota"), FALL_BACK, "quota_exhausted"),
        (500, told("api_error"), RETRYABLE, "server_error"),
        (500, told("content_filter"), RETRYABLE, "server_error"),
        (502, None, RETRYABLE, "server_error"),
        (503, "busy", RETRYABLE, "overloaded"),
        (504, [], RETRYABLE, "timeout"),
        (529, told("overloaded_error"), RETRYABLE, "overloaded"),
    ],
)
def test_a_status_has_its_class_and_was_not_billed(
    status: int, body: object, error_class: ErrorClass, code: str
) -> None:
    failure = from_status(status, {}, body, now=NOW)
    assert (failure.error_class, failure.code, failure.may_be_billed) == (error_class, code, False)


def test_a_coded_detail_of_anthropics_is_understood() -> None:
    body = {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}}
    assert from_status(429, {}, body, now=NOW).code == "quota_exhausted"


def test_the_providers_own_message_is_kept_and_cut() -> None:
    assert from_status(400, {}, told(message="max_tokens is too large"), now=NOW).message == "max_tokens is too large"
    assert len(from_status(400, {}, told(message="x" * 2000), now=NOW).message) == MESSAGE_LIMIT


def test_an_answer_that_is_no_error_object_is_not_quoted() -> None:
    assert from_status(502, {}, "<html>secret page</html>", now=NOW).message == (
        "The provider answered with HTTP status 502."
    )


def test_only_what_can_be_retried_says_when() -> None:
    wait = {"retry-after": "9"}
    assert from_status(429, wait, told("rate_limit_error"), now=NOW).retry_after == 9.0
    assert from_status(401, wait, told(), now=NOW).retry_after is None


def caused(error: Exception, *causes: Exception) -> Exception:
    """The error with its chain of causes, as the SDKs' transports build it."""
    link: BaseException = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def wrapped(*causes: Exception) -> list[Exception]:
    return [
        caused(anthropic.APIConnectionError(request=SENT), *causes),
        caused(openai.APIConnectionError(request=SENT), *causes),
    ]


def connector_error() -> aiohttp.ClientConnectorError:
    key = aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(111, "refused"))


CASES: list[tuple[str, bool, Callable[[], list[Exception]]]] = [
    ("connection", False, lambda: wrapped(httpx2.ConnectError("no"))),
    ("connection", False, lambda: wrapped(httpx2.ConnectTimeout("no"))),
    ("connection", False, lambda: wrapped(httpx2.ConnectError("no"), connector_error())),
    ("connection", False, lambda: wrapped(httpx2.ConnectTimeout("no"), aiohttp.ConnectionTimeoutError())),
    ("connection", False, lambda: [httpx.ConnectError("no"), httpx.ConnectTimeout("no"), httpx.PoolTimeout("no")]),
    ("truncated", True, lambda: wrapped(httpx2.ConnectError("cut"), aiohttp.ServerDisconnectedError())),
    ("truncated", True, lambda: wrapped(httpx2.ConnectTimeout("cut"), aiohttp.ClientOSError(104, "reset"))),
    ("truncated", True, lambda: wrapped(httpx2.ReadError("cut"), aiohttp.ClientPayloadError("half"))),
    ("truncated", True, lambda: wrapped(httpx2.RemoteProtocolError("cut"))),
    ("truncated", True, lambda: [httpx.ReadError("cut"), httpx.RemoteProtocolError("cut"), httpx.WriteError("cut")]),
    ("timeout", True, lambda: wrapped(httpx2.ReadTimeout("late"), aiohttp.SocketTimeoutError())),
    ("timeout", True, lambda: [TimeoutError(), httpx.ReadTimeout("late"), openai.APITimeoutError(SENT)]),
    ("malformed_answer", True, lambda: [httpx.DecodingError("gzip"), httpx2.DecodingError("gzip")]),
]


@pytest.mark.parametrize(("code", "billed", "errors"), CASES)
def test_a_broken_call_may_be_billed_unless_it_was_never_sent(
    code: str, billed: bool, errors: Callable[[], list[Exception]]
) -> None:
    for error in errors():
        failure = from_exception(error)
        assert failure is not None
        assert (failure.error_class, failure.code, failure.may_be_billed) == (RETRYABLE, code, billed), repr(error)


def test_a_fault_of_ours_is_not_blamed_on_the_provider() -> None:
    assert from_exception(KeyError("oops")) is None


@pytest.mark.parametrize(
    "message",
    [
        "Incorrect API key provided: sk-proj-abc123DEF456.",
        "Incorrect API key provided: sk-ab***********xyz9.",
        "key pplx-0123456789abcdef is unknown",
        "sent Authorization: Bearer abc.def.ghi",
    ],
)
def test_what_looks_like_a_key_is_masked(message: str) -> None:
    masked = mask_keys(message)
    assert "…" in masked
    for piece in ("abc", "ab*", "0123", "xyz9"):
        assert piece not in masked


PROMPT = "The patient Ada Lovelace, born in 1815, complains of numbers."


@pytest.mark.parametrize(
    ("message", "clean"),
    [
        (f"Invalid content: {PROMPT}", "Invalid content: [prompt]"),
        ("Bad text 'Ada Lovelace, born in 1815' at 12", "Bad text '[prompt]' at 12"),
        ("the key is k-3-y", "the key is …"),
        ("max_tokens must be at most 4096", "max_tokens must be at most 4096"),
    ],
)
def test_neither_the_prompt_nor_the_key_is_told_again(message: str, clean: str) -> None:
    failure = Failure(TERMINAL, "invalid_request", message)
    assert without_secrets(failure, ["k-3-y"], CompletionRequest(prompt=PROMPT)).message == clean


def test_a_short_prompt_is_not_told_again_either() -> None:
    failure = Failure(TERMINAL, "invalid_request", "Invalid value: 'my pin 1234'")
    told_again = without_secrets(failure, (), CompletionRequest(system="my pin 1234", prompt="Hi")).message
    assert told_again == "Invalid value: '[prompt]'"


LETTER = 'Dear "Ada",\nyour übung of 10 December is 42.\nYours'
TOOL_ARGUMENTS = json.dumps({"patient": LETTER})
REQUEST = CompletionRequest(
    messages=(
        {"role": "user", "content": [{"type": "text", "text": "the text of a part is content"}]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call-0123456789abcdef",
                    "type": "function",
                    "function": {"name": "find_the_patient_record", "arguments": TOOL_ARGUMENTS},
                }
            ],
        },
    ),
    tools=({"type": "function", "function": {"name": "find_x", "description": "Finds a patient of Dr. Babbage"}},),
    stop=("Yours, the undersigned",),
    provider_options={"openai": {"metadata": {"case": "of Lady Lovelace, 1843"}}},
)


@pytest.mark.parametrize(
    "quoted",
    [
        TOOL_ARGUMENTS,
        LETTER,
        json.dumps(LETTER),
        json.dumps(TOOL_ARGUMENTS),
        json.dumps(LETTER, ensure_ascii=False),
        quote(LETTER),
        "the text of a part is content",
        "Finds a patient of Dr. Babbage",
        "Yours, the undersigned",
        "of Lady Lovelace, 1843",
    ],
)
def test_nothing_that_was_sent_is_told_again_in_any_form(quoted: str) -> None:
    failure = Failure(TERMINAL, "invalid_request", f"Cannot read <{quoted}> at place 7.")
    message = without_secrets(failure, (), REQUEST).message
    assert message.startswith("Cannot read <")
    assert message.endswith("> at place 7.")
    assert "[prompt]" in message
    left = message.replace("[prompt]", "")
    assert not [word for word in ("Ada", "bung", "December", "Babbage", "Lovelace", "part") if word in left], message


def test_names_of_tools_help_whoever_reads_the_message() -> None:
    failure = Failure(TERMINAL, "invalid_request", "find_the_patient_record of call-0123456789abcdef is no function.")
    assert without_secrets(failure, (), REQUEST) == failure


@pytest.mark.parametrize("told", range(4, len(PROMPT)))
def test_a_message_that_was_cut_does_not_end_with_the_beginning_of_the_prompt(told: int) -> None:
    failure = Failure(TERMINAL, "invalid_request", f"Invalid content: {PROMPT[:told]}…")
    message = without_secrets(failure, (), CompletionRequest(prompt=PROMPT)).message
    assert message == "Invalid content: [prompt]…"
