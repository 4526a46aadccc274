"""What happens to a stack in the middle of a load, each as a function that returns when it is over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.clock.waiting import until
from tests.support.load.proxy import Proxy

#: Seconds between two stand-stills.
BETWEEN = 3.0
Accident = Callable[[], None]
#: The size of a disk in memory, in MiB: enough for a worker that has room.
SMALL_DISK = 96


def silent_broker_and_a_kill(stack: DevStack, victim: Child, seconds: float = 4.0) -> None:
    """The broker answers nothing for a while, and a worker is killed in it."""
    assert stack.kafka.pid is not None
    os.kill(stack.kafka.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds / 2)
        victim.kill()
        time.sleep(seconds / 2)
    finally:
        os.kill(stack.kafka.pid, signal.SIGCONT)


def stands_still(victim: Child, seconds: float, times: int = 1) -> None:
    """A worker does nothing for a while, as one whose machine is paused, and then goes on; several times in a row."""
    assert victim.pid is not None
    for number in range(times):
        if number:
            time.sleep(BETWEEN)
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(victim.pid, signal.SIGCONT)


def stops_by_itself(victim: Child, meanwhile: Callable[[], None], other: Child | None = None) -> None:
    """A worker is started, or another one, for whose sake it gives up partitions. It stops itself in the midst of that
    (tests/support/stack/stopping.py), something happens meanwhile, and it goes on.
    """
    (other or victim).start()
    assert victim.pid is not None
    process = psutil.Process(victim.pid)
    until(lambda: process.status() == psutil.STATUS_STOPPED, within=90, what="the worker stops itself")
    try:
        meanwhile()
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    (other or victim).wait_ready(90)


def broker_killed(stack: DevStack) -> None:
    """And started again at once."""
    stack.kafka.kill()
    stack.kafka.start()
    stack.kafka.wait_ready(90)


def cut_off(proxy: Proxy, seconds: float, only: frozenset[int] | None = None) -> None:
    """What goes through the proxy is kept back for a while, both ways; `only` as the proxy has it."""
    proxy.cut(only)
    try:
        time.sleep(seconds)
    finally:
        proxy.mend()


def broker_away(stack: DevStack, seconds: float) -> None:
    stack.kafka.stop()
    time.sleep(seconds)
    stack.kafka.start()
    stack.kafka.wait_ready(90)


def full_disk(folder: Path, seconds: float = 20.0) -> None:
    """A worker's folder has no room for a while."""
    filler = folder / "filler"
    fill(filler)
    time.sleep(seconds)
    filler.unlink()


def fill(file: Path) -> None:
    """Write until there is no room left."""
    with file.open("wb", buffering=0) as written:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while written.write(bytes(size)):
                    pass


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mounts a small disk in memory there, as long as the block lasts. False where one may not."""
    folder.mkdir(exist_ok=True)
    size = f"size={SMALL_DISK}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False)
    try:
        yield not done.returncode
    finally:
        if not done.returncode:
            subprocess.run(["umount", str(folder)], check=True)


def accident_of(kind: str, stack: DevStack, victim: Child) -> Accident:
    """By its name; see KINDS."""
    if kind == "disk":
        return partial(full_disk, stack.folder / victim.name)
    accidents: dict[str, Accident] = {
        "kill": victim.kill,
        "term": victim.ask_to_stop,
        "silent": partial(silent_broker_and_a_kill, stack, victim),
        "away": partial(broker_away, stack, 10.0),
        "long": partial(broker_away, stack, 150.0),
        "still": partial(stands_still, victim, 20.0),
        "hiccup": partial(stands_still, victim, 7.0),
    }
    return accidents[kind]


#: The names of accidents, and what happens.
KINDS = {
    "kill": "a worker is killed",
    "term": "a worker is asked to stop",
    "silent": "the broker answers nothing for 4 s, and a worker is killed in it",
    "away": "the broker is away for 10 s",
    "long": "the broker is away for 150 s",
    "still": "a worker stands still for 20 s, twice its session, and goes on",
    "hiccup": "a worker stands still for 7 s, less than its session, and goes on",
    "disk": "a worker's disk is full for 20 s",
}
