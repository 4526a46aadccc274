"""A streamed answer as it is read: in order, once, and from the beginning again where an attempt broke off."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from app.cli.stream import StreamReader
from schemas.chunk import Chunk
from schemas.codec import encode
from schemas.response import Response, Status

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def chunk(attempt: int, index: int, content: str) -> Any:
    event = Chunk(request_id="r-1", workspace_id="acme", attempt=attempt, index=index, content=content, at=NOW)
    return SimpleNamespace(value=encode(event), headers=(("ce_type", b"ai.response.chunk"),))


def read(*records: Any) -> list[str]:
    shown: list[str] = []
    reader = StreamReader("r-1", shown.append, lambda: shown.append("/"))
    assert all(reader.hear(record) is None for record in records)
    return shown


def test_chunks_are_shown_in_order() -> None:
    assert read(chunk(1, 0, "a"), chunk(1, 1, "b"), chunk(1, 2, "c")) == ["a", "b", "c"]


def test_a_chunk_that_comes_twice_is_shown_once() -> None:
    assert read(chunk(1, 0, "a"), chunk(1, 0, "a"), chunk(1, 1, "b")) == ["a", "b"]


def test_a_later_attempt_begins_anew_and_an_earlier_one_is_over() -> None:
    found = read(chunk(1, 0, "a"), chunk(2, 0, "A"), chunk(1, 1, "b"), chunk(2, 1, "B"))
    assert found == ["a", "/", "A", "B"]


def test_the_response_ends_it_and_what_cannot_be_read_does_not() -> None:
    reader = StreamReader("r-1", print)
    response = Response(request_id="r-1", workspace_id="acme", status=Status.SUCCEEDED, answered_at=NOW)
    said = (("ce_type", b"ai.response.succeeded"),)
    assert reader.hear(SimpleNamespace(value=b"{", headers=said)) is None
    assert reader.hear(SimpleNamespace(value=encode(response), headers=said)) == response
