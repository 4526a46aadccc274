"""Everything a provider can do wrong, mapped in one place to a `Failure`.

What decides `may_be_billed` is whether the provider can have done the work: an error status says that it did not, a
connection that was never made says so too; silence or half an answer after the request was sent says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

import aiohttp
import anthropic
import httpx
import httpx2
import openai

from app.providers.limits import read_limits, read_wait, their_time
from app.providers.redact import cut, mask_keys
from app.providers.refusals import Judgement, judge_refusal, places_in, words_of
from app.providers.retry_delay import told_delay
from app.providers.transport import NotSentError
from app.providers.wording import fields_in
from streams.dispatch.ports import NOT_SENT, ErrorClass, Failure, Readings

RETRYABLE, FALL_BACK, TERMINAL = ErrorClass.RETRYABLE, ErrorClass.FALL_BACK, ErrorClass.TERMINAL

#: The statuses above 499 that say more than that the provider is in trouble. 529 is Anthropic's "overloaded".
_BY_STATUS: Mapping[int, Judgement] = {
    503: (RETRYABLE, "overloaded"),
    504: (RETRYABLE, "timeout"),
    529: (RETRYABLE, "overloaded"),
}

#: Raised before a byte of the request was sent.
_NEVER_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
)
_TIMEOUTS = (
    TimeoutError,
    httpx.TimeoutException,
    httpx2.TimeoutException,
    openai.APITimeoutError,
    anthropic.APITimeoutError,
)


class HttpStatusError(Exception):
    """An error status from a provider without an SDK; it carries the mapped failure, not the response."""

    def __init__(self, failure: Failure, status_code: int) -> None:
        super().__init__(failure.code)
        self.failure = failure
        self.status_code = status_code


def from_exception(error: Exception, *, now: datetime | None = None) -> Failure | None:
    """The failure behind an exception of an SDK or of HTTP; None for one that no provider can cause."""
    if isinstance(error, HttpStatusError):
        return error.failure
    if isinstance(error, (anthropic.APIStatusError, openai.APIStatusError)):
        return from_status(error.status_code, error.response.headers, error.body, now=now)
    if isinstance(error, (anthropic.APIResponseValidationError, openai.APIResponseValidationError)):
        return malformed("the answer does not fit the provider's own schema")
    known = (anthropic.APIConnectionError, openai.APIConnectionError, httpx.TransportError, httpx2.TransportError)
    if isinstance(error, (TimeoutError, NotSentError, aiohttp.ClientError, *known)):
        return _from_connection(error)
    if isinstance(error, (httpx.DecodingError, httpx2.DecodingError)):
        return malformed("the answer's content encoding is broken")
    return None


def _from_connection(error: Exception) -> Failure:
    links = _deciding_links(error)
    if any(isinstance(link, NotSentError) for link in links):
        return NOT_SENT
    if any(isinstance(link, _NEVER_SENT) for link in links):
        return Failure(RETRYABLE, "connection", "The provider could not be reached.")
    if any(isinstance(link, _TIMEOUTS) for link in links):
        return timed_out(sent=True)
    return truncated()


def _deciding_links(error: Exception) -> list[BaseException]:
    """The error and its causes; where aiohttp raised one of them, only aiohttp's own.

    The SDKs' aiohttp transports blur them: a connection that breaks while the answer is awaited becomes a failure to
    connect in one SDK, and a connection time-out in the other. Believing either would call again a provider that may
    have billed already, and book nothing for it.
    """
    chain = list(_causes(error))
    return [link for link in chain if isinstance(link, aiohttp.ClientError)] or chain


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def from_status(status: int, headers: Mapping[str, str], body: object, *, now: datetime | None = None) -> Failure:
    """The failure behind an HTTP status that is no success; `body` is the parsed JSON, or whatever came instead."""
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return _redirected(status, read_limits(headers, now or their_time(headers)))
    error_class, name = _judge(status, body)
    told = _error_fields(body)[2] or (words_of(body) if _is_refusal(status) else "")
    message = mask_keys(cut(told)) if told else f"The provider answered with HTTP status {status}."
    moment = now or their_time(headers)
    retry_after = None
    if error_class is RETRYABLE:
        retry_after = read_wait(headers, moment)
        if retry_after is None:
            retry_after = told_delay(body, told, moment)
    failure = Failure(error_class, name, message, retry_after=retry_after, readings=read_limits(headers, moment))
    return replace(failure, fields=fields_in(places_in(body))) if name in _OF_THE_BODY else failure


#: Refusals that may be about one field of the body; a limit that is too large sounds like a prompt that is.
_OF_THE_BODY = ("invalid_request", "prompt_too_long")


def _is_refusal(status: int) -> bool:
    return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR


def _judge(status: int, body: object) -> Judgement:
    if _is_refusal(status):
        return judge_refusal(status, body)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _BY_STATUS.get(status, (RETRYABLE, "server_error"))
    return FALL_BACK, "unexpected_status"


def _redirected(status: int, readings: Readings) -> Failure:
    """No redirect is followed: the base URL is wrong, which no request can help. What it says, and where it points to,
    is not the provider's word on the request.
    """
    message = (
        f"The provider answered with a redirect (HTTP status {status}), which is not followed. Check its base URL."
    )
    return Failure(FALL_BACK, "unexpected_status", message, readings=readings)


def _error_fields(body: object) -> tuple[str, str, str]:
    """Type, code and message out of `{"error": {…}}`, or out of what is inside it (the OpenAI SDK unwraps it)."""
    inner: object = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(inner, Mapping):
        return "", "", inner if isinstance(inner, str) else ""
    details: Any = inner.get("details")
    code = details.get("error_code") if isinstance(details, Mapping) else inner.get("code")
    return _text(inner.get("type")), _text(code), _text(inner.get("message"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def timed_out(*, sent: bool) -> Failure:
    """No answer in time. Only a request that was sent can have been worked on."""
    return Failure(RETRYABLE, "timeout", "The provider did not answer in time.", may_be_billed=sent)


def truncated() -> Failure:
    """Half an answer: the work was done, at least in part."""
    message = "The provider closed the connection before its answer was complete."
    return Failure(RETRYABLE, "truncated", message, may_be_billed=True)


def malformed(why: str) -> Failure:
    """A 200 that is no answer: the work was done and most likely billed, and there is nothing to hand on."""
    return Failure(RETRYABLE, "malformed_answer", f"The provider's answer cannot be used: {why}.", may_be_billed=True)


def unsupported(why: str) -> Failure:
    """This provider has no way to say what the request asks for; another one may."""
    return Failure(FALL_BACK, "unsupported", why)


def invalid_request(why: str) -> Failure:
    """Our own validation refuses the request: it makes no sense to any provider."""
    return Failure(TERMINAL, "invalid_request", why)
