"""Checks: asked for once by many, believed for a few seconds, and never waited for for long."""

from __future__ import annotations

import asyncio

from app.ops.checks import BELIEVED_FOR, Check, readiness


class Thing:
    """What is looked at. `wrong` is what is wrong with it, or what it raises."""

    def __init__(self) -> None:
        self.looks = 0
        self.now = 0.0
        self.wrong: str | Exception | None = None
        self.hangs = False

    async def look(self) -> str | None:
        self.looks += 1
        await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0))
        if isinstance(self.wrong, Exception):
            raise self.wrong
        return self.wrong


async def test_many_who_ask_at_once_cause_one_look() -> None:
    thing = Thing()
    check = Check(thing.look, clock=lambda: thing.now)
    assert await asyncio.gather(*(check.see() for _ in range(20))) == [None] * 20
    assert thing.looks == 1


async def test_what_was_found_is_believed_for_some_seconds_and_then_looked_at_again() -> None:
    thing = Thing()
    check = Check(thing.look, clock=lambda: thing.now)
    assert await check.see() is None
    thing.wrong, thing.now = "it is gone", BELIEVED_FOR - 0.1
    assert await check.see() is None
    thing.now = BELIEVED_FOR
    assert await check.see() == "it is gone"
    assert thing.looks == 2


async def test_a_look_that_hangs_is_given_up_and_the_next_one_may_succeed() -> None:
    thing = Thing()
    thing.hangs = True
    check = Check(thing.look, clock=lambda: thing.now, patience=0.01)
    assert await check.see() == "no answer within 0.01 seconds"
    thing.hangs, thing.now = False, BELIEVED_FOR
    assert await check.see() is None


async def test_a_look_that_raises_tells_the_kind_of_error_and_not_its_text() -> None:
    thing = Thing()
    thing.wrong = ValueError("password=secret")
    assert await Check(thing.look).see() == "ValueError"


async def test_whoever_loses_patience_does_not_end_the_look_of_the_others() -> None:
    thing = Thing()
    check = Check(thing.look)
    hurried = asyncio.create_task(check.see())
    other = asyncio.create_task(check.see())
    await asyncio.sleep(0)
    hurried.cancel()
    assert await other is None


async def test_a_worker_is_ready_when_nothing_is_wrong_and_says_what_is() -> None:
    well, ill = Thing(), Thing()
    ill.wrong = "ClickHouse does not answer."
    checks = {"kafka": Check(well.look), "clickhouse": Check(ill.look)}
    found = await readiness({"partitions": "tables are being restored"}, checks)
    assert not found.ready
    assert found.as_data() == {
        "ready": False,
        "checks": {
            "partitions": "tables are being restored",
            "kafka": "ok",
            "clickhouse": "ClickHouse does not answer.",
        },
    }
    assert (await readiness({"partitions": None, "progress": None}, {"kafka": Check(well.look)})).ready
