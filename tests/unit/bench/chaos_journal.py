"""Small rounds, made by hand: requests, calls, rows, records and events of bench/chaos.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bench.chaos_parts.facts import Call, End, Facts, Row
from bench.chaos_parts.mix import Asked
from bench.chaos_parts.names import CHANGELOG, REPLIES
from bench.chaos_parts.records import Record

#: Seconds since 1970 at which the round's one request is published, called (one second later) and answered (two).
T = 1_800_000_000.0
MONTH = "2027-01"
CONTENT = "A[r-1] river stone END2"
#: Of 10 tokens there and 6 back at claude.
PRICE = Decimal("0.000056")
WHOLE = End(T + 2, "ok", 10, 6)
Rows = Mapping[str, Sequence[Row]]


def asked(name: str = "r-1", **more: Any) -> dict[str, Asked]:
    return {name: Asked(name, more.pop("workspace", "w0"), "plain", name, **more)}


def record(
    value: Any, *, at: float = T, offset: int = 0, key: str | None = None, partition: int = 0, **headers: bytes
) -> Record:
    """With a value as JSON, or None."""
    body = None if value is None else json.dumps(value).encode()
    named = tuple((name, header) for name, header in headers.items())
    return Record(partition, offset, round(at * 1000), key.encode() if key else None, body, named)


def response(name: str = "r-1", status: str = "succeeded", at: float = T + 2, **more: Any) -> Record:
    body: dict[str, Any] = {
        "request_id": name,
        "status": status,
        "content": CONTENT.replace("r-1", name) if status == "succeeded" else None,
        "usage": {"cost": str(PRICE)},
        "attempts": [{"attempt": 1}],
        "answered_at": datetime.fromtimestamp(at, UTC).isoformat(),
    }
    return record({**body, **more}, at=at, ce_id=name.encode())


def call(attempt: str = "r-1/1", at: float = T + 1, end: End | None = WHOLE, **more: Any) -> Call:
    return Call(more.pop("number", 1), attempt, more.pop("provider", "claude"), more.pop("worker", "w1"), at, end=end)


def row(attempt: str = "r-1/1", outcome: str = "succeeded", cost: Decimal = PRICE, workspace: str = "w0") -> Row:
    return Row(workspace, attempt, outcome, None, cost, MONTH)


def rows(*found: Row) -> Rows:
    return {one.attempt: [one] for one in found}


def state(spent: Decimal = PRICE, reserved: str = "0", workspace: str = "w0", at: str = "1") -> Record:
    body = {"workspace_id": workspace, "month": MONTH, "spent": str(spent), "reserved": reserved, "open_requests": 0}
    return record({**body, "at": at})


def piece(index: int, text: str, attempt: int = 1, offset: int = 0, name: str = "r-1") -> Record:
    body = {"request_id": name, "attempt": attempt, "index": index, "content": text}
    return record(body, offset=offset, ce_type=b"ai.response.chunk")


def account(spent: Decimal = PRICE, offset: int = 0, place: tuple[int, int] = (5, 1), reserved: int = 0) -> Record:
    row = {"o": list(place), "$": [int(spent * 10**9), reserved, 0]}
    return record(row, key=f"@account/w0/{MONTH}", offset=offset)


def event(kind: str, at: float, **more: Any) -> dict[str, Any]:
    return {"t": at, "event": kind, **more}


def facts(topics: Mapping[str, Sequence[Record]] | None = None, **more: Any) -> Facts:
    """A round of one request, in which all is well but what is said otherwise."""
    told: dict[str, Any] = {"asked": asked(), "calls": [call()], "rows": rows(row())}
    quiet: dict[str, Sequence[Record]] = {
        "ai.requests": [record({"request_id": "r-1"})],
        "ai.responses": [response()],
        "ai.budget.state": [state()],
        CHANGELOG: [account()],
        REPLIES: [],
    }
    return Facts({**quiet, **(topics or {})}, **{**told, **more})
