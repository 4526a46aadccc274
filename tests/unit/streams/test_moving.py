"""Rows that go to another partition: they keep what they know, and forget at which offset they learned it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from schemas.internal import Follow
from streams.accounts import Account, Movement, account_key
from streams.lifecycle import ADMISSION, Charge, Reported, RequestRecord, Sharing, request_key
from streams.moving import homes, is_open, moved, workspace_of
from streams.rows import decode_row, encode_row
from streams.sharing import Flight, Joined, Kept, Landed, answer_key, flight_key, joined_key, landed_key
from streams.topology import ALERT_TABLE, LANE_TABLE, MARK_TABLE, REQUEST_TABLE, Topology

offsets = st.integers(0, 2**53)
TOPOLOGY = Topology("spillway", ("claude", "openai"), partitions=12)


def again(row: RequestRecord | Account | Kept | Flight | Joined | Landed) -> object:
    value = moved(REQUEST_TABLE, encode_row(row))
    return None if value is None else decode_row(value)


@given(offsets, offsets, offsets, st.integers(0, 10**12))
def test_an_account_keeps_its_money_and_takes_every_later_event(
    admitted: int, settled: int, later: int, spent: int
) -> None:
    account = Account(spent, 0, 0, admitted, settled, 7.0)
    found = again(account)
    assert found == replace(account, admitted_to=-1, settled_to=-1)
    assert isinstance(found, Account)
    assert found.settle(Movement(5), later, 8.0).spent == spent + 5, "whatever offset it has in its new partition"


@given(offsets, offsets, offsets, offsets, st.sampled_from([None, ADMISSION, 17]))
def test_no_event_is_taken_for_one_that_a_moved_record_remembers(
    first: int, second: int, flight: int, offset: int, closed: int | None
) -> None:
    record = RequestRecord(
        admitted_by=first,
        admitted_at=1.0,
        closed_by=closed,
        closed_at=None if closed is None else 2.0,
        reports={1: Reported(second, Follow.RETRY)},
        reserved=5,
        charges=(Charge(second, 1, 3, 700), Charge(second + 1, 1, 4, 900)),
        sharing=Sharing("key", 60, flight),
    )
    found = again(record)
    assert isinstance(found, RequestRecord)
    assert offset not in (found.admitted_by, found.closed_by, found.reports[1].offset)
    assert found.movement(offset) == Movement()
    assert found.closed == record.closed
    assert (found.closed_by == ADMISSION) == (closed == ADMISSION), "an answer of admission's own stays one"
    assert [charge.cost for charge in found.charges] == [700, 900]
    assert len({charge.offset for charge in found.charges}) == 2, "what was told apart still is"
    assert again(found) == found, "a run that was cut off is run again"


def test_kept_answers_move_and_flights_do_not() -> None:
    kept = Kept("r-1", 1.0, 2.0, b"{}")
    assert again(kept) == kept
    assert again(Flight("r-1", 5, 9.0)) is None
    assert again(Joined(9.0, b"{}")) is None
    assert again(Landed(3, 9.0)) is None


def test_every_key_belongs_where_its_workspace_or_its_lane_is() -> None:
    home = homes(TOPOLOGY)[REQUEST_TABLE]
    keys = [
        request_key("acme", "a/request/with/slashes"),
        account_key("acme", "2026-11"),
        answer_key("acme", "0ff", "r-1"),
        flight_key("acme", "0ff"),
        joined_key("acme", "0ff", 7, "r-1"),
        landed_key("acme", "0ff", 7, 3),
    ]
    assert {workspace_of(key) for key in keys} == {"acme"}
    assert {home(key) for key in keys} == {TOPOLOGY.workspace_partition("acme")}
    assert homes(TOPOLOGY)[ALERT_TABLE]("acme/hours") == TOPOLOGY.workspace_partition("acme")
    [lane] = TOPOLOGY.lanes_of("openai")
    assert homes(TOPOLOGY)[LANE_TABLE](f"{lane.name}|12") == lane.partition
    assert homes(TOPOLOGY)[LANE_TABLE]("gone/0|12") is None
    assert MARK_TABLE not in homes(TOPOLOGY)


def test_what_has_no_answer_is_open() -> None:
    open_ = RequestRecord(1, 1.0)
    rows = (
        open_,
        Account(reserved=1, open_requests=1),
        open_.close(2, 2.0),
        Account(spent=9),
        Kept("r", 1.0, 2.0, b""),
    )
    assert [is_open(encode_row(row)) for row in rows] == [True, True, False, False, False]
