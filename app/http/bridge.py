"""Work for one HTTP request that ends when the one who asked is gone: what nobody waits for is cancelled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.client.errors import SpillwayError
from app.http.chat_out import event
from app.http.problems import Problem, of_error
from app.tracing.client import serving
from streams.logs import about

log = logging.getLogger(__name__)

#: What logs say of a request whose client has gone before its answer.
GONE = 499

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


@dataclass
class Events:
    """An answer in pieces: those that are sent with the status, and what comes after them.

    `close` is called when no more is read, however that came.
    """

    first: bytes
    rest: AsyncIterator[bytes]
    close: Callable[[], None]


Work = Callable[[], Awaitable[Response | Events]]


@dataclass
class Bridge:
    """An ASGI response whose content is made while the client is watched. `request_id` goes into the headers; what is
    published while it is made belongs to the trace of `traceparent`.
    """

    request_id: str
    work: Work
    path: str
    workspace: str = "-"
    traceparent: str | None = None
    _status: int = field(default=GONE, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with serving(scope.get("method", "POST"), self.path, self.traceparent) as span:
            try:
                await self._bridge(receive, send)
            finally:
                span.answered(self._status)

    async def _bridge(self, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        answering = asyncio.ensure_future(self._answer(send))
        watching = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not answering.done():
                answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering
            seconds = time.monotonic() - began
            who = about(self.request_id, self.workspace[:128])
            log.info("http: %s %d %.3f s", self.path, self._status, seconds, extra=who)

    async def _answer(self, send: Send) -> None:
        try:
            found = await self.work()
        except (Problem, SpillwayError) as error:
            found = answer_of(error, self.request_id)
        if isinstance(found, Events):
            try:
                return await self._stream(found, send)
            finally:
                found.close()
        self._status = found.status_code
        found.headers["x-request-id"] = self.request_id
        return await found({"type": "http"}, _nothing, send)

    async def _stream(self, events: Events, send: Send) -> None:
        headers = [*EVENT_STREAM, (b"x-request-id", self.request_id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": events.first, "more_body": True})
        try:
            async for piece in events.rest:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._status = 200
        except (Problem, SpillwayError) as error:
            # The status has gone out already: the error is the last event, which the SDKs raise.
            problem = error if isinstance(error, Problem) else of_error(error)
            self._status = problem.status
            await send({"type": "http.response.body", "body": event(problem.body()), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def answer_of(error: Problem | SpillwayError, request_id: str) -> Response:
    problem = error if isinstance(error, Problem) else of_error(error)
    return JSONResponse(problem.body(), problem.status, headers={**problem.headers(), "x-request-id": request_id})


async def _gone(receive: Receive) -> None:
    """Return when the client has hung up; the body of the request has been read before."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def _nothing() -> dict[str, str]:
    raise RuntimeError("the request was read before")
