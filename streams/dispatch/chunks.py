"""A streamed answer on its way to whoever asked: pieces put together into chunks, sent in order.

A provider's pieces are single words. One record for each would cost a worker more than the calls themselves, so what
comes within `interval` seconds goes as one chunk; the first piece goes at once. A reader that is slow, or a reply
topic that is gone, holds up no call: what cannot be sent yet becomes part of the next chunk, and the terminal response
has the whole content anyway.

A worker that others may have taken for dead tells no more pieces of a call: the next attempt may have begun to. What
it has not told then goes with its report. Where the report is the answer after all, settlement tells it.
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
from streams.dispatch.ports import Delta, always
from streams.logs import about
from streams.replies import chunk_record
from streams.runtime.outbox import Outbox, arrived

log = logging.getLogger(__name__)

#: Seconds that the broker may take for a chunk: its topic may have been deleted since admission looked.
SEND_TIMEOUT = 10.0
#: Seconds that the end of the call waits for what has not arrived yet. The answer waits so long as well.
END_TIMEOUT = 3.0


def wants_chunks(command: DispatchCommand) -> ReplyAddress | None:
    """Where the request's chunks go; None if it asks for none, or has no address for them."""
    request = command.admitted.request
    return command.admitted.reply if isinstance(request, CompletionRequest) and request.stream else None


class ChunkStream:
    """The chunks of one attempt. Use it as a context: when the block is left, everything has been sent or given up.

    `may_tell` is asked before each chunk; once it has said no, there are no more.
    """

    def __init__(
        self,
        command: DispatchCommand,
        reply: ReplyAddress,
        outbox: Outbox,
        clock: Callable[[], datetime],
        interval: float,
        may_tell: Callable[[], bool] = always,
    ) -> None:
        self._command = command
        self._may_tell = may_tell
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
        self._is_given_up = self._is_stopped = False
        self._sending: asyncio.Task[None] | None = None
        self._handing_over: asyncio.Task[None] | None = None
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
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._send()
                await self._heard()
        except TimeoutError as error:
            self._give_up(error)
            if self._handing_over is not None:
                # What the producer does not have yet would come after the answer.
                self._handing_over.cancel()

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
            self._handing_over = asyncio.create_task(self._send())
            await asyncio.shield(self._handing_over)
            await asyncio.sleep(self._interval)

    async def _send(self) -> None:
        """Send what has come together."""
        async with self._turn:
            if self._is_given_up or not (self._text or self._tool_calls):
                return
            if not self._may_tell():
                log.info("chunks_stopped: this worker may be taken for dead", extra=self._who)
                self._is_given_up = self._is_stopped = True
                return
            try:
                record = chunk_record(self._chunk(), self._reply, self._command.admitted.traceparent)
                self._sent.append(await asyncio.wait_for(self._outbox.post(record), SEND_TIMEOUT))
            except Exception as error:  # noqa: BLE001 - the call is paid for, whatever becomes of its chunks
                self._give_up(error)

    def rest(self) -> Chunk | None:
        """What was not told because the next attempt may have begun; for the report, when the call has ended."""
        return self._chunk() if self._is_stopped and (self._text or self._tool_calls) else None

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
            await arrived(self._sent)
        except Exception as error:  # noqa: BLE001 - whatever became of them, the response has all of it
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._is_given_up = True
        log.warning("chunks_undeliverable: %s: %s", self._reply.topic, type(error).__name__, extra=self._who)

    @property
    def _who(self) -> dict[str, str | int]:
        return about(self._command.admitted.request_id, self._command.admitted.workspace_id)
