"""What becomes of a row that a sweep looks at. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streams.answers import expired
from streams.lifecycle import RequestRecord, of_request_key
from streams.records import Record
from streams.reports import answered, report_record
from streams.rows import Row, is_stale
from streams.topology import Topology

#: Seconds after its deadline for which a request may still be on its way to its answer. One that has none by then is
#: lost: its records have left Kafka, or lie in a lane that nobody reads.
LOST_AFTER = 60.0


@dataclass(frozen=True)
class Verdict:
    """The row leaves the table, or its request is answered by a report."""

    leaves: bool = False
    report: Record | None = None


#: A row's key, the row, the time and the seconds for which a request id is known → what becomes of it; None: nothing.
Judge = Callable[[str, Any, datetime, float], Verdict | None]


def judge_row(topology: Topology) -> Judge:
    """For the table of workspaces."""

    def judge(key: str, row: Row, now: datetime, window: float) -> Verdict | None:
        if isinstance(row, RequestRecord) and not row.closed and row.asker is not None:
            # However old: it holds a reservation, which would never end without it.
            lost = _lost(topology, key, row, now)
            return None if lost is None else Verdict(report=lost)
        return Verdict(leaves=True) if is_stale(row, now.timestamp(), window) else None

    return judge


def idle_since(last_touched: Callable[[Any], float], least: float = 0.0) -> Judge:
    """For a table whose rows leave when nothing has touched them for the window, and for so many seconds at least."""

    def judge(_: str, row: Any, now: datetime, window: float) -> Verdict | None:
        return Verdict(leaves=True) if last_touched(row) < now.timestamp() - max(window, least) else None

    return judge


def _lost(topology: Topology, key: str, record: RequestRecord, now: datetime) -> Record | None:
    """The report that answers a request whose deadline has long passed: settlement closes it as any other."""
    workspace_id, request_id = of_request_key(key)
    admitted = record.admitted(workspace_id, request_id)
    if admitted is None or admitted.deadline.timestamp() + LOST_AFTER >= now.timestamp():
        return None
    return report_record(answered(admitted, expired(admitted, (), now)), topology, now)
