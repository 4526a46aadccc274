"""A worker's process: start, be ready, run until it is told to stop, and end in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from faust.exceptions import ConsistencyError

from app.kafka import ASK_AGAIN, KafkaUnavailableError, cluster_of, explained
from app.ops.server import AddressError
from app.settings import Settings, SettingsError
from app.topics import PartitionsDifferError
from app.worker.build import build_worker
from app.worker.parts import Worker
from app.worker.predecessor import ProcessNote, noted
from app.worker.readiness import is_ready
from app.worker.waits import waits
from streams.runtime.errors import MissingTopicError

log = logging.getLogger(__name__)

#: Seconds between two looks at whether the worker has its partitions.
READY_POLL = 0.2
#: Allocations between two looks of the garbage collector at the youngest objects.
GC_ALLOCATIONS = 20_000
#: Seconds that giving up the partitions may take beyond the drain, and closing all that is open: after both, and the
#: calls, the process ends itself.
STOP_GRACE = 10.0
#: Seconds between two looks whether calls are still on the wire.
CALLS_POLL = 0.05
#: Seconds that one of the worker's connections may take to close.
CLOSE_TIMEOUT = 5.0


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the process's exit status (1: the worker crashed). Raises SettingsError."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_main(settings))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _main(settings: Settings) -> int:
    _make(settings.data_dir)
    with noted(settings.data_dir) as note:
        return await _work(settings, note)


async def _work(settings: Settings, note: ProcessNote) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    worker = await _begun(settings, note, stopping)
    if isinstance(worker, int):
        return worker
    await worker.app.start()
    _spare_the_collector()
    background = [beside(work) for work in (*worker.background, _watch_readiness(worker))]
    with contextlib.suppress(AttributeError, NotImplementedError):
        # Not on every platform.
        loop.add_signal_handler(signal.SIGUSR1, _tell_waits)
    try:
        status = await _until_stopped(worker, stopping)
        if status == 0:
            note.left()
        return status
    finally:
        for task in background:
            task.cancel()
        worker.ready_file.unlink(missing_ok=True)
        await _close(worker)


async def _begun(settings: Settings, note: ProcessNote, stopping: asyncio.Event) -> Worker | int:
    """A worker whose connections are all there; or the exit status, where that cannot be or is not wanted any more."""
    while True:
        worker = build_worker(settings, note)
        worker.ready_file.unlink(missing_ok=True)
        try:
            async with explained(cluster_of(settings)):
                if await _started(worker, stopping):
                    return worker
                status: int | None = 0
        except KafkaUnavailableError as error:
            status = None if error.passes_within else 1
            if status is None:
                # It was there a moment ago. What was begun with it is closed, and all is begun anew.
                log.warning("kafka_away: %s The worker starts again.", error)
            else:
                log.error("kafka_unavailable: %s", error)  # noqa: TRY400
        except (PartitionsDifferError, MissingTopicError, AddressError) as error:
            log.error("%s: %s", *_reason(error, settings))  # noqa: TRY400
            status = 1
        await _give_up(worker)
        if status is not None:
            return status
        await asyncio.sleep(ASK_AGAIN)


def _reason(error: Exception, settings: Settings) -> tuple[str, str]:
    """What keeps a worker from starting that no waiting ends: its name in the log, and a sentence."""
    match error:
        case PartitionsDifferError():
            return "partitions_differ", str(error)
        case MissingTopicError():
            return "topic_missing", cluster_of(settings).without(str(error))
    return "address_taken", str(error)


async def _started(worker: Worker, stopping: asyncio.Event) -> bool:
    """False if it was told to stop before all was there, which may wait for Kafka for long."""

    async def start_all() -> None:
        for start in worker.start:
            await start()

    starting, asked = asyncio.create_task(start_all()), asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait({starting})
    log.info("worker_stopped: it was told so before it had begun")
    return False


def beside(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Work that goes on until the worker ends. Where it ends before, that is a fault, and somebody must hear of it."""
    task = asyncio.create_task(work)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        name = getattr(task.get_coro(), "__qualname__", task.get_name())
        log.error("background_ended: %s: restart the worker", name, exc_info=task.exception())


def _tell_waits() -> None:
    """What the tasks wait for, for whoever wants to know why nothing happens."""
    for count, place in waits(asyncio.all_tasks()):
        log.info("waits: %s at %s", count, place)


