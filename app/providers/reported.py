"""Errors that come with the status 200: instead of an answer, or inside a stream.

Gateways and servers that have sent their status before they fail put the error where the answer belongs, each in a
form of its own. What counts is found here: the words, the code, and the HTTP status that it would have had. Nothing is
billed for an error, unless the answer had begun or says what it has used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import unescape
from http import HTTPStatus
from typing import Any

from app.providers import errors
from app.providers.heartbeat import is_heartbeat
from app.providers.refusals import places_in
from app.providers.text import mended, parse
from schemas.usage import Tokens
from streams.dispatch.ports import Failure

#: What an object holds that is an answer, or a piece of one.
_ANSWERS = ("choices", "content", "output", "data", "results", "delta", "usage", "candidates")
#: These alone make an object without an answer an error.
_SURE = (
    *("message", "msg", "detail", "error_message", "error_msg", "errorMessage", "err_msg", "errmsg"),
    "faultstring",
)
_MESSAGES = (
    *("message", "msg", "detail", "error_message", "error_msg", "errorMessage", "err_msg", "errmsg", "status_msg"),
    *("reason", "title", "faultstring", "error", "error_description", "raw"),
)
_CODES = (
    "code",
    "status",
    "status_code",
    "statusCode",
    "http_status",
    "http_code",
    "error_code",
    "errorCode",
    "errcode",
)
_TYPES = ("type", "error_type", "__type", "status", "code", "error_code", "errorCode", "errorcode")
#: Objects that hold the error itself.
_INNER = ("error", "errors", "detail", "fault", "base_resp", "response")
_FINE = frozenset({"0", "200", "ok", "success", "true", "null", "none", ""})

#: By type or code in small letters without blanks, `_` and `-`. Sources: the error tables of OpenAI, Anthropic, Google
#: (gRPC) and DashScope, and the classes of vLLM, LiteLLM and Text Generation Inference.
_STATUS: Mapping[str, int] = {
    **dict.fromkeys(
        ("invalidrequesterror", "badrequest", "badrequesterror", "invalidargument", "failedprecondition"), 400
    ),
    **dict.fromkeys(("invalidparameter", "validation", "validationerror", "unprocessableentityerror"), 400),
    **dict.fromkeys(("authenticationerror", "unauthenticated", "unauthorized", "invalidapikey"), 401),
    **dict.fromkeys(("billingerror", "paymentrequired", "arrearage"), 402),
    **dict.fromkeys(("permissionerror", "permissiondenied", "permissiondeniederror", "forbidden", "accessdenied"), 403),
    **dict.fromkeys(("notfounderror", "notfound", "modelnotfound", "modelnotfounderror"), 404),
    **dict.fromkeys(("requesttoolarge",), 413),
    **dict.fromkeys(
        ("ratelimiterror", "ratelimitexceeded", "ratelimited", "resourceexhausted", "toomanyrequests"), 429
    ),
    **dict.fromkeys(("throttling", "throttlingexception", "throttlingratequota", "insufficientquota"), 429),
    **dict.fromkeys(("apierror", "servererror", "internalservererror", "internalerror", "internal", "unknown"), 500),
    **dict.fromkeys(("badgateway", "badgatewayerror"), 502),
    **dict.fromkeys(
        ("overloadederror", "overloaded", "unavailable", "serviceunavailable", "serviceunavailableerror"), 529
    ),
    **dict.fromkeys(("timeouterror", "timeout", "deadlineexceeded", "gatewaytimeout"), 504),
}
#: What a message says where no code does.
_SAID: tuple[tuple[str, int], ...] = (
    ("rate limit", 429),
    ("ratelimit", 429),
    ("too many requests", 429),
    ("throttl", 429),
    ("unauthorized", 401),
    ("invalid api key", 401),
    ("incorrect api key", 401),
    ("insufficient balance", 402),
    ("model not found", 404),
    ("overloaded", 529),
    ("at capacity", 529),
    ("service unavailable", 503),
    ("temporarily unavailable", 503),
    ("bad gateway", 502),
    ("timed out", 504),
    ("timeout", 504),
)
_STATUS_CODE = re.compile(r"[45][0-9][0-9]")
_NUMBER = re.compile(r"(?:^\W*|(?:code|status|http|error|page)\W{0,12})([45]\d\d)\b", re.IGNORECASE)
#: Codes of others that a gateway has put into its message.
_QUOTED = re.compile(
    r"\b(?:insufficient_quota|billing_error|billing_hard_limit\w*|content_policy\w*|content_filter\w*|moderation_blocked"
    r"|context_length_exceeded|model_not_found|invalid_model)\b"
)
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)

#: Nothing that can be read.
_WORDLESS = "The provider answered with an error that it does not explain."


class ReportedError(Exception):
    """The provider says that it has failed; `body` is its error in its own form, `tokens` what it says to have used.
    `written` is in bytes of text that it had answered by then.
    """

    def __init__(self, body: object, tokens: Tokens | None = None, *, written: int = 0) -> None:
        super().__init__("the provider reports an error")
        self.body = body
        self.tokens = tokens
        self.written = written


def failure_of(body: object, *, tokens: Tokens | None = None, has_begun: bool = False) -> Failure:
    """The failure that an error is, as its status would have told it."""
    fields = list(_objects(body))
    message = _first_text(fields, _MESSAGES) or (_words(body) if isinstance(body, str) else "")
    known = {"type": _first_text(fields, _TYPES), "code": _first_text(fields, ("code", "error_code", "errorCode"))}
    quoted = " ".join(_QUOTED.findall(message.lower()))
    told = {"error": {**known, "reason": quoted, "message": mended(message), "loc": list(places_in(body))}}
    status = _status(fields, message)
    if status is None:
        # Words that make a refusal what it is are known to those who class refusals.
        by_words = errors.from_status(HTTPStatus.BAD_REQUEST, {}, told)
        unknown = errors.from_status(HTTPStatus.BAD_REQUEST, {}, {})
        status = HTTPStatus.INTERNAL_SERVER_ERROR if by_words.code == unknown.code else HTTPStatus.BAD_REQUEST
    failure = errors.from_status(status, {}, told)
    is_billed = has_begun or (tokens is not None and tokens.total_tokens > 0)
    return replace(
        failure,
        message=failure.message if message else _WORDLESS,
        may_be_billed=is_billed,
        tokens=tokens if is_billed else None,
    )


def error_in(value: object) -> object | None:
    """The error in a value that stands where an answer belongs; None where it tells none."""
    if isinstance(value, str):
        return None if is_heartbeat(value) else value
    if isinstance(value, list):
        return next((found for part in value if isinstance(part, Mapping) and (found := error_in(part))), None)
    if not isinstance(value, Mapping):
        return None
    if (error := told_beside(value)) is not None:
        return error
    if any(value.get(name) for name in _ANSWERS):
        return None
    fields = list(_objects(value))
    has_failed = value.get("success") is False or str(value.get("type") or value.get("object")).lower() == "error"
    return value if has_failed or _first_text(fields, _SURE) or _status_in(fields) else None


def told_beside(answer: Mapping[str, Any]) -> object | None:
    """The error that stands beside a choice, or inside of it: such an answer is none."""
    if not _is_empty(error := answer.get("error")):
        return answer if error is True else {"error": error, **_code_of(answer)}
    if isinstance(listed := answer.get("errors"), list) and listed:
        return {"error": listed[0]}
    base = answer.get("base_resp")
    if isinstance(base, Mapping) and str(base.get("status_code", "0")) not in _FINE:
        return base
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, Mapping) and not _is_empty(first.get("error")):
        return {"error": first["error"]}
    return None


def _is_empty(error: object) -> bool:
    """Whether an error is none: some always send the object, and fill it in when there is one."""
    if isinstance(error, Mapping):
        return all(_is_empty(part) for part in error.values())
    return not error or (isinstance(error, (str, int)) and error is not True and str(error).strip().lower() in _FINE)


def _code_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside a text that is the whole error."""
    names = ("code", "type", "error_type", "status_code", "error_code", "message")
    return (
        {name: answer[name] for name in names if answer.get(name)} if not isinstance(answer["error"], Mapping) else {}
    )


