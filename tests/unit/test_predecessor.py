"""What a worker's process leaves in its folder, and what the next one makes of it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Any, cast

import pytest

from app.kafka import Cluster
from app.settings import SettingsError
from app.worker import predecessor
from app.worker.predecessor import NOTE, Process, declare_dead, noted


def test_the_next_process_finds_the_name_and_the_members_of_the_one_before(tmp_path: Path) -> None:
    with noted(tmp_path) as first:
        assert first.before is None
        first.named("earlier")
        first.joined("group", "of an earlier start")
        first.named("one")
        first.joined("group", "a" * 200)
        first.joined("group", "b")
        first.joined("another", "c")
    with noted(tmp_path) as second:
        assert second.before == Process(os.getpid(), "one", {"group": "b", "another": "c"})
        second.named("two")
        second.joined("group", "d")
        second.left()
    with noted(tmp_path) as third:
        assert third.before == Process(os.getpid()), "it has ended in order"


def test_a_folder_that_a_process_works_in_is_refused_to_another_one(tmp_path: Path) -> None:
    with noted(tmp_path) as first:
        first.joined("group", "member")
        with (
            pytest.raises(SettingsError, match=rf"AI_DATA_DIR: .* is in use by process {os.getpid()}"),
            noted(tmp_path),
        ):
            raise AssertionError
    with noted(tmp_path):
        pass


@pytest.mark.parametrize(
    "text", [b"", b"{", b"null", b"[1]", b'{"pid": 1}', b'{"pid": "x", "owner": "", "members": {}}', b"\xff\xfe"]
)
def test_a_note_that_was_not_written_to_its_end_tells_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / NOTE).write_bytes(text)
    with noted(tmp_path) as note:
        assert note.before is None


def test_where_files_cannot_be_locked_nobody_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with noted(tmp_path) as note:
        note.joined("group", "member")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with noted(tmp_path) as note:
        assert note.before is None


def test_a_full_disk_keeps_nobody_from_joining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with noted(tmp_path) as note:
        monkeypatch.setattr(os, "pwrite", refuse)
        note.joined("group", "member")
    assert "No space left on device" in caplog.text


async def test_a_start_goes_on_where_nobody_can_be_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Away:
        async def publish(self, *_: Any) -> None:
            raise ConnectionError("prompt")

    monkeypatch.setattr(predecessor, "TELLING", 0.1)
    for nobody in (None, Process(1)):
        await declare_dead(nobody, Cluster("nowhere:1"), cast(Any, Away()))
    await declare_dead(Process(1, "one", {"group": "member"}), Cluster("nowhere:1"), cast(Any, Away()))
    [told] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == "predecessor_waits: its partitions are given to others after a session: ConnectionError"
