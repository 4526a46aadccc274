"""A worker of the shared stack, with simulated providers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.stack.workers import WIDE_LANES


@pytest.fixture(scope="module")
def worker(stack: DevStack) -> Iterator[Child]:
    """One worker process, ready; it is gone when the module's tests are done."""
    running = stack.worker(1, AI_MAX_REQUEST_BYTES="100000", **WIDE_LANES)
    running.start()
    try:
        running.wait_ready(90)
        yield running
    finally:
        assert running.stop(), "the worker did not stop by itself"
        assert running.exit_code() == 0, running.last_words()


@pytest.fixture
def workers() -> Iterator[list[Child]]:
    """Whatever a test starts is gone after it."""
    running: list[Child] = []
    yield running
    for worker in running:
        worker.stop()
