"""A stack of its own for the tests of a worker that stands still, and workers whose network can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.load.proxy import Proxy
from tests.support.provider.instant import Provider
from tests.support.stack.running import running_stack
from tests.support.stack.workers import WIDE_LANES, start, start_workers


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
    start(stack, workers, 1, provider.environment() | WIDE_LANES, first=2)
    yield workers
    for worker in workers:
        worker.stop()


@pytest.fixture
def alone(stack: DevStack, provider: Provider, logs: Callable[[], str]) -> Iterator[Child]:  # noqa: ARG001
    """A worker that goes on."""
    workers: list[Child] = []
    start(stack, workers, 1, provider.environment() | WIDE_LANES, first=2)
    yield workers[0]
    workers[0].stop()
