"""The client for programs without an event loop: the same, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, Unpack

from app.client.client import LOOK_BACK, SpillwayClient
from app.client.errors import ClientClosedError
from app.client.outgoing import CompletionOptions, EmbeddingOptions, SearchOptions
from app.client.pieces import Piece
from app.client.stream import AnswerStream
from schemas.response import Response

T = TypeVar("T")


class SyncSpillwayClient:
    """`with SyncSpillwayClient(…) as client:`, with the arguments and methods of SpillwayClient.

    Threads may share it. Whoever is interrupted while waiting (Ctrl-C) cancels the request.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = SpillwayClient(*arguments, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> SyncSpillwayClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="spillway-client", daemon=True)
        self._thread.start()
        try:
            self.wait(self._client.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait(self._client.close())
        finally:
            self._end()

    def complete(self, prompt: str | None = None, **options: Unpack[CompletionOptions]) -> Response:
        return self.wait(self._client.complete(prompt, **options))

    def stream(self, prompt: str | None = None, **options: Unpack[CompletionOptions]) -> SyncAnswerStream:
        return SyncAnswerStream(self, self._client.stream(prompt, **options))

    def embed(self, texts: str | Sequence[str], **options: Unpack[EmbeddingOptions]) -> Response:
        return self.wait(self._client.embed(texts, **options))

    def search(self, query: str, **options: Unpack[SearchOptions]) -> Response:
        return self.wait(self._client.search(query, **options))

    def request(self, fields: Mapping[str, Any]) -> Response:
        return self.wait(self._client.request(fields))

    def publish(self, prompt: str | None = None, **options: Unpack[CompletionOptions]) -> str:
        return self.wait(self._client.publish(prompt, **options))

    def publish_many(self, requests: Iterable[Mapping[str, Any]]) -> list[str]:
        return self.wait(self._client.publish_many(requests))

    def cancel(self, request_id: str, *, workspace_id: str | None = None) -> None:
        self.wait(self._client.cancel(request_id, workspace_id=workspace_id))

    def result(
        self,
        request_id: str,
        *,
        workspace_id: str | None = None,
        look_back: timedelta = LOOK_BACK,
        timeout: float | None = None,
    ) -> Response:
        return self.wait(
            self._client.result(request_id, workspace_id=workspace_id, look_back=look_back, timeout=timeout)
        )

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the client's thread and wait for it; being interrupted cancels it."""
        if self._loop is None:
            work.close()
            raise ClientClosedError("The client is not open: use it as `with SyncSpillwayClient(…) as client`.")
        running: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def call(self, what: Any) -> None:
        """Have something done in the client's thread, without waiting for it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(what)

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop, self._thread = None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class SyncAnswerStream:
    """As AnswerStream: `with client.stream(…) as answer: for piece in answer: …`."""

    def __init__(self, client: SyncSpillwayClient, stream: AnswerStream) -> None:
        self._client = client
        self._stream = stream

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    @property
    def response(self) -> Response:
        return self._stream.response

    def __enter__(self) -> SyncAnswerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        try:
            return self._client.wait(self._stream.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._client.call(self._stream.close)
