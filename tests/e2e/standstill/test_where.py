"""A worker stands still between two steps of a change of owners, or no clock of it knows that it did.

A signal from outside cannot hit such a moment, so the worker stops itself there (tests/support/stack/stopping.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from app.devstack.child import Child, wait_all_ready
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.load.accidents import broker_killed, cut_off, stands_still, stops_by_itself
from tests.support.load.proxy import Proxy
from tests.support.load.rounds import run_round
from tests.support.load.standing import LONG_STILL, harmless_round, load_around
from tests.support.provider.instant import Provider
from tests.support.stack.stopping import (
    BEFORE_EPOCH,
    BEFORE_FENCE,
    BEFORE_RESTORE,
    CLOCK_STOPS_TOO,
    EPOCHS_APART,
    IN_DRAIN,
    IN_RESTORE,
    stopping_worker,
)
from tests.support.stack.workers import WIDE_LANES

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(420)]


@pytest.mark.parametrize("place", [BEFORE_EPOCH, BEFORE_FENCE, BEFORE_RESTORE, IN_RESTORE])
async def test_wherever_it_stands_still_while_it_takes_its_partitions(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str], place: str
) -> None:
    assert alone.alive()
    late = stopping_worker(stack, 1, place, **provider.environment(), **WIDE_LANES)
    accident = partial(stops_by_itself, late, partial(time.sleep, LONG_STILL))
    await harmless_round(settings, provider, load_around(accident, LONG_STILL), [late], logs)


async def test_while_it_gives_its_partitions_up(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str]
) -> None:
    assert alone.alive()
    leaving = stopping_worker(stack, 1, IN_DRAIN, **provider.environment(), **WIDE_LANES)
    joining = stack.worker(3, **provider.environment(), **WIDE_LANES)
    leaving.start()
    leaving.wait_ready(90)
    accident = partial(stops_by_itself, leaving, partial(time.sleep, LONG_STILL), joining)
    await harmless_round(settings, provider, load_around(accident, LONG_STILL), [leaving, joining], logs)


async def test_the_broker_is_killed_right_after_the_fence_rows(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str]
) -> None:
    assert alone.alive()
    joining = stopping_worker(stack, 1, BEFORE_RESTORE, **provider.environment(), **WIDE_LANES)
    accident = partial(stops_by_itself, joining, partial(broker_killed, stack))
    await harmless_round(settings, provider, load_around(accident, LONG_STILL), [joining], logs)


async def test_a_machine_is_paused_and_no_clock_of_it_knows(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str]
) -> None:
    """The lease still holds when it goes on. Its rows are refused all the same, and a call needs one."""
    assert alone.alive()
    paused = stopping_worker(stack, 1, **provider.environment(), **WIDE_LANES, **{CLOCK_STOPS_TOO: "1"})
    paused.start()
    paused.wait_ready(90)
    accident = partial(stands_still, paused, LONG_STILL)
    await harmless_round(settings, provider, load_around(accident, LONG_STILL), [paused], logs)


async def test_a_lease_alone_lets_rows_of_a_worker_that_was_cut_off_in(
    settings: Settings, stack: DevStack, provider: Provider, proxy: Proxy, logs: Callable[[], str]
) -> None:
    """The control: where nobody compares epochs, what the network has kept back is written behind the successor's."""
    apart = provider.environment() | WIDE_LANES | {EPOCHS_APART: "1"}
    workers = [
        stopping_worker(stack, 1, **apart, AI_KAFKA_BOOTSTRAP_SERVERS=proxy.address),
        stopping_worker(stack, 2, **apart),
    ]
    try:
        for worker in workers:
            worker.start()
        wait_all_ready(workers, 90)
        await run_round(settings, provider, load_around(partial(cut_off, proxy, 20.0), 20.0))
    finally:
        for worker in workers:
            worker.stop()
    assert "second_writer" in logs()
