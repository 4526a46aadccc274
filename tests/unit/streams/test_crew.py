"""Who works on the visits whose turn has come, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streams.dispatch import crew
from streams.dispatch.crew import Crew, Hand
from streams.dispatch.decide import AttemptMark
from streams.runtime import agents
from streams.runtime.agents import EventLoop
from tests.unit.streams.test_dispatcher import World, command, now


class Loop:
    """Starts the work on events, and ends it when it is told to."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.at_work: list[asyncio.Event] = []

    def start(self, event: str, _: object) -> asyncio.Task[Any]:
        self.started.append(event)
        over = asyncio.Event()
        self.at_work.append(over)
        return asyncio.get_running_loop().create_task(over.wait())

    async def end_all(self) -> None:
        """Of what was started and is not over."""
        over, self.at_work = self.at_work, []
        for one in over:
            one.set()
        for _ in range(5):
            await asyncio.sleep(0)


async def nothing(_: object) -> None:
    """A handler."""


def made(loop: Loop) -> Crew:
    return Crew(cast(EventLoop, loop))


async def test_what_is_urgent_goes_before_all_that_waits_and_each_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker was away, and those who have a hand waited for it."""
    monkeypatch.setattr(crew, "WITHOUT_CALL", 2)
    loop = Loop()
    work = made(loop)
    for number in range(5):
        work.look_after(f"passed on {number}", nothing)
    for number in range(3):
        work.look_after(f"overdue {number}", nothing, is_urgent=True)
    assert loop.started == ["passed on 0", "passed on 1"]
    while loop.at_work:
        await loop.end_all()
    assert loop.started[2:] == [
        *(f"overdue {number}" for number in range(3)),
        *(f"passed on {number}" for number in range(2, 5)),
    ]
    assert not work.has_work


async def test_while_anything_is_left_lying_no_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WITHOUT_CALL", 1)
    loop = Loop()
    work = made(loop)
    work.look_after("first", nothing)
    await asyncio.wait_for(work.room(), 10)
    work.look_after("overdue", nothing, is_urgent=True)
    reading = asyncio.create_task(work.room())
    await asyncio.sleep(0)
    assert not reading.done()
    assert work.has_work
    while loop.at_work:
        await loop.end_all()
    await asyncio.wait_for(reading, 10)


async def test_a_hand_that_is_let_go_of_takes_up_the_next_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WITHOUT_CALL", 1)
    loop = Loop()
    work, hand = made(loop), Hand()
    work.look_after("waits for its turn", nothing, hand=hand)
    work.look_after("overdue", nothing, is_urgent=True)
    hand.free()
    assert loop.started == ["waits for its turn", "overdue"]
    while loop.at_work:
        await loop.end_all()
    assert not work.has_work


async def test_with_the_broker_back_what_is_overdue_is_answered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WITHOUT_CALL", 1)
    monkeypatch.setattr(agents, "BROKER_RETRY", 0.005)
    world = World()
    world.outbox.is_away = True
    again = [f"r-{number}" for number in range(4)]
    for name in again:
        world.marks.rows[f"openai/acme/{name}"] = AttemptMark(now().timestamp())
        world.deliver(command(name))
    world.deliver(command("overdue", seconds=-1.0))
    await asyncio.sleep(0)
    world.outbox.is_away = False
    await world.settled()
    said = [report.request_id for report in world.outbox.reports()]
    assert sorted(said) == sorted([*again, "overdue"])
    assert said.index("overdue") == 1, "after the one that had the hand"
