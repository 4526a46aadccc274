"""A worker that stops itself at one place in its code, as one whose machine is paused at that very moment.

A signal from outside cannot aim between two steps that are milliseconds apart. Run as a program in place of
`spillway worker`; the variables STOPS_AT, CLOCK_STOPS_TOO and EPOCHS_APART say what is unlike an ordinary one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from app.devstack.child import Child
from app.devstack.stack import DevStack

STOPS_AT, CLOCK_STOPS_TOO, EPOCHS_APART = "STOPS_AT", "CLOCK_STOPS_TOO", "EPOCHS_APART"
#: The places: what the worker is about to do, or has just done, for the first time.
BEFORE_EPOCH, BEFORE_FENCE, BEFORE_RESTORE, IN_RESTORE, IN_DRAIN = (
    "before its epochs",
    "between its epochs and its fence rows",
    "between its fence rows and the restore",
    "in the restore",
    "in the drain",
)
#: Seconds between two looks of the clock that stands still while the process does, and what one look adds at most.
LOOK, MOST = 0.02, 0.2


def stopping_worker(stack: DevStack, number: int, place: str | None = None, **environment: str) -> Child:
    """Not started yet. Without a place it stops nowhere by itself."""
    worker = stack.worker(number, **environment, **({STOPS_AT: place} if place else {}))
    worker.command = [sys.executable, "-m", __name__, "worker"]
    return worker


class Stop:
    """Stops this process at its first call, until somebody sends SIGCONT."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self) -> None:
        if not self._done:
            self._done = True
            os.kill(os.getpid(), signal.SIGSTOP)


def before(method: Callable[..., Awaitable[Any]], stop: Stop) -> Callable[..., Awaitable[Any]]:
    async def stopped(*args: Any, **kwargs: Any) -> Any:
        stop()
        return await method(*args, **kwargs)

    return stopped


def after(method: Callable[..., Awaitable[Any]], stop: Stop) -> Callable[..., Awaitable[Any]]:
    async def stopped(*args: Any, **kwargs: Any) -> Any:
        result = await method(*args, **kwargs)
        stop()
        return result

    return stopped


def stop_at(place: str) -> None:
    """From now on the process stops there."""
    from faust.tables.base import Collection  # noqa: PLC0415 - loads Faust

    from streams.runtime.fencing import FencedProducer  # noqa: PLC0415
    from streams.runtime.owners import Owners  # noqa: PLC0415
    from streams.runtime.transport import AckLastConsumer  # noqa: PLC0415

    stop = Stop()
    producer: Any = FencedProducer
    owners: Any = Owners
    consumer: Any = AckLastConsumer
    if place == BEFORE_EPOCH:
        producer.take_epoch = before(producer.take_epoch, stop)
    elif place == BEFORE_FENCE:
        producer.take_epoch = after(producer.take_epoch, stop)
    elif place == BEFORE_RESTORE:
        owners.take = after(owners.take, stop)
    elif place == IN_DRAIN:
        consumer._wait_for_open_deliveries = before(consumer._wait_for_open_deliveries, stop)
    elif place == IN_RESTORE:
        apply = Collection.apply_changelog_batch

        def applied(*args: Any, **kwargs: Any) -> None:
            apply(*args, **kwargs)
            stop()

        Collection.apply_changelog_batch = applied  # type: ignore[method-assign]
    else:
        raise ValueError(place)


class StandingClock:
    """Seconds that do not pass while the process stands still, as those of a machine that was paused and saved."""

    def __init__(self) -> None:
        self._seconds = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self) -> float:
        return self._seconds

    def _run(self) -> None:
        seen = time.monotonic()
        while True:
            time.sleep(LOOK)
            now = time.monotonic()
            self._seconds += min(now - seen, MOST)
            seen = now


def lease_by(clock: Callable[[], float]) -> None:
    """Leases ask this clock."""
    from streams.runtime.lease import Lease  # noqa: PLC0415

    begin: Callable[..., None] = Lease.__init__

    def begun(self: Lease, session: float, rebalance: float = 60.0) -> None:
        begin(self, session, rebalance, clock)

    Lease.__init__ = begun  # type: ignore[assignment]


def take_epochs_apart() -> None:
    """Each owner has a producer id of its own, so the broker compares nobody's epochs: only the lease is left."""
    from streams.runtime.fencing import FencedProducer  # noqa: PLC0415

    take: Callable[..., Awaitable[tuple[int, int]]] = FencedProducer.take_epoch

    async def taken(self: FencedProducer, name: str) -> tuple[int, int]:
        return await take(self, f"{name}-{uuid4().hex}")

    FencedProducer.take_epoch = taken  # type: ignore[method-assign]


def main() -> None:
    from app.cli.context import command_settings  # noqa: PLC0415
    from app.cli.main import app  # noqa: PLC0415
    from app.logging import configure_logging  # noqa: PLC0415

    # Before Faust is loaded, as the command does.
    settings = command_settings()
    configure_logging(settings.log_level, settings.log_format)
    if place := os.environ.get(STOPS_AT):
        stop_at(place)
    if os.environ.get(CLOCK_STOPS_TOO):
        lease_by(StandingClock())
    if os.environ.get(EPOCHS_APART):
        take_epochs_apart()
    app()


if __name__ == "__main__":
    main()
