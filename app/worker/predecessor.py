"""What a worker tells the next one that starts in its folder.

A process that is killed stays in its consumer groups, and is taken for alive by the other workers, for a whole session:
until then nobody works on its partitions. The next process in the same folder knows better. It holds the lock on the
folder's note, which a process keeps until it ends; so it tells the broker that the one before it has gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownMemberIdError, for_code
from aiokafka.protocol.group import LeaveGroupRequest

from app.kafka import Cluster, admin_client
from app.settings import SettingsError
from streams.runtime.outbox import Outbox
from streams.runtime.presence import last_record

log = logging.getLogger(__name__)

NOTE = "process.json"
#: Seconds that a start spends on telling it. What is not told by then, the broker finds out after a session.
TELLING = 5.0


@dataclass
class Process:
    """A worker's process: its name among the owners, and its id in each group that it has joined."""

    pid: int
    owner: str = ""
    members: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: bytes) -> Process | None:
        """None where nothing was written, or not to the end."""
        try:
            told = json.loads(text)
            members = {str(group): str(member) for group, member in told["members"].items()}
            return cls(int(told["pid"]), str(told["owner"]), members)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class ProcessNote:
    """A folder's note: of the process before this one, and by this one for the next."""

    def __init__(self, file: int, before: Process | None) -> None:
        self.before = before
        self._file = file
        self._own = Process(os.getpid())

    def named(self, owner: str) -> None:
        """This process has another name from now on: it has started again, and has joined nothing."""
        self._own = Process(os.getpid(), owner)

    def joined(self, group: str, member: str) -> None:
        self._own.members[group] = member
        self._write()

    def left(self) -> None:
        """It ends in order: there is nothing that the next process would have to tell."""
        self._own = Process(os.getpid())
        self._write()

    def _write(self) -> None:
        try:
            text = json.dumps(vars(self._own)).encode()
            os.ftruncate(self._file, os.pwrite(self._file, text, 0))
        except OSError as error:
            log.warning("process_not_noted: after a kill its partitions wait for a session: %s", error.strerror)


@contextmanager
def noted(folder: Path) -> Iterator[ProcessNote]:
    """Hold a worker's folder. Raises SettingsError while another process does."""
    file = os.open(folder / NOTE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        is_held = _lock(file, folder)
        yield ProcessNote(file, Process.read(os.pread(file, 1024 * 1024, 0)) if is_held else None)
    finally:
        os.close(file)


def _lock(file: int, folder: Path) -> bool:
    """Whether the process before is known to have ended: some network file systems have no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = Process.read(os.pread(file, 1024 * 1024, 0))
        who = f"process {holder.pid}" if holder is not None else "another process"
        raise SettingsError(f"AI_DATA_DIR: {folder} is in use by {who}: each worker needs its own.") from None
    except OSError as error:
        log.info("folder_not_locked: %s", error.strerror)
        return False
    return True


async def declare_dead(before: Process | None, cluster: Cluster, outbox: Outbox) -> None:
    """Say that a process has ended, in its place: its groups go on without it, and nobody waits for its calls."""
    if before is None or not before.owner:
        return
    try:
        async with asyncio.timeout(TELLING):
            await outbox.publish(last_record(before.owner))
            async with admin_client(cluster) as admin:
                for group, member in before.members.items():
                    await _leave(admin, group, member)
    except Exception as error:  # noqa: BLE001 - it only takes longer
        log.warning("predecessor_waits: its partitions are given to others after a session: %s", type(error).__name__)


async def _leave(admin: AIOKafkaAdminClient, group: str, member: str) -> None:
    coordinator = await admin.find_coordinator(group)
    answer = await admin._send_request(LeaveGroupRequest(group, member), coordinator)
    if answer.error_code == UnknownMemberIdError.errno:
        told = f"is no member of group {group} any more"
    elif answer.error_code:
        told = f"stays in group {group} for its session: {for_code(answer.error_code).__name__}"
    else:
        told = f"has left group {group}"
    log.info("predecessor: the process before this one %s", told)
