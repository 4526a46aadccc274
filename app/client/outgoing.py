"""What an application asks for, as the record that is published. Pure, but for the id that it may make."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict

import orjson
from pydantic import ValidationError

from app.client.errors import InvalidRequestError
from schemas.base import Priority
from schemas.codec import Headers, event_headers, explain
from schemas.request import KINDS, CacheOptions, Message


class CommonOptions(TypedDict, total=False):
    """What every kind of request takes; docs/contract.md says what each means. `timeout` is in seconds."""

    timeout: float | None
    workspace_id: str
    request_id: str
    user_id: str
    purpose: str
    model: str
    preferred_providers: Sequence[str]
    priority: Priority | Literal["interactive", "normal", "batch"]
    cache: CacheOptions | Mapping[str, Any]
    metadata: Mapping[str, str]
    provider_options: Mapping[str, Mapping[str, Any]]
    traceparent: str


class CompletionOptions(CommonOptions, total=False):
    messages: Sequence[Message | Mapping[str, Any]]
    system: str
    max_tokens: int
    temperature: float
    stop: Sequence[str]
    tools: Sequence[Mapping[str, Any]]
    response_format: Mapping[str, Any]


class EmbeddingOptions(CommonOptions, total=False):
    dimensions: int
    encoding_format: Literal["float", "base64"]


class SearchOptions(CommonOptions, total=False):
    domains_include: Sequence[str]
    domains_exclude: Sequence[str]
    recency: Literal["hour", "day", "week", "month", "year"]
    return_images: bool
    return_related_questions: bool


@dataclass(frozen=True)
class Outgoing:
    """A request as it is published. `timeout` is in seconds; None: the deployment's own deadline, and nobody waits."""

    request_id: str
    workspace_id: str
    value: bytes
    headers: Headers
    timeout: float | None


def outgoing(
    fields: Mapping[str, Any], *, workspace_id: str, timeout: float | None, reply_to: str | None, now: datetime
) -> Outgoing:
    """The record of a request. What `fields` does not say is left to the deployment; what is None counts as not said.

    `workspace_id` and `timeout` are the client's own, for requests that name none. Raises InvalidRequestError.
    """
    told = {name: value for name, value in fields.items() if value is not None}
    told.setdefault("workspace_id", workspace_id)
    told.setdefault("request_id", str(uuid.uuid4()))
    told.setdefault("kind", "completion")
    timeout, traceparent = told.pop("timeout", timeout), told.pop("traceparent", None)
    if timeout is not None:
        told.setdefault("deadline", _after(now, timeout))
    if reply_to is not None:
        told["reply_to"] = reply_to
    body = _body(told)
    headers = event_headers(
        event_id=body["request_id"],
        event_type="ai.request",
        workspace_id=body["workspace_id"],
        time=now,
        traceparent=traceparent,
    )
    return Outgoing(body["request_id"], body["workspace_id"], _json(body), headers, timeout)


def _after(now: datetime, timeout: float) -> datetime:
    if not timeout > 0:
        raise InvalidRequestError("timeout: must be more than 0 seconds")
    try:
        return now + timedelta(seconds=timeout)
    except OverflowError:
        raise InvalidRequestError("timeout: no calendar holds so many seconds") from None


def _body(told: dict[str, Any]) -> dict[str, Any]:
    """The fields that were said, as the request's own model reads them: no default goes over the wire."""
    model = KINDS.get(told["kind"])
    if model is None:
        raise InvalidRequestError(f"kind: use one of {', '.join(KINDS)}")
    strange = sorted(set(told) - set(model.model_fields))
    if strange:
        raise InvalidRequestError(f"{', '.join(strange)}: not known in a {told['kind']} request")
    try:
        request = model.model_validate(told)
    except ValidationError as error:
        raise InvalidRequestError(explain(error)) from None
    return request.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _json(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise InvalidRequestError(f"the request cannot be written as JSON: {error}") from None


def utc_now() -> datetime:
    return datetime.now(UTC)
