"""A desk in virtual time: arrivals, calls that take a while, and alarms, all by one clock that jumps."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from schemas.base import Priority
from schemas.usage import Tokens
from streams.commands import Place
from streams.dispatch.desk import LOOK_AHEAD_BYTES, Desk, Granted, Item, PassOn, Turn
from streams.dispatch.lane import Lane, Reservation
from streams.dispatch.ports import Answer, Failure
from streams.dispatch.quota import Limits

START = 1_800_000_000.0
FOR_EVER = START + 10.0**8


@dataclass
class Story:
    """What became of one request. Times are seconds since 1970; `turns` are all it was told, in order."""

    place: Place
    arrived_at: float
    turns: list[Turn] = field(default_factory=list)
    called_at: float | None = None
    item: Item | None = None

    @property
    def wait(self) -> float:
        assert self.called_at is not None, f"{self.place.key} was never called"
        return self.called_at - self.arrived_at


Result = Callable[[Story], Answer | Failure]


def answered(tokens: int) -> Answer:
    return Answer("hello", "some-model", "stop", Tokens(prompt_tokens=tokens))


class VirtualDesk:
    """A desk, its lane, and a provider that takes `latency` seconds for every call."""

    def __init__(
        self,
        limits: Limits,
        *,
        latency: float = 0.5,
        look_ahead: int = 20_000,
        look_ahead_bytes: int = LOOK_AHEAD_BYTES,
        concurrency: int = 64,
        result: Result = lambda story: answered(story.place.tokens),
    ) -> None:
        self.now = START
        self.lane = Lane(limits, concurrency=concurrency)
        self.latency = latency
        self.result = result
        self.stories: list[Story] = []
        self.in_flight: dict[int, tuple[Story, Reservation]] = {}
        self.reading = True
        #: Whether this worker may make calls.
        self.may_call = True
        self.alarm: float | None = None
        self._dice = random.Random(7)  # noqa: S311 - a die, and nothing secret
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = count()
        self.desk = Desk(
            self.lane,
            clock=lambda: self.now,
            wake_at=self._set_alarm,
            reading=self._read,
            jitter=self._dice.random,
            look_ahead=look_ahead,
            look_ahead_bytes=look_ahead_bytes,
            may_call=lambda: self.may_call,
        )

    def request(
        self,
        workspace: str = "acme",
        *,
        priority: Priority = Priority.NORMAL,
        deadline: float = FOR_EVER,
        tokens: int = 100,
        has_fallback: bool = False,
        back: tuple[str, ...] = (),
        size: int = 0,
    ) -> Story:
        """One arrives, now."""
        key = f"{workspace}/{len(self.stories)}"
        story = Story(Place(key, workspace, priority, deadline, tokens, 1, has_fallback, back=back), self.now)
        self.stories.append(story)
        story.item = self.desk.arrive(story.place, lambda turn: self._told(story, turn), size)
        return story

    def request_again(self, failed: Story, *, after: float = 0.0) -> Story:
        """A request whose call has failed waits for another one, for so many seconds at least."""
        story = Story(replace(failed.place, attempt=failed.place.attempt + 1), self.now)
        self.stories.append(story)
        story.item = self.desk.come_again(story.place, lambda turn: self._told(story, turn), self.now + after)
        return story

    def cancel(self, story: Story) -> None:
        """Nobody wants it any more."""
        if story.item is not None:
            self.desk.cancel(story.item)

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Do something at a moment."""
        heapq.heappush(self._events, (moment, next(self._tickets), lambda: (action(), None)[1]))

    def run_until(self, moment: float) -> None:
        """Let everything happen that is due until then."""
        while True:
            at = min(self._events[0][0] if self._events else moment, self.alarm if self.alarm else moment)
            if at >= moment:
                self.now = moment
                return
            self.now = max(self.now, at)
            if self.alarm is not None and self.alarm <= self.now:
                self.alarm = None
                self.desk.serve()
            else:
                heapq.heappop(self._events)[2]()

    def finish(self, number: int, result: Answer | Failure) -> None:
        """A call ends."""
        _, held = self.in_flight.pop(number)
        self.desk.settle(held, result)

    def _told(self, story: Story, turn: Turn) -> None:
        story.turns.append(turn)
        if isinstance(turn, Granted):
            story.called_at = self.now
            number = next(self._tickets)
            self.in_flight[number] = story, turn.reservation
            if self.latency >= 0:
                self.at(self.now + self.latency, lambda: self.finish(number, self.result(story)))

    def _set_alarm(self, moment: float) -> None:
        self.alarm = moment

    def _read(self, go_on: bool) -> None:
        self.reading = go_on

    def reasons(self) -> list[str]:
        return [turn.reason for story in self.stories for turn in story.turns if isinstance(turn, PassOn)]


def p95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[int(len(ordered) * 0.95)]
