"""Cancellations: who hears of them, and how long they are remembered."""

from __future__ import annotations

import json

import pytest

from schemas.cancellation import Cancellation
from schemas.codec import encode
from streams.cancellations import CancellationBoard
from streams.lifecycle import request_key


def cancellation(request_id: str, workspace: str = "acme") -> bytes:
    return encode(Cancellation(request_id=request_id, workspace_id=workspace))


def test_a_cancellation_is_told_and_remembered_for_its_workspace_alone() -> None:
    board, heard = CancellationBoard(), list[str]()
    board.on_cancel(heard.append)
    assert board.apply(cancellation("r-1"))
    assert heard == [request_key("acme", "r-1")]
    assert request_key("acme", "r-1") in board
    assert request_key("other", "r-1") not in board


def test_the_workspace_may_be_left_out_as_in_a_request() -> None:
    board = CancellationBoard()
    assert board.apply(json.dumps({"request_id": "r-1"}).encode())
    assert request_key("default", "r-1") in board


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"request_id": 7}', b'{"schema_version": 9, "request_id": "r"}'])
def test_what_is_no_cancellation_is_told_nobody(value: bytes) -> None:
    board, heard = CancellationBoard(), list[str]()
    board.on_cancel(heard.append)
    assert not board.apply(value)
    assert heard == []


def test_a_tombstone_changes_nothing() -> None:
    assert CancellationBoard().apply(None)


def test_the_newest_are_remembered() -> None:
    board = CancellationBoard(remembered=3)
    for number in (0, 1, 2, 0, 3):
        board.apply(cancellation(f"r-{number}"))
    assert [request_key("acme", f"r-{n}") in board for n in range(4)] == [True, False, True, True]
