"""A streamed answer on its way to whoever asked: pieces put together into chunks, sent in order.

A provider's pieces are single words. One record for each would cost a worker more than the calls themselves, so what
comes within `interval` seconds goes as one chunk; the first piece goes at once. A reader that is slow, or a reply
topic that is gone, holds up no call: what cannot be sent yet becomes part of the next chunk, and the terminal response
has the whole content anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from schemas.chunk import Chunk
from schemas.internal import DispatchCommand
from schemas.request import CompletionRequest, ReplyAddress
from streams.dispatch.ports import Delta
from streams.logs import about
from streams.replies import chunk_record
from streams.runtime.outbox import Outbox, arrived

log = logging.getLogger(__name__)

#: Seconds that the broker may take for a chunk: its topic may have been deleted since admission looked.
SEND_TIMEOUT = 10.0


def wants_chunks(command: DispatchCommand) -> ReplyAddress | None:
    """Where the request's chunks go; None if it asks for none, or has no address for them."""
    request = command.admitted.request
    return command.admitted.reply if isinstance(request, CompletionRequest) and request.stream else None


class ChunkStream:
    """The chunks of one attempt. Use it as a context: when the block is left, everything has been sent or given up."""

    def __init__(
        self,
        command: DispatchCommand,
        reply: ReplyAddress,
        outbox: Outbox,
        clock: Callable[[], datetime],
        interval: float,
    ) -> None:
        self._command = command
        self._reply = reply
        self._outbox = outbox
        self._clock = clock
        self._interval = interval
        self._text: list[str] = []
        self._tool_calls: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        #: One chunk at a time goes to the producer, which may have no room: the next one must not pass it.
        self._turn = asyncio.Lock()
        self._index = 0
        self._sent: list[Awaitable[Any]] = []
        self._is_given_up = False
        self._sending: asyncio.Task[None] | None = None
        self.first_at: datetime | None = None
        #: Bytes of text that the provider has written so far.
        self.written = 0

    async def __aenter__(self) -> ChunkStream:
        self._sending = asyncio.create_task(self._send_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._send()
        await self._heard()

    async def tell(self, delta: Delta) -> None:
        """A piece from the provider."""
        if self.first_at is None:
            self.first_at = self._clock()
        self.written += len(delta.content.encode(errors="replace"))
        if delta.content:
            self._text.append(delta.content)
        self._tool_calls += delta.tool_calls
        self._news.set()

    async def _send_on(self) -> None:
        while not self._is_given_up:
            await self._news.wait()
            self._news.clear()
            # Not to be torn apart: a chunk that was taken is sent.
            await asyncio.shield(self._send())
            await asyncio.sleep(self._interval)

    async def _send(self) -> None:
        """Send what has come together."""
        async with self._turn:
            if self._is_given_up or not (self._text or self._tool_calls):
                return
            try:
                record = chunk_record(self._chunk(), self._reply, self._command.admitted.traceparent)
                self._sent.append(await asyncio.wait_for(self._outbox.post(record), SEND_TIMEOUT))
            except Exception as error:  # noqa: BLE001 - the call is paid for, whatever becomes of its chunks
                self._give_up(self._reply.topic, error)

    def _chunk(self) -> Chunk:
        """What has come together, as the next chunk."""
        admitted = self._command.admitted
        chunk = Chunk.model_construct(
            request_id=admitted.request_id,
            workspace_id=admitted.workspace_id,
            attempt=self._command.next_attempt,
            index=self._index,
            content="".join(self._text),
            tool_calls=tuple(self._tool_calls),
            at=self._clock(),
        )
        self._index += 1
        self._text, self._tool_calls = [], []
        return chunk

    async def _heard(self) -> None:
        """Wait until the chunks are with the broker: the response comes after them."""
        try:
            await asyncio.wait_for(arrived(self._sent), SEND_TIMEOUT)
        except Exception as error:  # noqa: BLE001 - whatever became of them, the response has all of it
            self._give_up(self._reply.topic, error)

    def _give_up(self, topic: str, error: BaseException) -> None:
        self._is_given_up = True
        who = about(self._command.admitted.request_id, self._command.admitted.workspace_id)
        log.warning("chunks_undeliverable: %s: %s", topic, type(error).__name__, extra=who)
