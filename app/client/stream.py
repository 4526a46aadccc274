"""A streamed answer as an application reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from app.client.courier import Courier
from app.client.errors import ClientClosedError, checked
from app.client.inbox import Waiter
from app.client.outgoing import Outgoing
from app.client.pieces import Assembler, Piece
from schemas.response import Response


class AnswerStream:
    """Pieces of an answer while it is written; afterwards `response` has all of it, with usage and cost.

    Use it as a context: whoever leaves before the end cancels the request. Iterating ends with the error of a request
    that has no answer. It can be read once.
    """

    def __init__(self, courier: Courier, request: Outgoing) -> None:
        self._courier = courier
        self._request = request
        self._waiter: Waiter | None = None
        self._assembler = Assembler()
        self._pieces = self._read()
        self._response: Response | None = None

    @property
    def request_id(self) -> str:
        return self._request.request_id

    @property
    def response(self) -> Response:
        """The terminal response; there is one when the iteration has ended."""
        if self._response is None:
            raise ClientClosedError("The answer is not complete.", request_id=self.request_id)
        return self._response

    async def __aenter__(self) -> AnswerStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop reading; a request that is not answered yet is cancelled. Does not wait for that."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._courier.leave(waiter, cancel=self._response is None)

    async def _read(self) -> AsyncIterator[Piece]:
        self._waiter = self._courier.expect(self._request, streamed=True)
        async with self._courier.patience(self._request) as patience:
            await self._courier.send(self._request)
        # A generator may not wait inside a time-out of its own: the time between two pieces is the reader's.
        chunks = self._waiter.chunks()
        while True:
            try:
                async with self._courier.patience(self._request, patience.when()):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            if (piece := self._assembler.take(chunk)) is not None:
                yield piece
        self._response = await self._waiter.response()
        if (last := self._assembler.finish(checked(self._response))) is not None:
            yield last
        self.close()
