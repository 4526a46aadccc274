"""The life of a request, as admission and settlement share it: open → closed, with the attempts that were reported.

Both stages read and write this record in the request's own partition, one event at a time, so there is one writer and
no race. Each change carries the offset of the event that made it: the same event delivered again finds its own mark,
changes nothing, and sends the same outputs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from schemas.internal import Follow


@dataclass(frozen=True, slots=True)
class Reported:
    """An attempt that was reported: by which offset of the report topic, and what followed."""

    offset: int
    follow: Follow


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What is known of one request. Times are seconds since 1970.

    `admitted_by` is the offset in the request topic; `closed_by` is where the terminal response came from:
    an offset in the report topic, or ADMISSION. `route` is the order of providers where admission has changed it for
    the state of their lanes: delivered again, the request must take the same way.
    """

    admitted_by: int
    admitted_at: float
    closed_by: int | None = None
    closed_at: float | None = None
    reports: dict[int, Reported] = field(default_factory=dict)
    route: tuple[str, ...] = ()

    @property
    def closed(self) -> bool:
        return self.closed_by is not None

    def close(self, by: int, at: float) -> RequestRecord:
        return replace(self, closed_by=by, closed_at=at)

    def report(self, attempt: int, offset: int, follow: Follow) -> RequestRecord:
        return replace(self, reports={**self.reports, attempt: Reported(offset, follow)})

    def last_touched(self) -> float:
        """When a sweep counts this record as idle from."""
        return self.closed_at or self.admitted_at


#: `closed_by` of a request that admission itself answered.
ADMISSION = -1
#: `admitted_by` of a request whose admission was never written down (its worker died first).
UNKNOWN = -1


def encode_record(record: RequestRecord) -> bytes:
    body: dict[str, Any] = {"v": 1, "o": record.admitted_by, "t": record.admitted_at}
    if record.closed:
        body["c"] = [record.closed_by, record.closed_at]
    if record.route:
        body["p"] = record.route
    if record.reports:
        body["r"] = {str(n): [seen.offset, seen.follow] for n, seen in record.reports.items()}
    return orjson.dumps(body)


def decode_record(value: bytes) -> RequestRecord:
    body = orjson.loads(value)
    closed_by, closed_at = body.get("c") or (None, None)
    reports = {int(n): Reported(seen[0], Follow(seen[1])) for n, seen in body.get("r", {}).items()}
    return RequestRecord(body["o"], body["t"], closed_by, closed_at, reports, tuple(body.get("p", ())))


def request_key(workspace_id: str, request_id: str) -> str:
    """A request's key in tables. A workspace id holds no slash, so two requests never share one."""
    return f"{workspace_id}/{request_id}"
