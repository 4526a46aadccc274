"""Work for a client that may hang up; and errors that come when the status has gone out already."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from app.client.errors import RequestFailed
from app.client.pieces import Piece
from app.http.bridge import Bridge, Events
from app.http.chat_out import ChunkWriter
from app.http.door import _rest
from app.http.problems import Problem
from schemas.response import Error, Status
from tests.unit.client.making import response


class Caller:
    """The other side of an ASGI application. It hangs up when it is told to."""

    def __init__(self) -> None:
        self.hangs_up = asyncio.Event()
        self.got: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await self.hangs_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.got.append(message)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.got[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got[1:])


async def run(work: Any, caller: Caller) -> None:
    await Bridge("r-1", work, "/v1/x")({"type": "http"}, caller.receive, caller.send)


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


async def test_an_answer_has_the_requests_id() -> None:
    async def work() -> Response:
        return JSONResponse({"a": 1})

    caller = Caller()
    await run(work, caller)
    assert (caller.status, caller.body) == (200, b'{"a":1}')
    assert caller.headers[b"x-request-id"] == b"r-1"


async def test_a_failure_of_the_stream_is_an_answer() -> None:
    async def work() -> Response:
        found = response(None, status=Status.REJECTED, error=Error(code="budget_exceeded", message="No room."))
        raise RequestFailed("No room.", response=found)

    caller = Caller()
    await run(work, caller)
    assert caller.status == 429
    assert json.loads(caller.body)["error"] == {
        "message": "No room.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }


async def test_who_hangs_up_while_waiting_ends_the_work() -> None:
    ended = asyncio.Event()
    caller = Caller()

    async def work() -> Response:
        caller.hangs_up.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    await run(work, caller)
    assert ended.is_set()
    assert caller.got == []


async def test_who_hangs_up_in_the_middle_of_a_stream_ends_it() -> None:
    caller, closed = Caller(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        caller.hangs_up.set()
        await asyncio.Event().wait()

    async def work() -> Events:
        return Events(b"begin ", endless(), closed.set)

    await run(work, caller)
    assert closed.is_set()
    assert caller.body == b"begin one"


async def test_an_error_after_the_status_is_the_last_event() -> None:
    caller, closed = Caller(), asyncio.Event()
    problem = Problem(502, "stream_broken", "It broke off.")

    async def work() -> Events:
        return Events(b"a", pieces(b"b", error=problem), closed.set)

    await run(work, caller)
    assert caller.status == 200
    assert caller.body.startswith(b"ab")
    assert json.loads(caller.body.removeprefix(b"abdata: "))["error"]["code"] == "stream_broken"
    assert b"[DONE]" not in caller.body
    assert closed.is_set()


class Answer:
    """A stream of pieces with its response."""

    def __init__(self, *parts: Piece) -> None:
        self._parts = iter(parts)
        self.response = response("whole")

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> Piece:
        for part in self._parts:
            return part
        raise StopAsyncIteration


async def test_an_answer_that_begins_anew_is_never_called_whole() -> None:
    answer: Any = Answer(Piece("Something"), Piece("Else", attempt=2, restarted=True))
    sent = _rest(answer, Piece("Half of"), ChunkWriter("r-1", "m", 1))
    assert b"Half of" in await anext(sent)
    assert b"Something" in await anext(sent)
    with pytest.raises(Problem, match="broke off"):
        await anext(sent)


async def test_an_answer_without_pieces_ends_at_once() -> None:
    answer: Any = Answer()
    sent = [part async for part in _rest(answer, None, ChunkWriter("r-1", "m", 1))]
    assert len(sent) == 1
    assert sent[0].endswith(b"[DONE]\n\n")
