"""The loop that every agent runs: a task per event, bounded, acknowledged last, and no way to lose one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from schemas.codec import Headers
from schemas.dead_letter import DeadLetter, Origin
from streams.ports import DirectoryUnavailableError
from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.runtime.outbox import Outbox, UndeliverableError
from streams.runtime.transport import DrainSignal
from streams.topology import DEAD_LETTERS
from streams.tracing import NO_TRACES, Traces

log = logging.getLogger(__name__)

#: What an agent works on at one time: each event is there several times over while it is (as bytes, read, written).
BYTES_AT_WORK = 16 * 1024 * 1024
#: Seconds between tries when the broker does not take an event's outputs.
BROKER_RETRY = 1.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """One input record as the pure code may see it. `timestamp` is in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def origin(self) -> Origin:
        return Origin(self.topic, self.partition, self.offset, self.timestamp)


#: What goes away by itself.
PASSING = (KafkaError, OSError, DirectoryUnavailableError)
#: No waiting makes such a record fit.
TOO_LARGE = (MessageSizeTooLargeError, UndeliverableError)

Handler = Callable[[Incoming], Awaitable[None]]


class Room:
    """So many events at one time, and so many bytes of them; one alone may be larger. One at a time may wait for it."""

    def __init__(self, events: int, size: int) -> None:
        self._most = events
        self._most_bytes = size
        self._events = 0
        self._bytes = 0
        self._changed = asyncio.Event()

    async def enter(self, size: int) -> None:
        while self._events and (self._events >= self._most or self._bytes + size > self._most_bytes):
            self._changed.clear()
            await self._changed.wait()
        self._events += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        self._events -= 1
        self._bytes -= size
        self._changed.set()


class EventLoop:
    """Runs a handler for the events of a stream.

    The handler returns when everything that the event caused is with the broker. What it raises decides: a Kafka error
    is tried again until the broker is back; `AbandonedError` leaves the event unacknowledged; anything else is a fault,
    which goes to the dead letters with the original bytes, so that it stops neither the partition nor the worker.
    """

    def __init__(
        self, handler: Handler, *, limit: int, outbox: Outbox, drain: DrainSignal, traces: Traces = NO_TRACES
    ) -> None:
        self._handler = handler
        self._traces = traces
        self._room = Room(limit, BYTES_AT_WORK)
        self._outbox = outbox
        self._drain = drain
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stream: Any) -> None:
        async for event in stream.noack().events():
            size = len(event.message.value or b"")
            await self._room.enter(size)
            # Created here, inside the iteration: the task inherits this event as the current one, which is
            # how a table write finds its partition.
            task = self.start(event, self._handler)
            task.add_done_callback(partial(self._leave, size))

    def _leave(self, size: int, _: object) -> None:
        self._room.leave(size)

    def start(self, event: Any, handler: Handler) -> asyncio.Task[None]:
        """Work on an event at once, with a handler of its own."""
        task = asyncio.get_running_loop().create_task(self._handle(event, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def abandon(self, event: Any) -> None:
        """Leave an event unacknowledged: it will be delivered again, here or elsewhere."""
        event.app.consumer.deliveries.abandon([event.message])

    async def _handle(self, event: Any, handler: Handler) -> None:
        incoming = incoming_from(event.message)
        try:
            with self._traces.processing(incoming):
                await self._until_accepted(incoming, handler)
        except AbandonedError:
            self.abandon(event)
        else:
            event.ack()

    async def _until_accepted(self, incoming: Incoming, handler: Handler) -> None:
        work = handler
        while True:
            try:
                return await work(incoming)
            except AbandonedError:
                raise
            except Exception as error:  # noqa: BLE001 - nothing may stop a partition
                work = await self._after(error, work, incoming)

    async def _after(self, error: Exception, work: Handler, incoming: Incoming) -> Handler:
        """What to do next with an event whose work raised: the same again, or its burial."""
        if is_passing(error):
            log.warning("broker_refused: %s[%s]@%s: %s", *_where(incoming), type(error).__name__)
            await self._pause(error)
            return work
        # The text of an unknown error may quote a prompt: its type and place are enough.
        log.error("fault: %s[%s]@%s: %s", *_where(incoming), _describe(error))
        if isinstance(work, Burial):
            # Not even the dead letter went out. The event stays where it is, and this is not a tight loop.
            await self._pause(error)
        return self._bury(error)

    async def _pause(self, error: Exception) -> None:
        if await self._drain.wait(BROKER_RETRY):
            raise AbandonedError from error

    def _bury(self, error: Exception) -> Burial:
        return Burial(self._outbox, f"Spillway failed: {_describe(error)}")


@dataclass(frozen=True)
class Burial:
    """The last handler of an event that none could handle."""

    outbox: Outbox
    message: str

    async def __call__(self, incoming: Incoming) -> None:
        letter = dead_letter(incoming, "internal_error", self.message)
        try:
            await self.outbox.publish(letter)
        except TOO_LARGE:
            # A compressed record may be larger than any that can be written; it is named, and left where it is.
            log.error("dead_letter_too_large: %s[%s]@%s", *_where(incoming))  # noqa: TRY400
            await self.outbox.publish(_without_value(letter, incoming))


def is_passing(error: BaseException) -> bool:
    """Whether the same work may succeed later, so that the event is not given up."""
    return isinstance(error, (AbandonedError, *PASSING)) and not isinstance(error, TOO_LARGE)


def incoming_from(message: Any) -> Incoming:
    return Incoming(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=round((message.timestamp or 0) * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(message.headers or ()),
    )


def dead_letter(incoming: Incoming, code: str, message: str) -> Record:
    """The record that keeps an input's original bytes, and says why it is there."""
    letter = DeadLetter(incoming.origin, code, message, incoming.key, incoming.value, incoming.headers)
    return Record(DEAD_LETTERS, incoming.key, incoming.value, letter.to_headers())


def _without_value(letter: Record, incoming: Incoming) -> Record:
    size = str(len(incoming.value or b"")).encode()
    return replace(letter, value=None, headers=(*letter.headers, ("spillway-omitted-bytes", size)))


def _where(incoming: Incoming) -> tuple[str, int, int]:
    return incoming.topic, incoming.partition, incoming.offset


def _describe(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
