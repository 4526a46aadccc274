"""An answer that has come in time counts, also where the worker was too busy to look at it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from app.providers.patience import within

LIMIT = 0.2


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    new_loop: Callable[[], asyncio.AbstractEventLoop] = request.param
    with asyncio.Runner(loop_factory=new_loop) as running:
        yield running


async def heard(busy: float, *, answers: bool) -> bytes:
    """What comes over a connection within the limit, while the loop is busy for so many seconds."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        loop = asyncio.get_running_loop()

        def work() -> None:
            if answers:
                there.sendall(b"answer")
            time.sleep(busy)

        loop.call_soon(work)
        async with within(LIMIT):
            # In pieces, as an answer comes.
            return await loop.sock_recv(here, 3) + await loop.sock_recv(here, 3)


def test_what_has_arrived_while_the_loop_was_busy_is_read(runner: asyncio.Runner) -> None:
    assert runner.run(heard(2 * LIMIT, answers=True)) == b"answer"


@pytest.mark.parametrize("busy", [0.0, 2 * LIMIT])
def test_what_has_not_arrived_is_given_up(runner: asyncio.Runner, busy: float) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        runner.run(heard(busy, answers=False))
    assert time.monotonic() - begun >= LIMIT


def test_after_a_stand_still_the_limit_is_over(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.providers.patience.STOOD_STILL", LIMIT)
    with pytest.raises(TimeoutError):
        runner.run(heard(3 * LIMIT, answers=True))
