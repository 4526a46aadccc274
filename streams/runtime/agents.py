"""The loop that every agent runs: a task per event, bounded, acknowledged last, and no way to lose one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.faults import Whose, judge
from streams.runtime.incoming import Incoming, incoming_from
from streams.runtime.letters import bury
from streams.runtime.lives import worked_on
from streams.runtime.outbox import Outbox, Told
from streams.runtime.pausing import StagePause
from streams.runtime.progress import Standing
from streams.runtime.transport import DrainSignal
from streams.tracing import NO_TRACES, Traces

if TYPE_CHECKING:
    from streams.runtime.app import SpillwayApp

log = logging.getLogger(__name__)

#: What an agent works on at one time: each event is there several times over while it is (as bytes, read, written).
BYTES_AT_WORK = 16 * 1024 * 1024
#: Seconds between tries when the broker does not take an event's outputs.
BROKER_RETRY = 1.0


Handler = Callable[[Incoming], Awaitable[None]]


def workspace_of(incoming: Incoming) -> str:
    """Whose an event is, as its key says."""
    return (incoming.key or b"").decode(errors="replace")


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

    `says_once`: what a try has brought to the broker is not published again by the next one.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limit: int,
        outbox: Outbox,
        drain: DrainSignal,
        traces: Traces = NO_TRACES,
        whose: Callable[[Incoming], str] = workspace_of,
        says_once: bool = True,
    ) -> None:
        self._says_once = says_once
        self._handler = handler
        self._traces = traces
        self._room = Room(limit, BYTES_AT_WORK)
        self._outbox = outbox
        self._drain = drain
        self._whose = whose
        self._tasks: set[asyncio.Task[None]] = set()
        #: Of the stage, where it has one.
        self.pause: StagePause | None = None
        #: Events that have ended here, and those that wait for the broker or something else that is away.
        self.ended = 0
        self.refused = 0

    def standing(self) -> Standing:
        waits = bool(self._tasks) and not self.refused and not self.is_paused
        return Standing(waits=waits, steps=self.ended)

    def joins(self, app: SpillwayApp, stage: str, topic: str) -> None:
        """It is the work of a stage, which pauses where the fault is not its events'."""
        app.stages[stage] = self
        app.pauses[stage] = self.pause = StagePause(app, stage, topic, is_busy=lambda: bool(self._tasks))

    @property
    def is_paused(self) -> bool:
        return self.pause is not None and self.pause.is_on

    async def run(self, stream: Any) -> None:
        async for event in stream.noack().events():
            if self.turns_away(event):
                continue
            size = len(event.message.value or b"")
            await self._room.enter(size)
            task = self.start(event, self._handler)
            task.add_done_callback(partial(self._leave, size))

    def turns_away(self, event: Any) -> bool:
        """Whether the stage is paused: then the event is given up, and no more is read."""
        if self.pause is None or not self.pause.is_on:
            return False
        self.pause.hold()
        self.abandon(event)
        return True

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
        worked_on.set(event.message)
        incoming = incoming_from(event.message)
        try:
            self._check_pause()
            with self._traces.processing(incoming):
                handled = await self._until_accepted(incoming, handler)
        except AbandonedError:
            self.abandon(event)
        else:
            event.ack()
            if handled and self.pause is not None:
                self.pause.succeeded()
        finally:
            self.ended += 1

    def _check_pause(self) -> None:
        if self.is_paused:
            raise AbandonedError

    async def _until_accepted(self, incoming: Incoming, handler: Handler) -> bool:
        """Whether its own handler has done it; else it is buried."""
        unreadable = incoming.unreadable
        work = handler if unreadable is None else Burial(self._outbox, "unreadable", unreadable)
        told = Told()
        if self._says_once:
            told.begin()
        while True:
            try:
                await work(incoming)
            except AbandonedError:
                raise
            except Exception as error:  # noqa: BLE001 - nothing may stop a partition
                work = await self._after(error, work, incoming)
                told.try_again()
            else:
                return work is handler

    async def _after(self, error: Exception, work: Handler, incoming: Incoming) -> Handler:
        """What to do next with an event whose work raised: the same again, or its burial."""
        whose = judge(error)
        if whose is Whose.PASSES or (whose is Whose.OURS and self.pause is None):
            log.warning("broker_refused: %s: %s", incoming.place, type(error).__name__)
            await self._wait_for_the_broker(error)
            return work
        # The text of an unknown error may quote a prompt: its type and place are enough.
        words = str(error) if isinstance(error, StoreError) else _describe(error)
        if whose is Whose.UNKNOWN:
            log.error("fault: %s: %s", incoming.place, words)
        if self.pause is not None and self.pause.takes(whose, self._whose(incoming), words):
            raise AbandonedError from error
        return _nothing_more if isinstance(work, Burial) else self._bury(error)

    async def _wait_for_the_broker(self, error: Exception) -> None:
        self.refused += 1
        try:
            if await self._drain.wait(BROKER_RETRY):
                raise AbandonedError from error
        finally:
            self.refused -= 1

    def _bury(self, error: Exception) -> Burial:
        return Burial(self._outbox, "internal_error", f"Spillway failed: {_describe(error)}")


@dataclass(frozen=True)
class Burial:
    """The last handler of an event that none could handle."""

    outbox: Outbox
    code: str
    message: str

    async def __call__(self, incoming: Incoming) -> None:
        await bury(self.outbox, incoming, self.code, self.message)


async def _nothing_more(incoming: Incoming) -> None:
    """Not even a dead letter could be made of it. It must not hold up its partition; its place is in the log."""
    log.error("dead_letter_lost: %s: the record is left where it is", incoming.place)


def is_passing(error: BaseException) -> bool:
    """Whether the same work may succeed later, so that the event is not given up."""
    return judge(error) is Whose.PASSES


def _describe(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
