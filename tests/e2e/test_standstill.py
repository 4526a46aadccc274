"""A worker that stood still or was cut off does no more than one that was killed at that moment.

Its successor has its partitions, its rows are refused, and what it had on the wire is all that may be called again.
What a lease alone would miss is in tests/integration/test_fencing.py, and among the faults that the histories find
(tests/simulation/mutants.py: "nobody compares epochs").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.load.accidents import cut_off, stands_still
from tests.support.load.proxy import Proxy
from tests.support.load.rounds import Load, Round, run_round
from tests.support.provider.instant import Provider
from tests.support.stack.running import running_stack
from tests.support.stack.workers import WIDE_LANES, start_workers

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(420)]

RATE = 100.0
#: The load goes on for so many seconds beyond the accident.
AROUND = 8.0
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
    return lambda: "".join(file.read_text() for file in sorted((stack.folder / "logs").glob("worker-*.log")))


@pytest.fixture
def pair(stack: DevStack, provider: Provider, proxy: Proxy) -> Iterator[list[Child]]:
    """Two workers; the network of the first can be cut."""
    workers = start_workers(stack, provider, 1, AI_KAFKA_BOOTSTRAP_SERVERS=proxy.address)
    workers.append(stack.worker(2, **provider.environment(), **WIDE_LANES))
    workers[1].start()
    workers[1].wait_ready(90)
    yield workers
    for worker in workers:
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


@pytest.mark.parametrize(("seconds", "times"), [(5, 1), (9, 1), (11, 1), (20, 1), (40, 1), (60, 1), (12, 2)])
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
