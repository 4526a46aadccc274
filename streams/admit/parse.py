"""From a record that anybody may have written to a request, or to a refusal that says what is wrong with it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.base import DEFAULT_WORKSPACE, Moment, RequestId, WorkspaceId
from schemas.codec import (
    STRUCTURED_CONTENT_TYPE,
    SUPPORTED_VERSION,
    EscapedName,
    Headers,
    UndecodableError,
    explain,
    header,
    parse_object,
)
from schemas.request import KINDS, CommonRequest, ReplyAddress
from streams.admit.address import read_address
from streams.tracing import LONGEST_CONTEXT

#: Names a record that brought no usable id; stable under redelivery, different for each record.
NAMESPACE = uuid.UUID("6f1d3c1a-52a7-4bd5-9f0e-5f9c1b5a7e11")

_request_id = TypeAdapter(RequestId)
_workspace_id = TypeAdapter(WorkspaceId)
_moment = TypeAdapter(Moment)

#: The last second that a moment can have, in seconds since 1970: producers may write any timestamp.
LAST_MOMENT = 253_402_300_799.0

MAX_HEADERS = 256
MAX_HEADER_BYTES = 64 * 1024
#: Levels of objects and lists in a body. The JSON readers and writers of later stages give up at about 200, where it
#: would be too late for an answer.
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Envelope:
    """What can be said of a record whether or not its body is a request."""

    request_id: str
    workspace_id: str = DEFAULT_WORKSPACE
    reply: ReplyAddress | None = None
    traceparent: str | None = None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid request, not yet admitted."""

    envelope: Envelope
    request: CommonRequest


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that is no request. `code` is for programs, `message` for the one who sent it."""

    envelope: Envelope
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Raw:
    """The record to parse. `identity` names it: the same for each redelivery, never for two records."""

    value: bytes | None
    headers: Headers
    identity: str


def id_of_record(identity: str) -> str:
    """The id of a request that has none of its own."""
    return str(uuid.uuid5(NAMESPACE, identity))


def parse(raw: Raw, *, max_bytes: int) -> Parsed | Refusal:
    """Read a record. Never raises for what a record may hold."""
    found = _parse(raw, max_bytes)
    name = next((name for name, _ in raw.headers if isinstance(name, EscapedName)), None)
    if name is not None and isinstance(found, Parsed):
        message = f"The name of a header, {name:.80}, is not UTF-8; Kafka's names are."
        found = Refusal(found.envelope, "unreadable_header", message)
    if found.envelope.request_id:
        return found
    return replace(found, envelope=replace(found.envelope, request_id=id_of_record(raw.identity)))


def _parse(raw: Raw, max_bytes: int) -> Parsed | Refusal:
    """As `parse`; a record that has no id of its own has none yet."""
    envelope = Envelope(request_id="")
    if hostile := _hostile_headers(raw.headers):
        return Refusal(envelope, "hostile_headers", hostile)
    envelope = _from_headers(envelope, raw.headers)
    if raw.value is not None and len(raw.value) > max_bytes:
        size = f"The request has {len(raw.value):,} bytes; at most {max_bytes:,} are taken."
        return Refusal(envelope, "too_large", size)
    try:
        body = parse_object(raw.value)
        if _is_deep(body, raw.value or b""):
            message = f"The request is nested too deeply; at most {MAX_DEPTH} levels are taken."
            return Refusal(_from_body(envelope, body, raw.headers), "invalid_request", message)
        body, envelope = _unwrap(body, envelope, raw.headers)
    except UndecodableError as error:
        return Refusal(envelope, error.code, str(error))
    envelope = _from_body(envelope, body, raw.headers)
    return _validate(envelope, body)


def _hostile_headers(headers: Headers) -> str | None:
    if len(headers) > MAX_HEADERS:
        return f"The record has {len(headers)} headers; at most {MAX_HEADERS} are taken."
    size = sum(len(name) + len(value or b"") for name, value in headers)
    if size > MAX_HEADER_BYTES:
        return f"The record's headers have {size:,} bytes; at most {MAX_HEADER_BYTES:,} are taken."
    return None


def _is_deep(body: dict[str, Any], value: bytes) -> bool:
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        children = (child for part in level for child in (part.values() if isinstance(part, dict) else part))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _from_headers(envelope: Envelope, headers: Headers) -> Envelope:
    """Id, expiry and trace from CloudEvents headers, and the reply address; what is malformed is left aside."""
    return replace(
        envelope,
        request_id=_valid(_request_id, _header_text(headers, "ce_id")) or envelope.request_id,
        reply=read_address({}, headers),
        traceparent=_trace(_header_text(headers, "traceparent")),
        expires=_valid(_moment, _header_text(headers, "ce_expirytime")),
    )


def _unwrap(body: dict[str, Any], envelope: Envelope, headers: Headers) -> tuple[dict[str, Any], Envelope]:
    """The request inside a CloudEvent in structured mode; any other body as it is."""
    content_type = header(headers, "content-type") or b""
    if not content_type.lower().startswith(STRUCTURED_CONTENT_TYPE):
        return body, envelope
    data = body.get("data")
    if not isinstance(data, dict):
        message = "A CloudEvent in structured mode must have an object as its `data`."
        raise UndecodableError("invalid_request", message)
    return data, replace(
        envelope,
        request_id=_valid(_request_id, body.get("id")) or envelope.request_id,
        expires=_valid(_moment, body.get("expirytime")) or envelope.expires,
        traceparent=envelope.traceparent or _trace(body.get("traceparent")),
    )


def _from_body(envelope: Envelope, body: dict[str, Any], headers: Headers) -> Envelope:
    """Even an invalid request can say who sent it and where the answer is to go."""
    return replace(
        envelope,
        request_id=_valid(_request_id, body.get("request_id")) or envelope.request_id,
        workspace_id=_valid(_workspace_id, body.get("workspace_id")) or DEFAULT_WORKSPACE,
        reply=read_address(body, headers),
    )


def _validate(envelope: Envelope, body: dict[str, Any]) -> Parsed | Refusal:
    version = body.get("schema_version", SUPPORTED_VERSION)
    if version != SUPPORTED_VERSION:
        message = f"schema_version {version!r:.40} is not known here; this Spillway reads version {SUPPORTED_VERSION}."
        return Refusal(envelope, "unknown_version", message)
    kind = body.get("kind", "completion")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        message = f"kind {kind!r:.40} is not known; use one of {', '.join(KINDS)}."
        return Refusal(envelope, "unknown_kind", message)
    try:
        return Parsed(envelope, model.model_validate(body | {"kind": kind}))
    except ValidationError as error:
        return Refusal(envelope, "invalid_request", explain(error))


def _header_text(headers: Headers, name: str) -> str | None:
    value = header(headers, name)
    try:
        return value.decode() if value else None
    except UnicodeDecodeError:
        return None


def _trace(value: object) -> str | None:
    """What is longer is no trace's: it would go from record to record, and be kept with the request."""
    return value if isinstance(value, str) and len(value) <= LONGEST_CONTEXT else None


def _valid(adapter: TypeAdapter[Any], value: object) -> Any:
    if value is None:
        return None
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def in_utc(seconds: float) -> datetime:
    """The moment that is so many seconds after 1970; the last one that there is for those beyond it."""
    return datetime.fromtimestamp(min(seconds, LAST_MOMENT), UTC)
