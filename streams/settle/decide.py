"""Settlement, decided: what a report changes in a request's record and its account, and what it sends. Pure.

One terminal response per request comes from here: the first answer closes the request, whatever is reported later is
counted and not answered. The same report delivered again (the same offset) sends the same again.

What follows from the report of an attempt depends on what was noted of it before. Each of these rows counts its usage,
once: the version that knows most replaces the others (`RequestRecord.charge`).

| report | nothing noted | noted as in doubt (INTERRUPTED) | noted otherwise |
|---|---|---|---|
| ANSWER | the answer, if the request is open | nothing | the answer, if the request is open |
| FORWARD | the next command, if the request is open | nothing | nothing |
| RETRY | nothing: its lane tries again by itself | nothing | nothing |
| INTERRUPTED | a doubt: by the policy the next command or the answer `in_doubt`, if the request is open | nothing | \
RETRY: the next command, if the request is open; else nothing. Its usage is not counted |

"Noted as in doubt" means by an earlier offset. With the policy `retry` that report has sent the next command, so the
late report of the attempt settles what it has cost: its successor brings the answer, and no request has two chains of
attempts. With the policy `fail` the request is closed. A report without an attempt (expired, cancelled, unavailable)
is the answer of whoever has the command now, if the request is open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.response import Error, Response, Status
from schemas.usage import UsageEvent
from streams.accounts import Account, dollars, nanos
from streams.answers import unanswered
from streams.budgets import Budget
from streams.lifecycle import UNKNOWN, Reported, RequestRecord
from streams.room import no_room


@dataclass(frozen=True)
class Settlement:
    """What a report leads to. `record` is what is to be stored, or the record as it was."""

    record: RequestRecord
    usage: UsageEvent | None = None
    response: Response | None = None
    command: DispatchCommand | None = None


@dataclass(frozen=True)
class Purse:
    """The account of the request's month, and the budget that it may use up."""

    account: Account
    budget: Budget


def settle(
    known: RequestRecord | None,
    report: AttemptReport,
    offset: int,
    in_doubt: Literal["retry", "fail"],
    now: datetime,
    purse: Purse | None = None,
) -> Settlement:
    """Apply one report. Without a purse no budget stands in the way of another attempt."""
    record = known or RequestRecord(admitted_by=UNKNOWN, admitted_at=now.timestamp())
    if record.month is None and report.usage is not None:
        # Its admission was not written down, its worker died first: the month in which its first call counts.
        record = replace(record, month=report.usage.budget_month)
    if record.closed_by == offset and record.told is not None:
        return Settlement(record, report.usage, _refused(report, record, Error.model_validate_json(record.told)))
    settled = _settled(record, report, offset, in_doubt, now)
    if settled.usage is not None:
        settled = replace(settled, record=settled.record.charge(settled.usage, offset))
    if purse is None or settled.command is None or not settled.command.admitted.guarded:
        return settled
    return _within_budget(settled, settled.command, report, offset, purse, now)


def _settled(
    record: RequestRecord, report: AttemptReport, offset: int, in_doubt: Literal["retry", "fail"], now: datetime
) -> Settlement:
    if report.follow is Follow.INTERRUPTED:
        return _resolve(record, report, offset, in_doubt, now)
    if report.usage is None:
        return _answer(record, report, offset, now)
    seen = record.reports.get(report.usage.attempt)
    settled = _follow(record, report, offset, seen, now)
    # The first note of an attempt stands: a later one in its place would let its own redelivery pass for the first.
    noted = settled.record if seen else settled.record.report(report.usage.attempt, offset, report.follow)
    return Settlement(noted, report.usage, settled.response, settled.command)


def _within_budget(
    settled: Settlement,
    command: DispatchCommand,
    report: AttemptReport,
    offset: int,
    purse: Purse,
    now: datetime,
) -> Settlement:
    """Another attempt after one that may have been paid for needs room for both. Decided once, for a new report.

    By the budget as it is now: one that was set to refuse nobody since the admission stands in nobody's way.
    """
    movement = settled.record.movement(offset)
    if movement.spent <= 0 or purse.account.settled_to >= offset or not purse.budget.refuses:
        return settled
    account = purse.account.settle(movement, offset, now.timestamp())
    if account.committed <= nanos(purse.budget.amount):
        return settled
    without = replace(account, reserved=account.reserved - settled.record.reserved)
    error = no_room(command.admitted, purse.budget, without, settled.record.reserved)
    closed = replace(settled.record.close(offset, now.timestamp()), told=error.model_dump_json())
    return Settlement(closed, settled.usage, _refused(report, closed, error))


def _refused(report: AttemptReport, record: RequestRecord, error: Error) -> Response | None:
    """The response to a request that has had an attempt, and for whose next one there is no money."""
    if report.command is None or record.closed_at is None:
        return None
    at = datetime.fromtimestamp(record.closed_at, UTC)
    return unanswered(report.command.admitted, Status.FAILED, error, attempts=report.command.attempts, now=at)


def _follow(
    record: RequestRecord, report: AttemptReport, offset: int, seen: Reported | None, now: datetime
) -> Settlement:
    if report.follow is Follow.ANSWER:
        doubted = seen is not None and seen.follow is Follow.INTERRUPTED and seen.offset < offset
        # Its successor was sent with the doubt, and answers.
        return Settlement(record) if doubted and not record.closed else _answer(record, report, offset, now)
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
    onward = _as_reported(report.command, record, usage.attempt)
    if seen.follow is Follow.RETRY and not record.closed:
        # Reported, and the lane that wanted to try again by itself is gone: somebody has to.
        return Settlement(record.report(usage.attempt, offset, Follow.FORWARD), command=onward)
    if seen.follow is Follow.FORWARD and seen.offset == offset and not record.closed:
        return Settlement(record, command=onward)
    return Settlement(record)


def _as_reported(command: DispatchCommand, record: RequestRecord, attempt: int) -> DispatchCommand:
    """The command, with the attempt as it was reported: whoever found its mark took it for lost, at its estimate."""
    charges = [charge for charge in record.charges if charge.attempt == attempt]
    if not charges or not command.attempts:
        return command
    last = charges[-1]
    *earlier, doubted = command.attempts
    error = Error(
        code="failed", message="It failed, and the worker that would have tried again is gone.", retryable=True
    )
    known = doubted.model_copy(update={"outcome": last.outcome, "cost": dollars(last.cost), "error": error})
    return command.model_copy(update={"attempts": (*earlier, known)})


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
    if in_doubt == "retry" and not noted.closed:
        return Settlement(noted, usage, command=report.command)
    if report.command is None:
        return Settlement(noted, usage)
    error = Error(
        code="in_doubt",
        message="The worker that made the call is gone; it may have been billed, and the policy is not to repeat it.",
        retryable=True,
    )
    closed = noted if noted.closed else noted.close(offset, now.timestamp())
    at = datetime.fromtimestamp(closed.closed_at or now.timestamp(), UTC)
    response = unanswered(report.command.admitted, Status.FAILED, error, attempts=report.command.attempts, now=at)
    return Settlement(closed, usage, response)
