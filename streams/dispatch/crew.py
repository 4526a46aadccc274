"""A command's visit to its lane, and the crew that works on the visits whose turn has come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from streams.commands import Place
from streams.dispatch.desk import Item, Turn
from streams.dispatch.stations import Station
from streams.runtime.agents import EventLoop, Handler

#: Commands that are worked on at one time without a call: those that are passed on, and those delivered again.
WITHOUT_CALL = 256

Ended = Callable[[], None]


@dataclass(slots=True, eq=False)
class Visit:
    """A command at its lane: its place there, and the turn that it was given and has not used yet.

    Thousands may wait, so it holds no more than it must; `twins` are those who wait for its end. `item` is its place
    in the desk's queue while it waits, and `call` what ends its call while it has one.
    """

    partition: int
    place: Place
    station: Station
    drains: int
    turn: Turn | None = None
    twins: list[asyncio.Future[None]] | None = None
    item: Item | None = None
    call: asyncio.Timeout | None = None

    async def ended(self) -> None:
        """Wait for the end."""
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.twins = [*(self.twins or ()), end]
        await end

    def end(self) -> None:
        for twin in self.twins or ():
            if not twin.done():
                twin.set_result(None)

    def take_turn(self) -> Turn | None:
        turn, self.turn = self.turn, None
        return turn

    def cancel(self) -> None:
        """Nobody wants the answer any more: leave the queue, or the call."""
        if self.item is not None:
            self.station.desk.cancel(self.item)
        if self.call is not None and not self.call.expired():
            self.call.reschedule(asyncio.get_running_loop().time())


class Crew:
    """Starts the work on events whose turn has come: calls at once, everything else a bounded number at a time.

    When a circuit opens, thousands leave a lane in one moment. They wait here as what they were in the lane, an event
    and a function; a task of their own would be ten times as large.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._busy = 0
        self._backlog: deque[tuple[Any, Handler, Ended]] = deque()
        self._room = asyncio.Event()
        self._room.set()

    def call(self, event: Any, handler: Handler, ended: Ended) -> None:
        """Now: a reservation runs."""
        self._loop.start(event, handler).add_done_callback(lambda _: ended())

    def look_after(self, event: Any, handler: Handler, ended: Ended = lambda: None) -> None:
        """Soon, in order."""
        self._backlog.append((event, handler, ended))
        self._start_next()

    async def room(self) -> None:
        """Wait while work is left lying: reading on would only pile up more."""
        await self._room.wait()

    def _start_next(self) -> None:
        while self._backlog and self._busy < WITHOUT_CALL:
            event, handler, ended = self._backlog.popleft()
            self._busy += 1
            self._loop.start(event, handler).add_done_callback(partial(self._done, ended))
        if self._backlog:
            self._room.clear()
        else:
            self._room.set()

    def _done(self, ended: Ended, _: object) -> None:
        self._busy -= 1
        ended()
        self._start_next()
