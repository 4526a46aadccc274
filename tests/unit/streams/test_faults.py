"""Whose fault it is, and when a stage pauses instead of burying one event after the other."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.faults import Faults, Whose, judge
from streams.runtime.outbox import UndeliverableError


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        *(
            (error, Whose.PASSES)
            for error in (KafkaConnectionError(), ConnectionResetError(), TimeoutError(), OSError())
        ),
        (AbandonedError(), Whose.PASSES),
        (OSError(errno.ENOSPC, "No space left on device"), Whose.OURS),
        *((error, Whose.OURS) for error in (StoreError("marks"), MemoryError(), OSError(errno.EACCES, "no"))),
        *((error, Whose.UNKNOWN) for error in (ValueError(), KeyError("o"), RuntimeError())),
        # The record is too large, and stays so.
        *((error, Whose.UNKNOWN) for error in (MessageSizeTooLargeError(), UndeliverableError("no"))),
    ],
)
def test_what_passes_what_is_ours_and_what_nobody_knows_are_told_apart(error: Exception, whose: Whose) -> None:
    assert judge(error) is whose


def test_a_stage_pauses_at_the_tenth_fault_in_a_row_of_more_than_one_workspace() -> None:
    faults = Faults(10)
    assert [faults.add(name) for name in "abababababab"] == [False] * 9 + [True] * 3


def test_one_workspace_alone_stops_nobody() -> None:
    faults = Faults(3)
    assert not any(faults.add("malicious") for _ in range(100))
    assert faults.add("another")


def test_a_success_between_them_begins_the_count_anew() -> None:
    faults = Faults(3)
    faults.add("a")
    faults.add("b")
    faults.succeeded()
    assert [faults.add(name) for name in "aba"] == [False, False, True]


def test_the_count_survives_a_restart(tmp_path: Path) -> None:
    note = tmp_path / "faults" / "admit"
    before = Faults(3, note)
    before.add("a")
    before.add("b")
    after = Faults(3, note)
    assert after.add("c")
    after.succeeded()
    assert not Faults(3, note).add("a")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"count": "x", "workspaces": []}', b"\xff"])
def test_a_note_that_cannot_be_read_counts_for_none(tmp_path: Path, content: bytes) -> None:
    note = tmp_path / "admit"
    note.write_bytes(content)
    assert not Faults(2, note).add("a")


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "faults").write_text("a file where the folder should be")
    faults = Faults(2, tmp_path / "faults" / "admit")
    assert [faults.add(name) for name in "ab"] == [False, True]
