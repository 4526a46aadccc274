"""Worker processes of a stack."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.provider.instant import Provider

#: Lanes on all workers, with limits that are far above what a test sends: kept, and never reached.
WIDE_LANES = {
    "AI_LANE_SHARDS": "6",
    "AI_REQUESTS_PER_MINUTE": "1000000",
    "AI_TOKENS_PER_MINUTE": "1000000000",
}


@contextmanager
def running_worker(stack: DevStack, number: int = 1, /, **environment: str) -> Iterator[Child]:
    """A worker, ready. When the block ends well, the worker must stop by itself and in order."""
    worker = stack.worker(number, **environment)
    worker.start()
    try:
        worker.wait_ready(90)
        yield worker
    finally:
        stopped = worker.stop()
    assert stopped, "the worker did not stop by itself"
    assert worker.exit_code() == 0, worker.last_words()


def start(stack: DevStack, workers: list[Child], count: int, environment: dict[str, str], first: int = 1) -> None:
    """Start so many workers, and only these: those of the list that were stopped or killed stay as they are."""
    started = [stack.worker(number, **environment) for number in range(first, first + count)]
    workers += started
    for worker in started:
        worker.start()
    for worker in started:
        worker.wait_ready(90)


def lane_owner(workers: Sequence[Child]) -> Child:
    """The worker that calls: it has the more CPU time."""
    return max(workers, key=lambda worker: sum(psutil.Process(worker.pid).cpu_times()[:2]))


def start_workers(stack: DevStack, provider: Provider, count: int, **overrides: str) -> list[Child]:
    """Workers that call the instant provider, ready to work."""
    workers: list[Child] = []
    start(stack, workers, count, provider.environment() | WIDE_LANES | overrides)
    return workers


def fresh_lane(folder: Path, provider: str, **limits: int) -> Path:
    """A settings file that gives all models of a provider to a group that nobody has used: a lane without a past."""
    group = f"g{uuid.uuid4().hex[:12]}"
    lines = [f"[providers.{provider}.groups.{group}]", 'models = ["*"]', *(f"{k} = {v}" for k, v in limits.items())]
    file = folder / f"{group}.toml"
    file.write_text("\n".join(lines) + "\n")
    return file
