"""A worker that stood still or was cut off does no more than one that was killed at that moment.

Its successor has its partitions, its rows are refused, and what it had on the wire is all that may be called again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial

import pytest

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.load.accidents import cut_off, stands_still
from tests.support.load.proxy import COORDINATOR, LEADER, Proxy
from tests.support.load.rounds import Load, run_round
from tests.support.load.standing import LONG_STILL, assert_no_more_than_a_kill, harmless_round, load_around
from tests.support.provider.instant import Provider
from tests.support.provider.simulator import MINUTE
from tests.support.stack.workers import start_workers

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(420)]

#: Calls a minute that a provider allows where there is a quota; the load asks both, for half as much again.
QUOTA = 240
PROVIDERS = ("claude", "openai")
#: Calls that passed the last look before the worker stood still, and reach the provider when it goes on.
BETWEEN_LOOK_AND_WIRE = 2


@pytest.mark.parametrize(("seconds", "times"), [(5, 1), (9, 1), (11, 1), (14, 1), (20, 1), (60, 1), (130, 1), (12, 2)])
async def test_for_however_long_a_worker_stands_still(
    settings: Settings, provider: Provider, pair: list[Child], logs: Callable[[], str], seconds: float, times: int
) -> None:
    accident = partial(stands_still, pair[0], seconds, times)
    done = await run_round(settings, provider, load_around(accident, seconds * times))
    assert_no_more_than_a_kill(done, logs())


@pytest.mark.parametrize("seconds", [5, 9, 11, 20, 40])
async def test_for_however_long_its_network_is_cut(
    settings: Settings,
    provider: Provider,
    pair: list[Child],
    proxy: Proxy,
    logs: Callable[[], str],
    seconds: float,
) -> None:
    assert pair[0].alive()
    done = await run_round(settings, provider, load_around(partial(cut_off, proxy, seconds), seconds))
    assert_no_more_than_a_kill(done, logs())


@pytest.mark.parametrize("only", [COORDINATOR, LEADER], ids=["coordinator", "leader"])
async def test_a_part_of_its_network_is_cut(
    settings: Settings,
    provider: Provider,
    pair: list[Child],
    proxy: Proxy,
    logs: Callable[[], str],
    only: frozenset[int],
) -> None:
    """Without the leaders it is an owner who can write nothing; without the coordinator, one who may write no more."""
    assert pair[0].alive()
    done = await run_round(settings, provider, load_around(partial(cut_off, proxy, LONG_STILL, only), LONG_STILL))
    assert_no_more_than_a_kill(done, logs())


@pytest.mark.parametrize("seconds", [7.0, LONG_STILL])
async def test_a_quota_holds_for_whoever_stood_still_with_a_backlog(
    settings: Settings, stack: DevStack, provider: Provider, logs: Callable[[], str], seconds: float
) -> None:
    """Seven seconds are no change of owners: what was decided before them is sent after them, and counts from then."""
    workers = start_workers(stack, provider, 2, AI_REQUESTS_PER_MINUTE=str(QUOTA))
    load = Load(3 * QUOTA, 20.0, partial(stands_still, workers[0], seconds), 240.0, accident_after=QUOTA)
    done = await harmless_round(settings, provider, load, workers, logs)
    begun: dict[str, list[float]] = {}
    for event in provider.events():
        if event["event"] == "start" and event["id"] in done.calls:
            begun.setdefault(event["path"], []).append(event["t"])
    assert len(begun) == len(PROVIDERS)
    for path, moments in begun.items():
        busiest = max(bisect_right(moments, at + MINUTE) - number for number, at in enumerate(moments))
        assert busiest <= QUOTA + BETWEEN_LOOK_AND_WIRE, path
