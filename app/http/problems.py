"""What goes wrong, in OpenAI's words: an HTTP status and an `error` object. Pure.

Source: "Error codes" of OpenAI's API reference. `x-should-retry` is what its SDKs heed: whatever the stream has
answered was tried as often as it shall be, so they are told not to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from app.client.errors import ClientClosedError, ConnectionLostError, InvalidRequestError, SpillwayError
from schemas.response import Response, Status


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - it is also the body of an answer
    """An error as it is answered. `param` is the field that is wrong, `retry` whether the same may succeed at once."""

    status: int
    code: str | None
    message: str
    param: str | None = None
    retry: bool = False

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _INVALID)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "true" if self.retry else "false"}


_INVALID = "invalid_request_error"
_TYPES: Mapping[int, str] = {403: "permission_error", 429: "insufficient_quota", 504: "timeout"}

#: Codes of responses (docs/contract.md): the HTTP status and, where OpenAI has a name of its own for it, that name.
_BY_CODE: Mapping[str, tuple[int, str | None]] = {
    "too_large": (413, None),
    "unknown_model": (404, "model_not_found"),
    "budget_exceeded": (429, "insufficient_quota"),
    "invalid_request": (400, None),
    "content_refused": (400, "content_filter"),
    "deadline_exceeded": (504, None),
    "cancelled": (409, None),
    "in_doubt": (502, None),
    "all_providers_failed": (502, None),
}
#: Where every attempt was a refusal of the request itself, asking again cannot help.
_OF_THE_REQUEST: Mapping[str, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request"),
    "unsupported": (400, "unsupported_operation"),
    "prompt_too_long": (400, "context_length_exceeded"),
    "no_such_model": (404, "model_not_found"),
}
#: Attempts after which the same provider was asked again, rightly.
_ASKED_AGAIN = frozenset({"field_refused", "key_refused", "not_sent"})
_BY_STATUS: Mapping[Status, int] = {Status.REJECTED: 400, Status.FAILED: 502, Status.EXPIRED: 504}


def of_response(response: Response) -> Problem:
    """The problem of a response that is no success."""
    code = response.error.code if response.error else str(response.status)
    message = response.error.message if response.error else f"The request has {response.status}."
    status, name = _BY_CODE.get(code, (_BY_STATUS.get(response.status, 502), None))
    if code == "all_providers_failed":
        status, name = _of_attempts(response) or (status, name)
    return Problem(status, name or code, message, param="model" if code == "unknown_model" else None)


def _of_attempts(response: Response) -> tuple[int, str] | None:
    """What the last attempt says, if all of them say that the request is at fault."""
    told = [a.error.code for a in response.attempts if a.error and a.error.code not in _ASKED_AGAIN]
    return _OF_THE_REQUEST[told[-1]] if told and all(code in _OF_THE_REQUEST for code in told) else None


def of_error(error: SpillwayError) -> Problem:
    """The problem of whatever the client raises."""
    if error.response is not None:
        return of_response(error.response)
    if isinstance(error, InvalidRequestError):
        return Problem(400, "invalid_request", str(error))
    if isinstance(error, ConnectionLostError | ClientClosedError):
        return Problem(503, "unavailable", "Spillway cannot be reached now.", retry=True)
    return Problem(504, "timeout", "No answer came in time; the request was cancelled.")
