"""Who waits for which reply. Whatever is read from the reply topic goes through here once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from app.client.errors import SpillwayError
from app.client.outgoing import Outgoing
from schemas.chunk import Chunk
from schemas.codec import UndecodableError, decode, header
from schemas.response import Response

_CHUNK = Chunk.ce_type.encode()


class Waiter:
    """One who waits for one request: for its response and, if it is streamed, for its chunks before that."""

    def __init__(self, request: Outgoing, *, streamed: bool = False) -> None:
        self.request = request
        self.key = (request.request_id.encode(), b"/spillway/" + request.workspace_id.encode())
        self._response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._chunks: asyncio.Queue[Chunk | None] | None = asyncio.Queue() if streamed else None

    async def response(self) -> Response:
        """The terminal response. Raises what `fail` was given."""
        return await asyncio.shield(self._response)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """The chunks until the response is there, as they came."""
        while self._chunks is not None and (chunk := await self._chunks.get()) is not None:
            yield chunk

    def hear_chunk(self, chunk: Chunk) -> None:
        if self._chunks is not None:
            self._chunks.put_nowait(chunk)

    def hear_response(self, response: Response) -> None:
        if not self._response.done():
            self._response.set_result(response)
            self._end()

    def fail(self, error: SpillwayError) -> None:
        if not self._response.done():
            self._response.set_exception(error)
            # Whoever has stopped waiting need not be told.
            self._response.exception()
            self._end()

    def _end(self) -> None:
        if self._chunks is not None:
            self._chunks.put_nowait(None)


class Inbox:
    """The waiters, by request and workspace: an id names a request within its workspace.

    A repeat, with the same `ce_id`, finds nobody who still waits for a response, and chunks are counted by the stream
    that they belong to.
    """

    def __init__(self) -> None:
        self._waiters: dict[tuple[bytes, bytes], list[Waiter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def expect(self, waiter: Waiter) -> None:
        self._waiters.setdefault(waiter.key, []).append(waiter)

    def forget(self, waiter: Waiter) -> None:
        waiting = self._waiters.get(waiter.key, [])
        if waiter in waiting:
            waiting.remove(waiter)
        if not waiting:
            self._waiters.pop(waiter.key, None)

    def hear(self, key: bytes | None, headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> bool:
        """A record of the reply topic. Most are somebody else's, and are left unread; so is what is no reply.

        Whether it is the response that somebody waits for.
        """
        source = header(headers, "ce_source")
        waiters = self._waiters.get((key or b"", source or b""))
        if not waiters:
            return False
        event = _event(header(headers, "ce_type"), value)
        for waiter in tuple(waiters):
            if isinstance(event, Chunk):
                waiter.hear_chunk(event)
            elif event is not None:
                waiter.hear_response(event)
        return isinstance(event, Response)

    def fail(self, error: SpillwayError) -> list[Outgoing]:
        """Nobody needs to wait any more; returns what was waited for."""
        waiting = [waiter for waiters in self._waiters.values() for waiter in waiters]
        for waiter in waiting:
            waiter.fail(error)
        return [waiter.request for waiter in waiting]


def _event(kind: bytes | None, value: Any) -> Chunk | Response | None:
    try:
        return decode(Chunk, value) if kind == _CHUNK else decode(Response, value)
    except UndecodableError:
        return None
