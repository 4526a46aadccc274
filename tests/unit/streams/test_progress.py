"""Who stands still, who may, and what a worker makes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest

from app.worker.standstill import PATIENCE, Watch
from app.worker.waits import waits
from streams.runtime.progress import Progress, Standing


def test_who_has_work_and_takes_no_step_stands_still_and_who_has_none_does_not() -> None:
    progress = Progress()
    at = {"busy": Standing(True, 1), "stuck": Standing(True, 5), "idle": Standing(False, 0)}
    assert progress.look(at, 100.0) == {"busy": 0.0, "stuck": 0.0}
    assert progress.look(at | {"busy": Standing(True, 2)}, 130.0) == {"busy": 0.0, "stuck": 30.0}
    assert progress.look({"stuck": Standing(True, 6)}, 140.0) == {"stuck": 0.0}
    assert progress.look({}, 150.0) == {}
    assert progress.look({"stuck": Standing(True, 6)}, 160.0) == {"stuck": 0.0}, "nobody looked at it meanwhile"


class World:
    """A worker's parts, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.parts: Mapping[str, Standing] | None = {"admit": Standing(True, 1)}

    async def __call__(self) -> Mapping[str, Standing] | None:
        return self.parts

    def watch(self, end_after: float) -> Watch:
        return Watch(self, end_after, clock=lambda: self.now)


async def test_a_worker_says_that_a_part_stands_still_and_that_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    watch = world.watch(300)
    with caplog.at_level(logging.INFO):
        for world.now in (0.0, PATIENCE - 1):
            await watch.look()
            assert not watch.still
        for world.now in (PATIENCE, PATIENCE + 5):
            await watch.look()
        assert watch.reason == f"work waits and nothing is done: admit for {PATIENCE + 5:.0f} s"
        world.parts = {"admit": Standing(True, 2)}
        await watch.look()
    assert not watch.still
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["stands_still", "goes_on"]


async def test_a_worker_that_stands_still_for_too_long_is_told_to_end() -> None:
    world = World()
    watch = world.watch(300)
    for world.now in (0.0, 299.0):
        await watch.look()
    assert not watch.is_over.is_set()
    world.now = 300.0
    await watch.look()
    assert watch.is_over.is_set()


@pytest.mark.parametrize("end_after", [0, 300])
async def test_while_the_broker_is_away_nothing_stands_still_and_without_a_limit_no_worker_is_ended(
    end_after: int,
) -> None:
    world = World()
    watch = world.watch(end_after)
    for minute in range(100):
        world.now = minute * 60.0
        world.parts = None if end_after else {"admit": Standing(True, 1)}
        await watch.look()
    assert not watch.is_over.is_set()


async def test_what_tasks_wait_for_is_told_by_place_and_count_and_without_what_they_work_on() -> None:
    release = asyncio.Event()

    async def inner(secret: str) -> str:
        await release.wait()
        return secret

    async def outer(secret: str) -> str:
        return await inner(secret)

    tasks = [asyncio.create_task(outer(f"prompt-{n}")) for n in range(3)]
    await asyncio.sleep(0)
    found = {place: count for count, place in waits(tasks)}
    (place,) = found
    assert found[place] == 3
    assert "inner" in place
    assert "outer" in place
    assert "prompt" not in place
    release.set()
    await asyncio.gather(*tasks)
    assert waits(tasks) == []
