"""A process that takes one core for as long as a block lasts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def burn(parent: int, seconds: float) -> None:
    """Count until the time is over, or nobody is there any more who wanted it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and os.getppid() == parent:
        sum(range(100_000))


@contextmanager
def busy_core(at_most: float) -> Iterator[subprocess.Popen[bytes]]:
    """It is ended with the block, with this process, and after `at_most` seconds."""
    process = subprocess.Popen([sys.executable, __file__, str(os.getpid()), str(at_most)], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    burn(int(sys.argv[1]), float(sys.argv[2]))
