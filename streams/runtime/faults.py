"""Whose fault it is that the work on an event has failed, and when a stage should stop trying. Pure but for a note.

Three kinds. What passes by itself (a broker that is away) is tried again. What is plainly ours (the disk, the memory,
the store) says nothing of the event: the stage pauses. Of anything else nobody knows: one event that no version of this
program can handle must not hold up others, so it goes to the dead letters; but when one after the other fails, of more
than one workspace, the program is the fault, and the stage pauses before it has buried the whole backlog.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import orjson
from aiokafka.errors import KafkaError

from streams.ports import DirectoryUnavailableError
from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.letters import TOO_LARGE

#: What goes away by itself: connections, and whatever else the operating system says of networks.
PASSING = (AbandonedError, KafkaError, OSError, DirectoryUnavailableError)
#: What the machine has too little of, or does not allow.
OURS = (StoreError, MemoryError)
OUR_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        *(errno.EACCES, errno.EPERM),
    }
)
#: Faults of so many workspaces are not one producer's doing.
WORKSPACES = 2


@dataclass(frozen=True)
class FaultLimits:
    """How many unknown faults in a row a stage buries before it pauses, and the seconds of a pause. `notes` is the
    folder of the counts.
    """

    faults_in_a_row: int = 10
    pause: float = 30.0
    notes: Path | None = None

    def count_of(self, stage: str) -> Faults:
        """A stage's count of faults, as far as it got before a restart."""
        return Faults(self.faults_in_a_row, self.notes and self.notes / stage)


class Whose(Enum):
    PASSES = "passes"
    OURS = "ours"
    UNKNOWN = "unknown"


def judge(error: BaseException) -> Whose:
    """What kind of fault it is."""
    if isinstance(error, TOO_LARGE):
        return Whose.UNKNOWN
    if isinstance(error, OURS) or (isinstance(error, OSError) and error.errno in OUR_ERRNOS):
        return Whose.OURS
    return Whose.PASSES if isinstance(error, PASSING) else Whose.UNKNOWN


class Faults:
    """Unknown faults of a stage without a success between them. The count is in a file, so that a restart does not
    begin it anew; a file that cannot be written or read counts for none.
    """

    def __init__(self, most: int, note: Path | None = None) -> None:
        self._most = most
        self._note = note
        self._count = 0
        self._workspaces: set[str] = set()
        if note is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                kept = orjson.loads(note.read_bytes())
                self._count, self._workspaces = int(kept["count"]), set(kept["workspaces"])

    def add(self, workspace: str) -> bool:
        """One more. True: the stage should pause."""
        self._count += 1
        if len(self._workspaces) < WORKSPACES:
            self._workspaces.add(workspace)
        self._keep()
        return self._count >= self._most and len(self._workspaces) >= WORKSPACES

    def succeeded(self) -> None:
        if self._count:
            self._count = 0
            self._workspaces.clear()
            self._keep()

    def _keep(self) -> None:
        if self._note is None:
            return
        with contextlib.suppress(OSError):
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.write_bytes(orjson.dumps({"count": self._count, "workspaces": sorted(self._workspaces)}))
