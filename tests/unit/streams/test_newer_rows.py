"""Going back to an older version: what a newer one has written is read, without what the older one does not know."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson
import pytest

from schemas.base import Priority
from schemas.internal import Follow
from streams.accounts import Account
from streams.alert.decide import MonthNote
from streams.alert.habit import Habit, Meter
from streams.alert.notes import decode_note, encode_note
from streams.commands import PLACE_HEADER, Place
from streams.dispatch.decide import AttemptMark, decode_mark, encode_mark
from streams.dispatch.lane import Condition, Spent
from streams.dispatch.memory import decode_row as decode_lane
from streams.dispatch.memory import encode_row as encode_lane
from streams.lifecycle import Charge, Reported, RequestRecord, Sharing
from streams.rows import decode_row, encode_row
from streams.sharing import Flight, Joined, Kept, Landed

RECORD = RequestRecord(
    admitted_by=3,
    admitted_at=1_000.0,
    closed_by=9,
    closed_at=1_001.0,
    reports={1: Reported(9, Follow.ANSWER)},
    route=("claude",),
    month="2026-11",
    reserved=5,
    charges=(Charge(9, 1, 2, 70),),
    sharing=Sharing("key", 60, 3, False, None),
)
ROWS: list[tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]] = [
    (RECORD, encode_row, decode_row),
    (Account(1, 2, 3, 4, 5, 6.0), encode_row, decode_row),
    (Kept("leader", 1.0, 2.0, b"{}"), encode_row, decode_row),
    (Flight("leader", 3, 9.0, None, Priority.NORMAL), encode_row, decode_row),
    (Joined(9.0, b"{}"), encode_row, decode_row),
    (Landed(3, 1.0, 2.0), encode_row, decode_row),
    (Spent(7, 2, 300), encode_lane, decode_lane),
    (Condition(60, 6_000, 5.0, 6.0), encode_lane, decode_lane),
    (AttemptMark(5.0), encode_mark, decode_mark),
    (AttemptMark(5.0, (), "too_busy"), encode_mark, decode_mark),
    (AttemptMark(5.0, (), None, "worker", 9.0), encode_mark, decode_mark),
    (MonthNote(Decimal(5), Decimal(6), {50: 1}, ()), encode_note, decode_note),
    (
        Habit(hour=3, meters={"2026-11": Meter(Decimal(1), Decimal(2))}, past=(Decimal(1),), told=False, unsent=()),
        encode_note,
        decode_note,
    ),
]


def newer(body: Any) -> Any:
    """The same with one field more in each object, and one element more in each list that stands for a row's fields."""
    if isinstance(body, dict):
        return {name: newer(value) if is_fields(name) else value for name, value in body.items()} | {"new": [1]}
    return [*body, "new"] if isinstance(body, list) else body


def is_fields(name: str) -> bool:
    """Whether the list of this name has a field in each place: others are lists of the same things."""
    return name in {"c", "s", "o", "t", "f", "l", "$"}


@pytest.mark.parametrize(("row", "encode", "decode"), ROWS, ids=[type(row).__name__ for row, _, _ in ROWS])
def test_a_row_of_a_newer_version_is_read(
    row: Any, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]
) -> None:
    body = orjson.loads(encode(row))
    if isinstance(row, RequestRecord):
        body["$"] = [[*charge, "new"] for charge in body["$"]]
        body["s"], body["c"], body["new"] = [*body["s"], "new"], [*body["c"], "new"], 1
        body["r"] = {number: [*seen, "new"] for number, seen in body["r"].items()}
    elif isinstance(row, Habit):
        body["meters"] = {month: [*meter, "new"] for month, meter in body["meters"].items()}
        body["new"] = 1
    elif isinstance(row, AttemptMark):
        body = [*body, *[None, None, 0.0, 0][len(body) - 2 :], "new"]
    else:
        body = newer(body)
    assert decode(orjson.dumps(body)) == row


def test_the_place_in_a_commands_header_is_read_too() -> None:
    place = Place("acme/r", "acme", Priority.NORMAL, 9.0, 5, 1, True, 3.0, ("claude",))
    told = orjson.dumps([*orjson.loads(place.encode()), "new"])
    assert Place.read(((PLACE_HEADER, told),)) == place
