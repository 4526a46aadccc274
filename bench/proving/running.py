"""One command with a time limit: its output is shown at once and kept, and nothing that it started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from bench.proving.version import ROOT

#: Seconds that a command has to end after each signal. pytest needs some to stop what its tests have started.
SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))


@dataclass(frozen=True)
class Ended:
    """How a command has ended. The code is None when it had to be ended because its time was over."""

    code: int | None
    seconds: float


def run_live(command: Sequence[str], log: Path, limit: float, environment: Mapping[str, str] | None = None) -> Ended:
    """Run it for at most `limit` seconds. It is ended also when this process is interrupted."""
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    # A group of its own: all of it can be ended, and Ctrl-C reaches it once.
    process = subprocess.Popen(
        list(command),
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    passing = threading.Thread(target=_pass_on, args=(process.stdout, log), daemon=True)
    passing.start()
    code: int | None = None
    try:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(limit)
    finally:
        _end(process)
        passing.join(5)
    return Ended(code, time.monotonic() - begun)


def stop_in_order() -> None:
    """SIGTERM ends this process as Ctrl-C does, and Ctrl-C does so in the background too."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _pass_on(output: IO[bytes], log: Path) -> None:
    with log.open("wb") as kept:
        while piece := os.read(output.fileno(), 65_536):
            kept.write(piece)
            kept.flush()
            # Nobody may read the terminal any more; the command goes on, and its log too.
            with suppress(OSError, ValueError):
                sys.stdout.write(piece.decode(errors="replace"))
                sys.stdout.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        for sign, grace in SIGNALS:
            if process.poll() is not None:
                break
            os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
