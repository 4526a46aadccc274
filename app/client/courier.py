"""What stands between the client's methods and Kafka: one producer, one reader of replies, and who waits for what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from pydantic import ValidationError

from app.client.connection import Connection, assign_ends, follow
from app.client.errors import (
    ClientClosedError,
    ConnectionLostError,
    InvalidRequestError,
    RequestTimedOut,
    SpillwayError,
)
from app.client.inbox import Inbox, Waiter
from app.client.outgoing import Outgoing, utc_now
from app.tracing.client import publishing, received
from schemas.cancellation import Cancellation
from schemas.codec import Headers, encode, event_headers
from streams.logs import about
from streams.topology import CANCELLATIONS, REQUESTS

log = logging.getLogger(__name__)

#: Seconds that closing waits for cancellations that are on their way.
CLOSING = 5.0


class Courier:
    """Brings requests to Kafka and replies to those who wait for them. `grace` is in seconds (see SpillwayClient)."""

    def __init__(self, connection: Connection, reply_topic: str, grace: float) -> None:
        self._connection = connection
        self._reply_topic = reply_topic
        self._grace = grace
        self._inbox = Inbox()
        self._stack = AsyncExitStack()
        self._producer: AIOKafkaProducer | None = None
        self._following: asyncio.Task[None] | None = None
        self._cancelling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect, and take the position from which no reply is missed. Raises ConnectionLostError."""
        try:
            partitions = await self._connection.partitions(self._reply_topic)
            consumer = await self._stack.enter_async_context(self._connection.consumer())
            await assign_ends(consumer, partitions)
            self._producer = await self._stack.enter_async_context(self._connection.producer())
        except BaseException:
            await self._stack.aclose()
            raise
        self._following = asyncio.create_task(follow(consumer, self._hear))
        self._following.add_done_callback(self._heard_the_last)

    async def close(self) -> None:
        """Leave. Whoever still waits gets ClientClosedError, and what they wait for is cancelled."""
        for request in self._inbox.fail(ClientClosedError("The client was closed before the answer was there.")):
            self.cancel_soon(request)
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=CLOSING)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        self._producer, self._following = None, None
        await self._stack.aclose()

    @property
    def is_open(self) -> bool:
        return self._following is not None and not self._following.done()

    def _hear(self, record: ConsumerRecord) -> None:
        if self._inbox.hear(record.key, record.headers, record.value):
            received(record)

    def _heard_the_last(self, following: asyncio.Task[None]) -> None:
        """Nobody shall wait for a reply that nobody reads."""
        if not following.cancelled():
            log.error("replies_unread: %s", type(following.exception()).__name__)
            self._inbox.fail(ConnectionLostError("Replies are not read any more; open the client again."))

    def expect(self, request: Outgoing, *, streamed: bool = False) -> Waiter:
        """Wait for a request that is about to be sent: its reply may come before the sending is known to be done."""
        waiter = Waiter(request, streamed=streamed)
        self._inbox.expect(waiter)
        return waiter

    def leave(self, waiter: Waiter, *, cancel: bool) -> None:
        """Wait no more; `cancel` what was waited for. Does not hold up whoever leaves."""
        self._inbox.forget(waiter)
        if cancel:
            self.cancel_soon(waiter.request)

    @asynccontextmanager
    async def patience(self, request: Outgoing, until: float | None = None) -> AsyncIterator[asyncio.Timeout]:
        """The time that a request may take, from now, or until a moment of the loop's clock. Raises RequestTimedOut."""
        seconds = (request.timeout or 0) + self._grace
        try:
            async with asyncio.timeout_at(until or asyncio.get_running_loop().time() + seconds) as limit:
                yield limit
        except TimeoutError:
            raise RequestTimedOut(
                f"No answer came within {seconds:g} seconds; is a worker running? An id that was answered before is "
                "not answered again: `result` finds its answer.",
                request_id=request.request_id,
            ) from None

    async def send(self, request: Outgoing) -> None:
        """Publish; returns when Kafka has it. Raises InvalidRequestError for what is too large, ConnectionLostError."""
        known = request.request_id, request.workspace_id
        with publishing(REQUESTS, request.value, request.headers, *known) as told:
            put = self._put(REQUESTS, request.workspace_id, request.value, told.headers, request.request_id)
            told.placed(await put)

    async def cancel(self, request_id: str, workspace_id: str) -> None:
        """Publish a cancellation; returns when Kafka has it."""
        try:
            event = Cancellation(request_id=request_id, workspace_id=workspace_id)
        except ValidationError as error:
            raise InvalidRequestError(f"{error.errors()[0]['input']!r} is no request id or workspace.") from None
        headers = event_headers(
            event_id=f"{request_id}/cancellation",
            event_type=event.ce_type,
            workspace_id=workspace_id,
            time=utc_now(),
        )
        await self._put(CANCELLATIONS, workspace_id, encode(event), headers, request_id)

    def cancel_soon(self, request: Outgoing) -> None:
        """Cancel without waiting for it."""
        if self._producer is not None:
            task = asyncio.ensure_future(self._cancel_quietly(request))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _cancel_quietly(self, request: Outgoing) -> None:
        try:
            await self.cancel(request.request_id, request.workspace_id)
        except SpillwayError as error:
            who = about(request.request_id, request.workspace_id)
            log.warning("cancellation_unsent: %s", type(error).__name__, extra=who)

    async def _put(self, topic: str, workspace_id: str, value: bytes, headers: Headers, request_id: str) -> Any:
        if self._producer is None:
            raise ClientClosedError("The client is not open: use it as `async with SpillwayClient(…) as client`.")
        try:
            return await self._producer.send_and_wait(topic, value, key=workspace_id.encode(), headers=list(headers))
        except MessageSizeTooLargeError:
            raise InvalidRequestError(f"The request has {len(value):,} bytes, more than a record may have.") from None
        except KafkaError as error:
            raise ConnectionLostError(
                f"Kafka did not take the request: {type(error).__name__}.", request_id=request_id
            ) from None
