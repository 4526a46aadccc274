"""What says the same over and over is left out of the log, and counted.

While a broker is away aiokafka warns at each try of each connection, and each event that waits warns once a second:
6,500 lines of one worker in two minutes, between which nobody finds the one that matters.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

#: So many lines of one kind are written in so many seconds.
BURST, INTERVAL = 10, 60.0
#: Kinds that are counted at one time.
KINDS = 1_000
#: Their errors come as often as their warnings.
LIBRARIES = ("aiokafka", "faust", "mode", "clickhouse_connect")


@dataclass
class _Kind:
    """The lines of one kind since a moment, and how many of them were left out."""

    since: float
    written: int = 0
    left_out: int = 0


class Repeats(logging.Filter):
    """Passes the first warnings of each kind in a while. A kind is a logger and its words without what they are about.

    Errors of Spillway's own are always written: each may be the only word on a record.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._may_be_left_out(record):
            return True
        now = self._clock()
        if len(self._kinds) >= KINDS:
            # Somebody puts into the words what they are about.
            self._kinds.clear()
        kind = self._kinds.setdefault((record.name, record.msg), _Kind(now))
        left_out = 0
        if now - kind.since >= INTERVAL:
            left_out, kind.since, kind.written, kind.left_out = kind.left_out, now, 0, 0
        if kind.written >= BURST:
            kind.left_out += 1
            return False
        kind.written += 1
        if left_out:
            record.msg = f"{record.msg} (and {left_out} more of this kind that were left out)"
        return True

    def _may_be_left_out(self, record: logging.LogRecord) -> bool:
        is_librarys = record.name.partition(".")[0] in LIBRARIES
        return isinstance(record.msg, str) and (record.levelno == logging.WARNING or is_librarys)
