"""How many answers are kept of a workspace."""

from __future__ import annotations

from typing import Any, cast

from streams.rows import Row
from streams.runtime.transport import DrainSignal
from streams.sharing import Kept, answer_key
from streams.workspaces import Workspaces
from tests.unit.streams.test_statements import Table


def kept(name: str, at: float = 0.0) -> Kept:
    return Kept(name, at, at + 60, b"{}")


def keeping(rows: dict[str, Row], drain: DrainSignal | None = None) -> Workspaces:
    return Workspaces(cast(Any, Table(rows)), drain or DrainSignal())


def test_the_oldest_answer_goes_when_there_are_too_many() -> None:
    workspaces = keeping({})
    for number in range(3):
        writes = workspaces.keep("acme", "key", kept(f"r-{number}"), 3, 0)
        assert list(writes) == [answer_key("acme", "key", f"r-{number}")]
    writes = workspaces.keep("acme", "key", kept("r-3"), 3, 0)
    assert writes[answer_key("acme", "key", "r-0")] is None
    assert len(workspaces.keep("beta", "key", kept("r-9"), 3, 0)) == 1, "each workspace has a bound of its own"


def test_what_an_earlier_owner_has_kept_counts_in_the_order_in_which_it_was_kept() -> None:
    rows: dict[str, Row] = {answer_key("acme", "k", name): kept(name, at) for name, at in (("a", 3.0), ("b", 1.0))}
    writes = keeping(rows).keep("acme", "k", kept("c", 4.0), 2, 0)
    assert [name for name, row in writes.items() if row is None] == [answer_key("acme", "k", "b")]


def test_an_answer_that_is_kept_again_is_counted_once() -> None:
    workspaces = keeping({})
    for _ in range(2):
        assert len(workspaces.keep("acme", "key", kept("r-0"), 1, 0)) == 1


def test_what_a_sweep_removes_makes_room() -> None:
    workspaces = keeping({})
    workspaces.keep("acme", "key", kept("r-0"), 1, 0)
    workspaces.forget(answer_key("acme", "key", "r-0"))
    workspaces.forget("acme/r-0")
    assert list(workspaces.keep("acme", "key", kept("r-1"), 1, 0)) == [answer_key("acme", "key", "r-1")]


def test_partitions_that_change_hands_are_counted_anew() -> None:
    drain = DrainSignal()
    rows: dict[str, Row] = {}
    workspaces = keeping(rows, drain)
    workspaces.keep("acme", "key", kept("r-0"), 1, 0)
    drain.begin()
    assert list(workspaces.keep("acme", "key", kept("r-1"), 1, 0)) == [answer_key("acme", "key", "r-1")]