def error_in_body(body: bytes) -> object | None:
    """The error in a body that is no answer: JSON, HTML or text. None where it is neither."""
    if not body.strip():
        return None
    try:
        return error_in(parse(body))
    except ValueError:
        pass
    # What begins as JSON and does not end as such is half an answer.
    return None if body.lstrip()[:1] in (b"{", b"[", b'"') else body.decode(errors="replace")


def _objects(value: object, depth: int = 4) -> Iterator[Mapping[str, Any]]:
    """An error's object and those inside of it: the innermost has the words, so it comes first."""
    if isinstance(value, list):
        value = next((part for part in value if isinstance(part, Mapping)), None)
    if not isinstance(value, Mapping) or not depth:
        return
    for name in _INNER:
        inner = value.get(name)
        if isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
            inner = _parsed(inner)
        yield from _objects(inner, depth - 1)
    message = value.get("message")
    if isinstance(message, str) and message.lstrip()[:1] == "{":
        # A gateway quotes the error of the server behind it, as a text.
        yield from _objects(_parsed(message), depth - 1)
    yield value


def _parsed(text: str) -> object:
    try:
        return parse(text.encode(errors="replace"))
    except ValueError:
        return None


def _first_text(fields: list[Mapping[str, Any]], names: tuple[str, ...]) -> str:
    texts = (field.get(name) for field in fields for name in names)
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


def _status(fields: list[Mapping[str, Any]], message: str) -> int | None:
    if (status := _status_in(fields)) is not None:
        return status
    if (found := _NUMBER.search(message)) is not None:
        return int(found[1])
    said = message.lower()
    return next((status for words, status in _SAID if words in said), None)


def _status_in(fields: list[Mapping[str, Any]]) -> int | None:
    """By number, as such or as text; else by name."""
    for field in fields:
        for name in _CODES:
            if (status := _http_status(field.get(name))) is not None:
                return status
    names = (field.get(name) for field in fields for name in (*_TYPES, *_CODES, "message"))
    plain = (re.sub(r"[\s_.-]", "", name).lower() for name in names if isinstance(name, str))
    return next((_STATUS[name] for name in plain if name in _STATUS), None)


def _http_status(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if _STATUS_CODE.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if _STATUS_CODE.fullmatch(str(value)) else None


def _words(text: str) -> str:
    """What a page or a text says: of a page its title."""
    if "<" not in text[:200]:
        return " ".join(text.split())
    titles = [" ".join(unescape(found[2]).split()) for found in _TITLE.finditer(text)]
    title = next((title for title in titles if title and "<" not in title), "")
    return f"The provider answered with a web page: {title}" if title else "The provider answered with a web page."
