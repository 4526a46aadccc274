"""Settlement, decided: what a report changes in a request's record, and what it sends. Pure.

One terminal response per request comes from here: the first answer closes the request, whatever is reported later is
counted and not answered. The same report delivered again (the same offset) sends the same again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.response import Error, Response, Status
from schemas.usage import UsageEvent
from streams.answers import unanswered
from streams.lifecycle import UNKNOWN, Reported, RequestRecord


@dataclass(frozen=True)
class Settlement:
    """What a report leads to. `record` is what is to be stored, or the record as it was."""

    record: RequestRecord
    usage: UsageEvent | None = None
    response: Response | None = None
    command: DispatchCommand | None = None


def settle(
    known: RequestRecord | None,
    report: AttemptReport,
    offset: int,
    in_doubt: Literal["retry", "fail"],
    now: datetime,
) -> Settlement:
    """Apply one report."""
    record = known or RequestRecord(admitted_by=UNKNOWN, admitted_at=now.timestamp())
    if report.follow is Follow.INTERRUPTED:
        return _resolve(record, report, offset, in_doubt, now)
    if report.usage is None:
        return _answer(record, report, offset, now)
    seen = record.reports.get(report.usage.attempt)
    settled = _follow(record, report, offset, seen, now)
    # The first note of an attempt stands: a later one in its place would let its own redelivery pass for the first.
    noted = settled.record if seen else settled.record.report(report.usage.attempt, offset, report.follow)
    return Settlement(noted, report.usage, settled.response, settled.command)


def _follow(
    record: RequestRecord, report: AttemptReport, offset: int, seen: Reported | None, now: datetime
) -> Settlement:
    if report.follow is Follow.ANSWER:
        return _answer(record, report, offset, now)
    # Where somebody has taken this attempt for lost, its successor is on its way already: one chain is enough.
    first = seen is None or seen.offset == offset
    onward = report.follow is Follow.FORWARD and first and not record.closed
    return Settlement(record, command=report.command if onward else None)


def _answer(record: RequestRecord, report: AttemptReport, offset: int, now: datetime) -> Settlement:
    if record.closed:
        again = record.closed_by == offset
        return Settlement(record, response=report.response if again else None)
    return Settlement(record.close(offset, now.timestamp()), response=report.response)


def _resolve(
    record: RequestRecord,
    report: AttemptReport,
    offset: int,
    in_doubt: Literal["retry", "fail"],
    now: datetime,
) -> Settlement:
    """A mark without an owner. If its attempt was reported, nothing is in doubt."""
    usage = report.usage
    if usage is None or report.command is None:
        return Settlement(record)
    seen = record.reports.get(usage.attempt)
    if seen is None or (seen.offset == offset and seen.follow is Follow.INTERRUPTED):
        return _doubt(record, report, usage, offset, in_doubt, now)
    if seen.follow is Follow.RETRY and not record.closed:
        # Reported, and the lane that wanted to try again by itself is gone: somebody has to.
        return Settlement(record.report(usage.attempt, offset, Follow.FORWARD), command=report.command)
    if seen.follow is Follow.FORWARD and seen.offset == offset and not record.closed:
        return Settlement(record, command=report.command)
    return Settlement(record)


def _doubt(
    record: RequestRecord,
    report: AttemptReport,
    usage: UsageEvent,
    offset: int,
    in_doubt: Literal["retry", "fail"],
    now: datetime,
) -> Settlement:
    noted = record.report(usage.attempt, offset, Follow.INTERRUPTED)
    if record.closed and record.closed_by != offset:
        return Settlement(noted, usage)
    if in_doubt == "retry":
        return Settlement(noted, usage, command=report.command)
    if report.command is None:
        return Settlement(noted, usage)
    error = Error(
        code="in_doubt",
        message="The worker that made the call is gone; it may have been billed, and the policy is not to repeat it.",
        retryable=True,
    )
    response = unanswered(report.command.admitted, Status.FAILED, error, attempts=report.command.attempts, now=now)
    return Settlement(noted.close(offset, now.timestamp()) if not record.closed else noted, usage, response)
