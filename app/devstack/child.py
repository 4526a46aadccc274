"""A child process: started with its log, known by pid and start time, ended without leftovers."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.devstack.errors import StackError

#: A log is put aside at start when it is larger than this, in bytes.
LOG_LIMIT = 10 * 1024 * 1024
PR_SET_PDEATHSIG = 1
#: Seconds between two looks at a condition.
POLL = 0.05


@dataclass
class Child:
    """One part of the stack as a process. `ready` tells whether it serves; `grace` is the seconds it has to stop."""

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    grace: float = 10.0
    restarts: int = 0
    started_at: float = 0.0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C in the terminal reaches only the supervisor."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                list(self.command),
                cwd=self.cwd,
                env=dict(self.environment) if self.environment is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
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
        until = time.monotonic() + deadline
        while time.monotonic() < until:
            if not self.alive():
                raise StackError(f"{self.name} ended with status {self.exit_code()}: {self.last_words()}")
            if self.ready():
                return
            time.sleep(POLL)
        raise StackError(f"{self.name} was not ready after {deadline:.0f} s; its log is {self.log}.")

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


def _die_with_parent() -> None:
    """In the child, before it becomes the command: the kernel ends it when the supervisor is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


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
