"""What was asked and what was answered, for deployments that want to keep it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from schemas.codec import decode
from schemas.response import Response


@dataclass(frozen=True)
class Content:
    """One side of a request. `text` is the answer's text, or JSON of what is more than that."""

    workspace_id: str
    request_id: str
    kind: str
    side: Literal["request", "answer"]
    text: str
    at: datetime


def read_answer(record: Any) -> Content | None:
    """The content of a record of `ai.responses`; None where there is none. Raises UndecodableError."""
    response = decode(Response, record.value)
    text = _answer_text(response)
    if not text:
        return None
    return Content(response.workspace_id, response.request_id, response.kind, "answer", text, response.answered_at)


def _answer_text(response: Response) -> str:
    """The text alone where that is all. Vectors are no text, and are not kept."""
    found = response.model_dump(
        mode="json", include={"tool_calls", "citations", "search_results"}, exclude_defaults=True
    )
    if not found:
        return response.content or ""
    return orjson.dumps({"content": response.content, **found}).decode()
