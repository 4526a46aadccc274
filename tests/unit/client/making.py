"""Responses, chunks and their records, as the reply topic has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from schemas.chunk import Chunk
from schemas.codec import Headers, encode
from schemas.request import ReplyAddress
from schemas.response import AttemptSummary, Response, Status
from streams.replies import chunk_record, reply_record

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ADDRESS = ReplyAddress(topic="ai.replies")

Heard = tuple[bytes | None, Headers, bytes | None]


def response(content: str | None = "whole", *, attempts: int = 1, **fields: Any) -> Response:
    tried = tuple(
        AttemptSummary(attempt=number, provider="openai", model="gpt-4o", outcome="failed")
        for number in range(1, attempts + 1)
    )
    given = {"request_id": "r-1", "workspace_id": "acme", "status": Status.SUCCEEDED, "answered_at": NOW}
    return Response(**{**given, "content": content, "attempts": tried, **fields})


def chunk(attempt: int, index: int, content: str, **fields: Any) -> Chunk:
    given = {"request_id": "r-1", "workspace_id": "acme", "attempt": attempt, "index": index, "at": NOW}
    return Chunk(**{**given, "content": content, **fields})


def heard(event: Response | Chunk) -> Heard:
    """The event as it comes from the topic."""
    record = reply_record(event, ADDRESS, None) if isinstance(event, Response) else chunk_record(event, ADDRESS, None)
    return record.key, record.headers, encode(event)
