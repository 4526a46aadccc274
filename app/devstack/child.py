"""A child process: started with its log, known by pid and start time, ended without leftovers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.devstack.errors import StackError

#: A log is put aside at start when it is larger than this, in bytes.
LOG_LIMIT = 10 * 1024 * 1024
PR_SET_PDEATHSIG = 1
#: Seconds between two looks at a condition.
POLL = 0.05

#: Looked up before any fork: loading a library between fork and exec can hang.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
#: Every child is made by this one thread. The kernel ties a child's life to the thread that made it, not to the
#: process: one made by a thread that ends would be ended with it.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass
class Child:
    """One part of the stack as a process. `ready` tells whether it serves; `grace` is the seconds it has to stop.

    `ready_file` is what the process itself writes when it is ready: one that an earlier run left says nothing, so it is
    removed before each start. Any thread may start and stop it.
    """

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    ready_file: Path | None = None
    grace: float = 10.0
    restarts: int = 0
    started_at: float = 0.0
    #: Started and not stopped on purpose: if it has ended, it died.
    wanted: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _starting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process, unless it runs, in a session of its own: Ctrl-C then reaches only the supervisor."""
        with self._starting:
            self.wanted = True
            if not self.alive():
                _spawner.submit(self._spawn).result()

    def _spawn(self) -> None:
        rotate(self.log)
        if self.ready_file is not None:
            self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                list(self.command),
                cwd=self.cwd,
                env=dict(self.environment) if self.environment is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_dies_with(os.getpid()) if _prctl is not None else None,  # noqa: PLW1509
            )
        self.started_at = time.time()

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def is_ready(self) -> bool:
        return self.alive() and self.ready()

    def wait_ready(self, deadline: float) -> None:
        """Return when it serves. Raises StackError when it dies or `deadline` seconds have passed."""
        wait_all_ready([self], deadline)

    def last_words(self) -> str:
        """The last line of its log, and where the rest is."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return f"“{lines[-1][:200]}” ({self.log})"
        return f"nothing in its log ({self.log})"

    def ask_to_stop(self) -> None:
        if self.alive() and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> bool:
        """Stop in order; after the grace, by force. True if it stopped by itself."""
        self.wanted = False
        self.ask_to_stop()
        if self._process is None:
            return True
        try:
            self._process.wait(self.grace)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def identity(self) -> dict[str, float] | None:
        """What names this process beyond the reuse of its pid."""
        if self._process is None:
            return None
        with contextlib.suppress(psutil.Error):
            return {"pid": self._process.pid, "created": psutil.Process(self._process.pid).create_time()}
        return None


def wait_all_ready(parts: Sequence[Child], deadline: float) -> None:
    """Return when all serve: together they take as long as the slowest. Raises StackError as `wait_ready` does."""
    until = time.monotonic() + deadline
    waiting = list(parts)
    while waiting:
        for part in waiting:
            if not part.alive():
                raise StackError(f"{part.name} ended with status {part.exit_code()}: {part.last_words()}")
        waiting = [part for part in waiting if not part.ready()]
        if waiting and time.monotonic() > until:
            slow = waiting[0]
            raise StackError(f"{slow.name} was not ready after {deadline:.0f} s; its log is {slow.log}.")
        if waiting:
            time.sleep(POLL)


def rotate(log: Path) -> None:
    """Put a large log aside, over the one that was put aside before."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))


def _dies_with(parent: int) -> Callable[[], None]:
    """For the child, before it becomes the command: the kernel ends it when the supervisor is killed."""

    def tie() -> None:
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # the supervisor died before the tie was made

    return tie


def find(identity: Mapping[str, float] | None) -> psutil.Process | None:
    """The process of an identity, if it is still that one."""
    if not identity:
        return None
    try:
        process = psutil.Process(int(identity["pid"]))
        same = abs(process.create_time() - identity["created"]) < 0.01  # noqa: PLR2004 - the clock's grain
    except psutil.Error:
        return None
    return process if same and process.status() != psutil.STATUS_ZOMBIE else None


def end(process: psutil.Process, grace: float) -> None:
    """End a process that is not our child."""
    with contextlib.suppress(psutil.Error):
        process.terminate()
        try:
            process.wait(grace)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(5)
