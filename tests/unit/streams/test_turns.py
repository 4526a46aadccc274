"""Events of a partition are decided in order, even where one has to wait."""

from __future__ import annotations

import asyncio

import pytest

from streams.runtime.errors import AbandonedError
from streams.runtime.transport import DrainSignal
from streams.runtime.turns import Turns


async def test_an_event_waits_for_the_ones_before_it_in_its_partition_and_for_no_others() -> None:
    turns, order, may_go = Turns(DrainSignal()), list[str](), asyncio.Event()

    async def work(name: str, partition: int, waits: bool = False) -> None:
        async with turns.turn(partition):
            if waits:
                await may_go.wait()
            order.append(name)

    tasks = [asyncio.create_task(work(*told)) for told in (("first", 0, True), ("second", 0), ("elsewhere", 1))]
    await asyncio.wait([tasks[2]])
    assert order == ["elsewhere"]
    may_go.set()
    await asyncio.gather(*tasks)
    assert order == ["elsewhere", "first", "second"]


async def test_what_comes_after_an_abandoned_event_is_abandoned_too_until_the_drain_is_over() -> None:
    drain = DrainSignal()
    turns, done = Turns(drain), list[str]()

    async def hold(name: str) -> None:
        async with turns.turn(0):
            await turns.wait(0, 60)
            done.append(name)

    async def pass_through(name: str) -> None:
        async with turns.turn(0):
            done.append(name)

    tasks = [asyncio.create_task(hold("waits")), asyncio.create_task(pass_through("after"))]
    await asyncio.sleep(0)
    drain.begin()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [AbandonedError, AbandonedError]
    with pytest.raises(AbandonedError):
        await pass_through("still in the drain")
    drain.end()
    await pass_through("delivered again")
    assert done == ["delivered again"]


async def test_a_wait_that_nothing_interrupts_ends_by_itself() -> None:
    turns = Turns(DrainSignal())
    async with turns.turn(0):
        await turns.wait(0, 0.001)


async def test_a_drain_that_is_over_at_once_holds_up_nothing_that_comes_after_it() -> None:
    drain = DrainSignal()
    turns = Turns(drain)

    async def hold() -> None:
        async with turns.turn(0):
            await turns.wait(0, 60)

    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0)
    drain.begin()
    drain.end()
    with pytest.raises(AbandonedError):
        await waiting
    async with turns.turn(0):
        pass
