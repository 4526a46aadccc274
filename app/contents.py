"""What a request asks, read from its record as admission reads it: for deployments that keep content."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from streams.account.content import Content
from streams.admit.parse import Parsed, Raw, parse
from streams.runtime.batches import incoming_of

#: The fields of each kind that say what is asked.
_ASKED = {"messages", "prompt", "system", "tools", "input", "query"}


def read_request(record: Any, *, max_bytes: int) -> Content | None:
    """The content of a record of `ai.requests`, under the id by which it was admitted; None for what is no request."""
    incoming = incoming_of(record)
    identity = f"{incoming.topic}/{incoming.partition}/{incoming.offset}/{incoming.timestamp}"
    parsed = parse(Raw(incoming.value, incoming.headers, identity), max_bytes=max_bytes)
    if not isinstance(parsed, Parsed):
        return None
    request = parsed.request
    asked = request.model_dump(mode="json", include=_ASKED, exclude_defaults=True)
    return Content(
        workspace_id=request.workspace_id,
        request_id=request.request_id or parsed.envelope.request_id,
        kind=request.kind,
        side="request",
        text=orjson.dumps(asked).decode(),
        at=datetime.fromtimestamp(incoming.timestamp / 1000, UTC),
    )
