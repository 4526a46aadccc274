"""A command's visit to its lane, and the crew that works on the visits whose turn has come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streams.commands import Place
from streams.dispatch.desk import Item, Turn
from streams.dispatch.stations import Station
from streams.runtime.agents import EventLoop, Handler
from streams.runtime.lives import Life

#: Commands that are worked on at one time without a call: those that are passed on, and those delivered again.
WITHOUT_CALL = 256

Ended = Callable[[], None]


@dataclass(slots=True, eq=False)
class Hand:
    """One of those who work at one time, while a visit has it."""

    let_go: Callable[[], None] | None = None

    def free(self) -> None:
        """It can take up another visit. Nothing happens where the visit has none, or none any more."""
        let_go, self.let_go = self.let_go, None
        if let_go is not None:
            let_go()


@dataclass(slots=True, eq=False)
class Visit:
    """A command at its lane: its place there, and the turn that it was given and has not used yet.

    Thousands may wait, so it holds no more than it must; `twins` are called at its end: further deliveries of the same
    command. `item` is its place in the desk's queue while it waits, `call` what ends its call while it has one, and
    `hand` the one who works on it where it makes no call. `is_mark_owed`: its mark was taken back, and the broker may
    still have it. `newest` is the highest attempt that a command which came meanwhile is for.
    """

    place: Place
    station: Station
    drains: int
    turn: Turn | None = None
    twins: list[Ended] | None = None
    item: Item | None = None
    call: asyncio.Timeout | None = None
    hand: Hand = field(default_factory=Hand)
    is_mark_owed: bool = False
    newest: int = 0

    @property
    def life(self) -> Life:
        """The life of the partition in which it was delivered."""
        return self.station.life

    def overtaken_by(self, attempt: int) -> None:
        """A command for this attempt has come: those before it have been reported."""
        self.newest = max(self.newest, attempt)

    def when_over(self, look_again: Ended) -> None:
        self.twins = [*(self.twins or ()), look_again]

    def tell_twins(self) -> None:
        twins, self.twins = self.twins, None
        for look_again in twins or ():
            look_again()

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
    and a function; a task of their own would be ten times as large. While the broker is away those who have a hand wait
    for it; when it is back, requests that are overdue are answered before the others are passed on.

    Whoever has a hand must not wait for anything that may need another one: a turn in a lane, the end of a twin. Such
    a one lets go of it first (`Hand.free`), or waits without one.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._busy = 0
        #: How many have let go of a hand.
        self.freed = 0
        self._urgent: deque[tuple[Any, Handler, Ended, Hand]] = deque()
        self._backlog: deque[tuple[Any, Handler, Ended, Hand]] = deque()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def has_work(self) -> bool:
        return bool(self._busy or self._urgent or self._backlog)

    def call(self, event: Any, handler: Handler, ended: Ended) -> None:
        """Now: a reservation runs."""
        self._loop.start(event, handler).add_done_callback(lambda _: ended())

    def look_after(
        self,
        event: Any,
        handler: Handler,
        ended: Ended = lambda: None,
        hand: Hand | None = None,
        *,
        is_urgent: bool = False,
    ) -> None:
        """Soon, in order, the urgent ones first. While it is worked on `hand` is the one who does so."""
        (self._urgent if is_urgent else self._backlog).append((event, handler, ended, hand or Hand()))
        self._start_next()

    async def room(self) -> None:
        """Wait while work is left lying: reading on would only pile up more."""
        await self._room.wait()

    def _start_next(self) -> None:
        while (self._urgent or self._backlog) and self._busy < WITHOUT_CALL:
            event, handler, ended, hand = (self._urgent or self._backlog).popleft()
            self._busy += 1
            hand.let_go = self._let_go
            self._loop.start(event, handler).add_done_callback(partial(self._done, ended, hand))
        if self._urgent or self._backlog:
            self._room.clear()
        else:
            self._room.set()

    def _let_go(self) -> None:
        self._busy -= 1
        self.freed += 1
        self._start_next()

    def _done(self, ended: Ended, hand: Hand, _: object) -> None:
        ended()
        hand.free()
