"""Bytes ↔ events: JSON values, versioned, with CloudEvents headers.

Source of the header names: CloudEvents 1.0, Kafka protocol binding, binary content mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError

from schemas.base import Event

#: Kafka headers as the wire has them: pairs, in order; names may repeat, and values may be null.
Headers = tuple[tuple[str, bytes | None], ...]

JSON_CONTENT_TYPE = b"application/json"
STRUCTURED_CONTENT_TYPE = b"application/cloudevents+json"
SUPPORTED_VERSION = 1

#: Characters of a field's name that an explanation quotes: names in free-form objects are the sender's.
MAX_STEP = 80

AnyEvent = TypeVar("AnyEvent", bound=Event)


class EscapedName(str):
    """The name of a header that is no UTF-8, with what is none of it written as \\xff. It cannot be sent so again."""

    __slots__ = ()


class UndecodableError(Exception):
    """A value that is no event. `code` is for programs, the message for the person who sent it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def encode(event: Event) -> bytes:
    """The event's JSON; what is absent is left out."""
    return event.__pydantic_serializer__.to_json(event, exclude_none=True)


def decode(model: type[AnyEvent], value: bytes | None) -> AnyEvent:
    """The event in a value that Spillway itself wrote. Raises UndecodableError."""
    try:
        return model.model_validate_json(value or b"")
    except ValidationError as error:
        raise UndecodableError("invalid_event", explain(error)) from None


def parse_object(value: bytes | None) -> dict[str, Any]:
    """The JSON object in a value that anybody may have written. Raises UndecodableError: not_json."""
    if not value:
        raise UndecodableError("not_json", "The record has no value; send a JSON object.")
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise UndecodableError("not_json", f"The value is not JSON: {error}.") from None
    if not isinstance(body, dict):
        found = type(body).__name__
        raise UndecodableError("not_json", f"The value must be a JSON object, not a {found}.")
    return body


def explain(error: ValidationError, limit: int = 5) -> str:
    """What is wrong, field by field, without showing the values (they may be prompts)."""
    problems = [
        f"{'.'.join(str(step)[:MAX_STEP] for step in item['loc']) or 'value'}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    more = len(problems) - limit
    tail = f"; and {more} more" if more > 0 else ""
    return "; ".join(problems[:limit]) + tail


def event_headers(
    *,
    event_id: str,
    event_type: str,
    workspace_id: str,
    time: datetime,
    traceparent: str | None = None,
) -> Headers:
    """CloudEvents headers of a record that Spillway publishes."""
    headers: list[tuple[str, bytes | None]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", event_type.encode()),
        ("ce_source", b"/spillway/" + workspace_id.encode()),
        ("ce_time", time.isoformat().encode()),
        ("content-type", JSON_CONTENT_TYPE),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return tuple(headers)


def header(headers: Iterable[tuple[str, bytes | None]], name: str) -> bytes | None:
    """The last value of a header (Kafka's own reading of a repeated one), whatever the case of its name."""
    found = None
    wanted = name.lower()
    for key, value in headers:
        if key.lower() == wanted:
            found = value
    return found
