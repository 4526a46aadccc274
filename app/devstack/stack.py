"""The whole stack in one folder: Kafka, ClickHouse, the provider simulator and workers, started and stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import psutil

from app.devstack import clickhouse, kafka, ports, simulator, state
from app.devstack.child import Child
from app.devstack.errors import StackError
from app.devstack.settings import StackSettings

#: Bytes that must be free on the disk.
FREE_DISK = 1_000_000_000
#: Seconds.
PART_DEADLINE = 60.0
WORKER_DEADLINE = 90.0
WORKER_GRACE = 90.0
WATCH_INTERVAL = 0.5
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 30.0
#: A part that has been up for so long is well again: its next death starts the back-off anew.
WELL_AFTER = 60.0

Tell = Callable[[str], None]


def _silent(_: str) -> None: ...


class DevStack:
    """One stack. `start()` returns when all of it serves; `stop()` returns when nothing of it is left.

    `environ` decides which providers have keys and is what the workers inherit.
    """

    def __init__(
        self, settings: StackSettings, *, environ: Mapping[str, str] | None = None, tell: Tell = _silent
    ) -> None:
        self.settings = settings
        self.folder = settings.dir.resolve()
        self.environ = dict(os.environ if environ is None else environ)
        self.tell = tell
        self.parts: dict[str, Child] = {}
        self._lock: IO[str] | None = None
        self._state: state.StackState | None = None
        self._stopping = threading.Event()

    # Life ----------------------------------------------------------------------------------------------------------

    def start(self, *, fresh: bool = False) -> None:
        """Start every part. Raises StackError, and leaves nothing running then."""
        self._take_folder(fresh=fresh)
        try:
            self._start_services()
            self._prepare()
            self._start_workers()
        except BaseException:
            self.stop()
            raise
        self.current.ready = True
        self._save()

    def stop(self) -> None:
        """Stop in order: workers, simulator, ClickHouse, Kafka."""
        self._stopping.set()
        workers = [part for name, part in self.parts.items() if name.startswith("worker")]
        for worker in workers:
            worker.ask_to_stop()
        for name in [*(worker.name for worker in workers), "simulator", "clickhouse", "kafka"]:
            part = self.parts.get(name)
            if part is not None and part.alive():
                self.tell(f"stopping {name}")
                part.stop()
        if self._state is not None:
            self._state.supervisor, self._state.ready = None, False
            self._save()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def watch(self, until: threading.Event) -> None:
        """Restart what dies, with back-off, until the event is set."""
        due: dict[str, float] = {}
        while not until.wait(WATCH_INTERVAL):
            for name, part in self.parts.items():
                if part.alive() or not part.wanted:
                    due.pop(name, None)
                    continue
                if name not in due:
                    wait = self._backoff(part)
                    due[name] = time.monotonic() + wait
                    self.tell(f"{name} ended with status {part.exit_code()}; restarting it in {wait:.0f} s")
                elif time.monotonic() >= due[name]:
                    del due[name]
                    part.restarts += 1
                    part.start()
                    self.tell(f"{name} restarted (process {part.pid})")
                    self._save()

    @staticmethod
    def _backoff(part: Child) -> float:
        if time.time() - part.started_at > WELL_AFTER:
            part.restarts = 0
        return min(FIRST_BACKOFF * 2.0**part.restarts, LONGEST_BACKOFF)

    # Parts ---------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> state.StackState:
        if self._state is None:
            raise StackError("The stack is not started.")
        return self._state

    @property
    def kafka(self) -> Child:
        return self.parts["kafka"]

    @property
    def clickhouse(self) -> Child:
        return self.parts["clickhouse"]

    @property
    def simulator(self) -> Child | None:
        return self.parts.get("simulator")

    def environment(self) -> dict[str, str]:
        """The variables that a client or a worker of this stack needs, beyond the ones it inherits."""
        return self.current.environment()

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def worker(self, number: int, **overrides: str) -> Child:
        """A worker process of this stack, not started yet. `overrides` are more variables."""
        name = f"worker-{number}"
        data = self.folder / name
        first = self.settings.ops_port
        own = {"AI_DATA_DIR": str(data), "AI_OPS_PORT": str(first + number - 1 if first else 0)}
        environment = {**self.environ, **self.environment(), **own, **overrides}
        part = Child(
            name=name,
            command=[sys.executable, "-m", "app.cli.main", "worker"],
            log=self.log(name),
            ready=(data / "ready").exists,
            ready_file=data / "ready",
            environment=environment,
            grace=WORKER_GRACE,
        )
        self.parts[name] = part
        return part

    # Steps ---------------------------------------------------------------------------------------------------------

    def _take_folder(self, *, fresh: bool) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < FREE_DISK:
                raise StackError(
                    f"The disk of {self.folder} is full: {free // 10**6} MB are free, 1,000 MB are needed."
                )
            self._lock = state.lock(self.folder)
        except OSError as error:
            raise StackError(f"The folder {self.folder} cannot be used: {error.strerror}.") from None
        known = None if fresh else state.read(self.folder)
        if known is not None or fresh:
            self._end_orphans(fresh=fresh)
        if fresh:
            self._clear()
        self._state = known or state.fresh_state()
        self._state.simulated = simulator.simulated(self.environ)
        own = psutil.Process()
        self._state.supervisor = {"pid": own.pid, "created": own.create_time()}
        self._state.parts, self._state.ready = {}, False

    def _end_orphans(self, *, fresh: bool) -> None:
        try:
            known = state.read(self.folder)
        except StackError:
            if not fresh:
                raise
            known = None
        if known is not None and (count := state.end_orphans(known)):
            self.tell(f"ended {count} processes that an earlier stack had left")

    def _clear(self) -> None:
        """Remove what a stack makes in its folder, and nothing else."""
        for name in ("kafka", "clickhouse"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for log in (self.folder / "logs").glob("*.log*"):
            # A supervisor in the background is writing its own at this moment, and is read while it starts.
            if log.stem != "supervisor":
                log.unlink(missing_ok=True)
        for worker in self.folder.glob("worker-*"):
            shutil.rmtree(worker, ignore_errors=True)
        (self.folder / state.FILE).unlink(missing_ok=True)

    def _start_services(self) -> None:
        if not kafka.packages().exists():
            self.tell("fetching the Kafka broker (about 54 MB, once)")
        kafka.fetch()
        chosen = {
            name: ports.choose(getattr(self.settings, f"{name}_port"), f"AI_STACK_{name.upper()}_PORT")
            for name in ("kafka", "kafka_controller", "clickhouse", "simulator")
        }
        now = self.current
        now.ports = chosen
        login = now.credentials()
        self.parts["kafka"] = kafka.broker(
            self.folder / "kafka", chosen["kafka"], chosen["kafka_controller"], self.log("kafka")
        )
        self.parts["clickhouse"] = clickhouse.engine(
            self.folder / "clickhouse", chosen["clickhouse"], login, self.log("clickhouse")
        )
        if now.simulated:
            self.parts["simulator"] = simulator.server(chosen["simulator"], self.log("simulator"))
        self._start_parts(list(self.parts.values()), PART_DEADLINE)

    def _start_parts(self, parts: list[Child], deadline: float) -> None:
        """Start them all, then wait for them all: together they take as long as the slowest."""
        for part in parts:
            self.tell(f"starting {part.name}")
            # From this thread: the kernel ties a child's life to the thread that made it.
            part.start()
        self._save()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda part: part.wait_ready(deadline), parts))

    def _prepare(self) -> None:
        """Topics and tables must be there before a worker starts."""
        from app.clickhouse.migrate import migrate  # noqa: PLC0415 - takes long to import
        from app.settings import load_settings  # noqa: PLC0415
        from app.topics import ensure_topics  # noqa: PLC0415

        told = {name.removeprefix("AI_").lower(): value for name, value in self.environment().items()}
        settings = load_settings(**told)
        self.tell("preparing topics and tables")

        async def prepare() -> None:
            await ensure_topics(settings)
            await migrate(settings)

        asyncio.run(prepare())

    def _start_workers(self) -> None:
        first = self.settings.ops_port
        for port in range(first, first + self.settings.workers if first else first):
            ports.choose(port, "AI_STACK_OPS_PORT")
        workers = [self.worker(number) for number in range(1, self.settings.workers + 1)]
        if workers:
            self._start_parts(workers, WORKER_DEADLINE)

    def _save(self) -> None:
        now = self.current
        now.parts = {
            name: {"identity": part.identity(), "restarts": part.restarts, "started_at": part.started_at}
            for name, part in self.parts.items()
        }
        state.write(self.folder, now)
