"""Rows that go to another partition, because a deployment gets more of them. Pure.

A row remembers by which offset it was changed, so that the same event, delivered again, changes nothing. Offsets are
of a partition's own log: in another one the same number is another event, which would be taken for a repeat. So a row
that moves forgets how far it was, and what it must still tell apart becomes a number that no event has. That is safe
only while nothing is on its way: no request is open, and no command and no report waits to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from streams.accounts import NOTHING, Account
from streams.lifecycle import RequestRecord, Sharing
from streams.rows import Row, decode_row, encode_row
from streams.sharing import Flight, Joined, Kept, Landed
from streams.topology import ALERT_TABLE, LANE_TABLE, REQUEST_TABLE, Topology

Home = Callable[[str], int | None]


def workspace_of(key: str) -> str:
    """Whose row it is: `workspace/…`, or `@kind/workspace/…`."""
    first, _, rest = key.partition("/")
    return rest.partition("/")[0] if first.startswith("@") else first


def homes(topology: Topology) -> Mapping[str, Home]:
    """By table: the partition in which a key belongs; None where nobody can say.

    Marks are not here: they are about commands that wait, and none does. The sweep takes them after a day.
    """
    lanes = {lane.name: lane.partition for name in topology.all_providers for lane in topology.lanes_of(name)}

    def of_workspace(key: str) -> int:
        return topology.workspace_partition(workspace_of(key))

    return {
        REQUEST_TABLE: of_workspace,
        ALERT_TABLE: of_workspace,
        LANE_TABLE: lambda key: lanes.get(key.partition("|")[0]),
    }


def moved(table: str, value: bytes) -> bytes | None:
    """A row as its new partition gets it; None for one that is of no use there."""
    if table != REQUEST_TABLE:
        return value
    row = _moved(decode_row(value))
    return None if row is None else encode_row(row)


def _moved(row: Row) -> Row | None:
    match row:
        case Account():
            return replace(row, admitted_to=NOTHING, settled_to=NOTHING)
        case RequestRecord():
            return _record(row)
        case Flight() | Joined() | Landed():
            return None  # Whoever led it has been answered, and all who had joined.
        case Kept():
            return row


def _record(row: RequestRecord) -> RequestRecord:
    return replace(
        row,
        admitted_by=_nowhere(row.admitted_by),
        closed_by=None if row.closed_by is None else _nowhere(row.closed_by),
        reports={number: replace(seen, offset=_nowhere(seen.offset)) for number, seen in row.reports.items()},
        charges=tuple(replace(charge, offset=_nowhere(charge.offset)) for charge in row.charges),
        sharing=None if row.sharing is None else _sharing(row.sharing),
    )


def _sharing(sharing: Sharing) -> Sharing:
    flight, led_from = sharing.flight, sharing.led_from
    return replace(
        sharing,
        flight=None if flight is None else _nowhere(flight),
        led_from=None if led_from is None else _nowhere(led_from),
    )


def _nowhere(offset: int) -> int:
    """A number below all offsets and words for them (-1), different for each offset; the same when it moves again."""
    return offset if offset < 0 else -2 - offset


def is_open(value: bytes) -> bool:
    """Whether a row of the table of workspaces is about a request that has no answer yet."""
    row = decode_row(value)
    if isinstance(row, Account):
        return row.open_requests > 0
    return isinstance(row, RequestRecord) and not row.closed
