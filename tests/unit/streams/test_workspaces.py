"""How many answers are kept of a workspace, and what its requests are while a flight lands."""

from __future__ import annotations

from typing import Any, cast

from streams.lifecycle import RequestRecord, Sharing, asker_of, request_key
from streams.rows import Row
from streams.runtime.transport import DrainSignal
from streams.sharing import Joined, Kept, Landed, answer_key, joined_key, landed_key
from streams.workspaces import Workspaces
from tests.unit.streams.making import NOW, admitted
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


def aboard(name: str, within: float = 60.0) -> dict[str, Row]:
    """A request that has joined flight 7: its record and its row aboard."""
    due = NOW.timestamp() + within
    own = admitted(within=within, request_id=name)
    record = RequestRecord(9, NOW.timestamp(), sharing=Sharing("k", 60, 7, joined=True), asker=asker_of(own))
    return {request_key("acme", name): record, joined_key("acme", "k", 7, name): Joined(due, b"{}")}


def test_those_aboard_are_closed_when_their_flight_has_landed_before_they_are_told() -> None:
    until = NOW.timestamp() + 60
    rows = aboard("r-2") | aboard("r-3", 61)
    workspaces = keeping(rows)
    assert workspaces.request("acme", "r-2", 0) == rows["acme/r-2"], "it flies"
    rows[landed_key("acme", "k", 7, 20)] = Landed(20, until + 5, until)
    landed = workspaces.request("acme", "r-2", 0)
    assert landed is not None
    assert (landed.closed_by, landed.closed_at) == (20, until + 5)
    staying = workspaces.request("acme", "r-3", 0)
    assert staying is not None
    assert not staying.closed
    rows[landed_key("acme", "k", 7, 100)] = Landed(100, until + 9)
    both = [workspaces.request("acme", name, 0) for name in ("r-2", "r-3")]
    assert [one.closed_by for one in both if one is not None] == [20, 100], "the first one that it was aboard of"


def test_one_whose_row_aboard_is_lost_is_not_closed_by_the_landing_that_will_not_tell_it() -> None:
    rows = aboard("r-2") | {landed_key("acme", "k", 7, 20): Landed(20, 5.0)}
    del rows[joined_key("acme", "k", 7, "r-2")]
    assert keeping(rows).request("acme", "r-2", 0) == rows["acme/r-2"]