def _make(folder: Path) -> None:
    """The folder of the tables. Raises SettingsError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"AI_DATA_DIR: {folder} cannot be made: {error.strerror}.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"AI_DATA_DIR: {folder} cannot be written to by this user.")


async def _give_up(worker: Worker) -> None:
    for work in worker.background:
        work.close()
    await _close(worker)


async def _close(worker: Worker) -> None:
    """Close all that can be closed; what cannot, because nobody answers any more, is left."""
    for close in worker.close:
        try:
            await asyncio.wait_for(close(), CLOSE_TIMEOUT)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - Kafka's clients cancel themselves
            log.warning("worker_close: %s", type(error).__name__)


def _spare_the_collector() -> None:
    """What was loaded at the start stays: the garbage collector need not walk through it again and again.

    Half a million objects of imported modules made each full collection a pause of some 100 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)


async def _until_stopped(worker: Worker, stopping: asyncio.Event) -> int:
    """Wait for a signal or a crash, then stop in order: drain, acknowledge, commit, leave the group; others go on with
    what waits. Calls on the wire are finished and reported, within their time.
    """
    app, loop = worker.app, asyncio.get_running_loop()
    asked = asyncio.create_task(stopping.wait())
    ended = asyncio.create_task(app.wait_until_stopped())
    gives_up = asyncio.create_task(_gives_up(worker))
    await asyncio.wait({asked, ended, gives_up}, return_when=asyncio.FIRST_COMPLETED)
    failed = gives_up.done()
    crash = app.crash_reason
    if isinstance(crash, ConsistencyError):
        folder = worker.settings.data_dir
        log.error(
            "tables_ahead: the tables in %s know more than Kafka does; if it is a new one, remove the folder", folder
        )
    elif crash is not None:
        log.error("worker_crashed: %s: %s", type(crash).__name__, crash)
    log.info("worker_stopping: finishing what is in flight")
    within = worker.settings.stop_within()
    _end_at_the_latest(within + 2 * STOP_GRACE)
    calls_end_by = loop.time() + within
    try:
        await asyncio.wait_for(app.stop(), app.drain_timeout + STOP_GRACE)
        await _calls_end(worker, calls_end_by)
    except TimeoutError:
        log.error("worker_stop_timed_out: what was in flight goes back to its partitions")  # noqa: TRY400
        return 1
    finally:
        asked.cancel()
        ended.cancel()
        gives_up.cancel()
    log.info("worker_stopped")
    return 1 if crash is not None or failed else 0


async def _calls_end(worker: Worker, moment: float) -> None:
    """Return when the last call has been reported, or at a moment of the event loop's clock."""
    loop = asyncio.get_running_loop()
    if calls := worker.calls():
        log.info("worker_calls: %s calls are on the wire; the partitions are given up already", calls)
    while worker.calls() and loop.time() < moment:  # noqa: ASYNC110 - counted in several places
        await asyncio.sleep(CALLS_POLL)
    if calls := worker.calls():
        log.warning("worker_calls_left: %s calls have not ended; each is in doubt", calls)


async def _gives_up(worker: Worker) -> None:
    """Return when the worker should end because it stands still."""
    await (worker.watch.is_over if worker.watch is not None else asyncio.Event()).wait()


def _end_at_the_latest(seconds: float) -> None:
    """End the process when an orderly stop has not: Kafka's clients may wait for ever for a broker that is gone.

    It costs no more than a kill, and nothing is lost by one: what was not acknowledged is delivered again.
    """

    def end() -> None:
        log.error("worker_stop_forced: the stop took longer than %g s; what was in flight is delivered again", seconds)
        logging.shutdown()
        os._exit(1)

    watchdog = threading.Timer(seconds, end)
    watchdog.daemon = True
    watchdog.start()


async def _watch_readiness(worker: Worker) -> None:
    """Keep the file `ready` in the data folder while the worker has its partitions and its tables, and its clock is
    right.
    """
    ready = False
    while True:
        now_ready = worker.clock_reason() is None and is_ready(worker.app)
        if now_ready and not ready:
            worker.ready_file.write_text(worker.app.clock().isoformat())
            log.info("worker_ready: %s partitions", len(worker.app.consumer.assignment()))
        elif ready and not now_ready:
            worker.ready_file.unlink(missing_ok=True)
        ready = now_ready
        await asyncio.sleep(READY_POLL)
