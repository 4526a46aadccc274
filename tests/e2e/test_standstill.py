"""A worker that stood still or was cut off does no more than one that was killed at that moment.

Its successor has its partitions, its rows are refused, and what it had on the wire is all that may be called again.
What a lease alone would miss is in tests/integration/test_fencing.py, and among the faults that the histories find
(tests/simulation/mutants.py: "nobody compares epochs").
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from app.devstack.child import Child, wait_all_ready
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.load.accidents import broker_killed, cut_off, stands_still, stops_by_itself
from tests.support.load.proxy import COORDINATOR, LEADER, Proxy
from tests.support.load.rounds import Load, Round, run_round
from tests.support.provider.instant import Provider
from tests.support.provider.simulator import MINUTE
from tests.support.stack.running import running_stack
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
from tests.support.stack.workers import WIDE_LANES, start_workers

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(420)]

RATE = 100.0
#: The load goes on for so many seconds beyond the accident.
AROUND = 8.0
#: Seconds for which it stands still: longer than its session.
LONG_STILL = 14.0
#: Calls a minute that a provider allows where there is a quota; the load asks both, for half as much again.
QUOTA = 240
PROVIDERS = ("claude", "openai")
#: Calls that passed the last look before the worker stood still, and reach the provider when it goes on: those between
#: the look and the wire.
BETWEEN_LOOK_AND_WIRE = 2


@pytest.fixture(scope="module")
def stack(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:  # noqa: ARG001
    """One of its own: all accounts are looked at, and other tests leave some that wait."""
    with running_stack(tmp_path_factory.mktemp("standstill")) as running:
        yield running


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    running = Provider.start(tmp_path_factory.mktemp("provider"), delay_ms=200)
    yield running
    running.stop()


@pytest.fixture
def proxy(stack: DevStack) -> Iterator[Proxy]:
    running = Proxy(stack.current.ports["kafka"])
    yield running
    running.stop()


@pytest.fixture
def logs(stack: DevStack) -> Callable[[], str]:
    """What the workers of one test have written: not those of the tests before."""
    files = (stack.folder / "logs").glob("worker-*.log")
    before = {file: file.stat().st_size for file in files}

    def written() -> str:
        files = sorted((stack.folder / "logs").glob("worker-*.log"))
        return "".join(file.read_bytes()[before.get(file, 0) :].decode() for file in files)

    return written


@pytest.fixture
def pair(stack: DevStack, provider: Provider, proxy: Proxy, logs: Callable[[], str]) -> Iterator[list[Child]]:  # noqa: ARG001
    """Two workers; the network of the first can be cut."""
    workers = start_workers(stack, provider, 1, AI_KAFKA_BOOTSTRAP_SERVERS=proxy.address)
    workers.append(stack.worker(2, **provider.environment(), **WIDE_LANES))
    workers[1].start()
    workers[1].wait_ready(90)
    yield workers
    for worker in workers:
        worker.stop()


@pytest.fixture
def alone(stack: DevStack, provider: Provider, logs: Callable[[], str]) -> Iterator[Child]:  # noqa: ARG001
    """A worker that goes on."""
    worker = stack.worker(2, **provider.environment(), **WIDE_LANES)
    worker.start()
    worker.wait_ready(90)
    yield worker
    worker.stop()


def assert_no_more_than_a_kill(done: Round, told: str) -> None:
    assert not done.missing, f"{len(done.missing)} requests have no response, for example {done.missing[:3]}"
    assert not done.contradicted, "terminal responses contradict each other"
    assert set(done.calls) <= set(done.ledger), "a call is not in the ledger"
    assert done.books == [], "the accounts are the ledger"
    twice = {attempt: count for attempt, count in done.calls.items() if count > 1}
    assert not twice, f"called twice under one attempt id: {twice}"
    late = done.repeated_calls - done.unreported_at_accident
    assert len(late) <= BETWEEN_LOOK_AND_WIRE, f"called again though reported: {sorted(late)[:5]}; {done.summary()}"
    assert "second_writer" not in told
    assert "Traceback" not in told


async def test_a_worker_that_stood_still_for_longer_than_its_session_does_no_more_than_a_dead_one(
    settings: Settings, provider: Provider, pair: list[Child], logs: Callable[[], str]
) -> None:
    seconds = 14.0
    load = Load(int((seconds + 2 * AROUND) * RATE), RATE, partial(stands_still, pair[0], seconds))
    done = await run_round(settings, provider, load)
    assert_no_more_than_a_kill(done, logs())


@pytest.mark.parametrize(("seconds", "times"), [(5, 1), (9, 1), (11, 1), (20, 1), (60, 1), (130, 1), (12, 2)])
async def test_for_however_long_a_worker_stands_still(
    settings: Settings, provider: Provider, pair: list[Child], logs: Callable[[], str], seconds: float, times: int
) -> None:
    length = seconds * times + 2 * AROUND
    done = await run_round(
        settings, provider, Load(int(length * RATE), RATE, partial(stands_still, pair[0], seconds, times))
    )
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
    length = seconds + 2 * AROUND
    done = await run_round(settings, provider, Load(int(length * RATE), RATE, partial(cut_off, proxy, seconds)))
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
    load = Load(int((LONG_STILL + 2 * AROUND) * RATE), RATE, partial(cut_off, proxy, LONG_STILL, only))
    done = await run_round(settings, provider, load)
    assert_no_more_than_a_kill(done, logs())


@pytest.mark.parametrize("seconds", [7.0, LONG_STILL])
async def test_a_quota_holds_for_whoever_stood_still_with_a_backlog(
    settings: Settings, stack: DevStack, provider: Provider, logs: Callable[[], str], seconds: float
) -> None:
    """Seven seconds are no change of owners: what was decided before them is sent after them, and counts from then."""
    limited = provider.environment() | WIDE_LANES | {"AI_REQUESTS_PER_MINUTE": str(QUOTA)}
    workers = [stack.worker(number, **limited) for number in (1, 2)]
    try:
        for worker in workers:
            worker.start()
        wait_all_ready(workers, 90)
        load = Load(3 * QUOTA, 20.0, partial(stands_still, workers[0], seconds), 240.0, accident_after=QUOTA)
        done = await run_round(settings, provider, load)
    finally:
        for worker in workers:
            worker.stop()
    assert_no_more_than_a_kill(done, logs())
    begun: dict[str, list[float]] = {}
    for event in provider.events():
        if event["event"] == "start" and event["id"] in done.calls:
            begun.setdefault(event["path"], []).append(event["t"])
    assert len(begun) == len(PROVIDERS)
    for path, moments in begun.items():
        busiest = max(bisect_right(moments, at + MINUTE) - number for number, at in enumerate(moments))
        assert busiest <= QUOTA + BETWEEN_LOOK_AND_WIRE, path


@pytest.mark.parametrize("place", [BEFORE_EPOCH, BEFORE_FENCE, BEFORE_RESTORE, IN_RESTORE])
async def test_wherever_it_stands_still_while_it_takes_its_partitions(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str], place: str
) -> None:
    assert alone.alive()
    late = stopping_worker(stack, 1, place, **provider.environment(), **WIDE_LANES)
    accident = partial(stops_by_itself, late, partial(time.sleep, LONG_STILL))
    try:
        done = await run_round(settings, provider, Load(int(2 * AROUND * RATE), RATE, accident))
    finally:
        late.stop()
    assert_no_more_than_a_kill(done, logs())


async def test_while_it_gives_its_partitions_up(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str]
) -> None:
    assert alone.alive()
    leaving = stopping_worker(stack, 1, IN_DRAIN, **provider.environment(), **WIDE_LANES)
    joining = stack.worker(3, **provider.environment(), **WIDE_LANES)
    accident = partial(stops_by_itself, leaving, partial(time.sleep, LONG_STILL), joining)
    try:
        leaving.start()
        leaving.wait_ready(90)
        done = await run_round(settings, provider, Load(int(2 * AROUND * RATE), RATE, accident))
    finally:
        leaving.stop()
        joining.stop()
    assert_no_more_than_a_kill(done, logs())


async def test_the_broker_is_killed_right_after_the_fence_rows(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str]
) -> None:
    assert alone.alive()
    joining = stopping_worker(stack, 1, BEFORE_RESTORE, **provider.environment(), **WIDE_LANES)
    accident = partial(stops_by_itself, joining, partial(broker_killed, stack))
    try:
        done = await run_round(settings, provider, Load(int(2 * AROUND * RATE), RATE, accident))
    finally:
        joining.stop()
    assert_no_more_than_a_kill(done, logs())


async def test_a_machine_is_paused_and_no_clock_of_it_knows(
    settings: Settings, stack: DevStack, provider: Provider, alone: Child, logs: Callable[[], str]
) -> None:
    """The lease still holds when it goes on. Its rows are refused all the same, and a call needs one."""
    assert alone.alive()
    paused = stopping_worker(stack, 1, **provider.environment(), **WIDE_LANES, **{CLOCK_STOPS_TOO: "1"})
    accident = partial(stands_still, paused, LONG_STILL)
    try:
        paused.start()
        paused.wait_ready(90)
        done = await run_round(settings, provider, Load(int((LONG_STILL + 2 * AROUND) * RATE), RATE, accident))
    finally:
        paused.stop()
    assert_no_more_than_a_kill(done, logs())


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
        await run_round(settings, provider, Load(int((20 + 2 * AROUND) * RATE), RATE, partial(cut_off, proxy, 20.0)))
    finally:
        for worker in workers:
            worker.stop()
    assert "second_writer" in logs()
