"""What the wire mappings share: reading an answer that nobody has checked, and small JSON conventions."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson

from schemas.request import CommonRequest, CompletionRequest, Message

#: A request's JSON body.
Body = dict[str, Any]

#: What `provider_options` may not touch: it would change the shape of the answer, its price, or pay for several
#: answers of which one is read.
RESERVED_OPTIONS = frozenset({"stream", "stream_options", "model", "n"})

#: For providers that take a schema but know no "some JSON object".
JSON_OBJECT_RULE = "Answer with one JSON object and nothing else."


#: More tokens than any call can use; the ledger could not hold what they would cost.
MOST_TOKENS = 10**9


class UnsupportedRequestError(ValueError):
    """The request cannot be put into this provider's words. The message quotes nothing of it."""


class MalformedAnswerError(ValueError):
    """The answer is not what the provider's contract promises. The message names the place."""


def read_object(raw: bytes) -> dict[str, Any]:
    """The answer's JSON object."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise MalformedAnswerError("it is not JSON") from None
    return as_object(value, "it")


def read_exact_object(raw: bytes) -> dict[str, Any]:
    """As `read_object`, with every fraction as a Decimal: for answers that state money."""
    try:
        # Half a surrogate pair, which Python's reader takes, no record could hold: the stricter one reads it first.
        orjson.loads(raw)
        value = json.loads(raw, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise MalformedAnswerError("it is not JSON") from None
    return as_object(value, "it")


def as_object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedAnswerError(f"{place} is not an object")
    return value


def as_list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedAnswerError(f"{place} is not a list")
    return value


def as_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise MalformedAnswerError(f"{place} is not text")
    return value


def with_options(body: Body, request: CommonRequest, provider: str) -> Body:
    """The body with the request's `provider_options`; an option of null takes the field out."""
    options = request.provider_options.get(provider)
    if not options:
        return body
    merged = {**body, **{name: value for name, value in options.items() if name not in RESERVED_OPTIONS}}
    return {name: value for name, value in merged.items() if value is not None}


def system_text(request: CompletionRequest) -> str:
    """All system text in order: the request's `system`, then its system messages."""
    texts = [request.system] if request.system else []
    texts += [plain_text(message) for message in request.conversation() if message.role == "system"]
    return "\n\n".join(text for text in texts if text)


def plain_text(message: Message) -> str:
    """A message's text; parts that are no text have none."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part["text"] for part in message.content if isinstance(part.get("text"), str))
