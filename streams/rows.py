"""The rows of a workspace's table: what admission and settlement know of its requests, its money and its answers. Pure.

They share one table, because rows of one table share one changelog: what is written of one event after another is in
order there, and after a crash a successor has a beginning of it and never a part from the middle. So a request's record
is written before the account that it changes, and whoever finds the account changed finds the record too.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from schemas.base import Priority
from streams.accounts import Account, account_body, read_account
from streams.lifecycle import RequestRecord, read_record, record_body
from streams.sharing import Flight, Joined, Kept, Landed

Row = RequestRecord | Account | Kept | Flight | Joined | Landed

#: An answer that has expired is not given to anybody new. It stays for this many seconds more: whoever got it may be
#: delivered again, and gets the same.
ANSWER_GRACE = 900.0
#: Seconds for which the account of a month stays after its last change: late reports and reports of a year need it.
ACCOUNT_KEPT = 400 * 86_400.0


def encode_row(row: Row) -> bytes:
    return orjson.dumps(_body(row))


def _body(row: Row) -> dict[str, Any]:
    match row:
        case RequestRecord():
            return record_body(row)
        case Account():
            return {"@": "account"} | account_body(row)
        case Kept():
            return {"@": "kept", "l": row.leader, "t": [row.kept_at, row.expires_at], "r": row.response.decode()}
        case Flight():
            return {"@": "flight", "f": [row.leader, row.number, row.deadline, row.led_from, row.priority]}
        case Joined():
            return {"@": "joined", "d": row.deadline, "c": row.command.decode()}
        case Landed():
            # To a version that does not know landings it is a flight that nobody asks for, and that a sweep takes.
            return {"@": "flight", "f": ["", row.by, row.at, None, Priority.NORMAL], "l": [row.by, row.at, row.until]}


def decode_row(value: bytes) -> Row:
    """A row, also of a newer version: what this one does not know of it is ignored, so that one can go back."""
    body = orjson.loads(value)
    match body.get("@"):
        case "account":
            return read_account(body)
        case "kept":
            kept_at, expires_at = body["t"][:2]
            return Kept(body["l"], kept_at, expires_at, body["r"].encode())
        case "flight" if "l" in body:
            return Landed(*body["l"][:3])
        case "flight":
            leader, number, deadline, led_from, priority = body["f"][:5]
            return Flight(leader, number, deadline, led_from, Priority(priority))
        case "joined":
            return Joined(body["d"], body["c"].encode())
    return read_record(body)


#: The moments of a kept answer, where `encode_row` has put them. A quotation mark within a text has a backslash.
_KEPT_MOMENTS = re.compile(rb'^\{"@":"kept","l":"[^"]*","t":\[([0-9.]+),')


def kept_at(value: bytes) -> float:
    """When a kept answer was kept, in seconds since 1970, without reading all of it."""
    found = _KEPT_MOMENTS.match(value)
    if found is not None:
        return float(found[1])
    row = decode_row(value)
    return row.kept_at if isinstance(row, Kept) else 0.0


def is_stale(row: Row, now: float, window: float) -> bool:
    """Whether nothing can ask for this row any more. `window` is the seconds for which a request id is known.

    Of a request that is still open, ask streams/sweep first: its deadline may be later than the window's end.
    """
    match row:
        case RequestRecord():
            return row.last_touched() < now - window
        case Account():
            return row.touched_at < now - ACCOUNT_KEPT
        case Kept():
            return row.expires_at < now - ANSWER_GRACE
        case Flight() | Joined():
            return row.deadline < now - window
        case Landed():
            return row.at < now - window
