"""A report applied: all that it changes in the table of its workspace, and all that it sends. Pure but for its reading.

`decide.py` says what becomes of the request, `landing.py` of those who wait for the same answer; here their rows come
together, in an order in which each is presupposed by the next ones (streams/rows.py).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from schemas.codec import encode
from schemas.internal import AttemptReport, DispatchCommand
from schemas.request import ReplyAddress
from schemas.response import Response, Status
from schemas.usage import UsageEvent
from streams.accounts import Movement, account_key
from streams.budgets import BudgetBook
from streams.lifecycle import RequestRecord, Sharing, request_key
from streams.rows import Row
from streams.settle.decide import Purse, Settlement, settle
from streams.settle.landing import NOTHING_LANDS, Arrival, Landing, Passenger, land
from streams.sharing import NOTHING_IS_KEPT, CachePolicy, Kept, joined_key
from streams.workspaces import Workspaces


@dataclass(frozen=True)
class SettleConfig:
    """What to do with a request whose attempt is in doubt, make another one or fail it; and which answers are kept."""

    in_doubt: Literal["retry", "fail"] = "retry"
    in_flight: int = 256
    cache: CachePolicy = NOTHING_IS_KEPT


@dataclass(frozen=True)
class Books:
    """Where a report is applied: one partition's rows, the budgets and the policy."""

    workspaces: Workspaces
    partition: int
    budgets: BudgetBook
    config: SettleConfig


@dataclass(frozen=True)
class Addressed:
    """A response on its way to whoever asked."""

    response: Response
    reply: ReplyAddress | None
    traceparent: str | None


@dataclass(frozen=True)
class Applied:
    """All that a report leads to. `afterwards` is written when everything else has arrived.

    `writes_first`: what is said or sent depends on the moment of the decision, and may not be said otherwise later. So
    the writes are with the broker before anything else is.
    """

    writes: dict[str, Row | None]
    usage: UsageEvent | None
    answers: list[Addressed]
    commands: list[DispatchCommand] = field(default_factory=list)
    afterwards: dict[str, Row | None] = field(default_factory=dict)
    writes_first: bool = False


def apply(report: AttemptReport, offset: int, books: Books, now: datetime) -> Applied:
    """Read, decide, and say what to write. Delivered again, a report leads to the same."""
    known = books.workspaces.request(report.workspace_id, report.request_id, books.partition)
    settlement = settle(known, report, offset, books.config.in_doubt, now, _purse(report, known, books))
    record = settlement.record
    landing = _land(report, settlement, offset, books)
    writes: dict[str, Row | None] = {request_key(report.workspace_id, report.request_id): record}
    writes |= landing.writes
    writes |= _moved(report.workspace_id, record, landing, offset, books, now)
    writes |= _keep(report, settlement, offset, books)
    commands = [command for command in (settlement.command, landing.command) if command is not None]
    own_words = settlement.response is not None and settlement.response is not report.response
    spends = any(command.admitted.guarded for command in commands)
    return Applied(
        writes=writes,
        usage=settlement.usage,
        answers=_answers(report, settlement, landing),
        commands=commands,
        afterwards=landing.afterwards | _left(report, record, offset),
        writes_first=own_words or spends or landing.is_new_word,
    )


def _purse(report: AttemptReport, known: RequestRecord | None, books: Books) -> Purse | None:
    """Read only where another attempt may be in question that the budget has to have room for."""
    asks = report.command is not None and report.command.admitted.guarded
    if not asks or known is None or known.month is None:
        return None
    account = books.workspaces.account(report.workspace_id, known.month, books.partition)
    return Purse(account, books.budgets.of(report.workspace_id))


def _moved(
    workspace_id: str, record: RequestRecord, landing: Landing, offset: int, books: Books, now: datetime
) -> dict[str, Row | None]:
    """The accounts that the report changes: nearly always one."""
    movements: defaultdict[str, Movement] = defaultdict(Movement, landing.movements)
    if record.month:
        movements[record.month] += record.movement(offset)
    rows: dict[str, Row | None] = {}
    for month, movement in movements.items():
        account = books.workspaces.account(workspace_id, month, books.partition)
        moved = account.settle(movement, offset, now.timestamp()) if movement else account
        if moved != account:
            rows[account_key(workspace_id, month)] = moved
    return rows


def _land(report: AttemptReport, settlement: Settlement, offset: int, books: Books) -> Landing:
    """What becomes of those who wait for this request's answer, if it has been answered now."""
    record, response = settlement.record, settlement.response
    sharing = record.sharing
    if record.closed_by != offset or response is None or sharing is None or sharing.flight is None:
        return NOTHING_LANDS
    flight = books.workspaces.flight(report.workspace_id, sharing.key, books.partition)
    arrival = Arrival(report.workspace_id, report.request_id, offset, record, response, flight)
    return land(arrival, _passengers(report.workspace_id, sharing, books))


def _passengers(workspace_id: str, sharing: Sharing, books: Books) -> list[Passenger]:
    found = []
    for request_id, joined in books.workspaces.joined(workspace_id, sharing.key, sharing.flight or 0, books.partition):
        record = books.workspaces.request(workspace_id, request_id, books.partition)
        if record is not None:
            found.append(Passenger(request_id, joined, record))
    return found


def _keep(report: AttemptReport, settlement: Settlement, offset: int, books: Books) -> dict[str, Row | None]:
    """The answer, for identical requests that come later."""
    record, response, policy = settlement.record, settlement.response, books.config.cache
    sharing, closed_at = record.sharing, record.closed_at
    if record.closed_by != offset or closed_at is None or sharing is None or sharing.joined or response is None:
        return {}
    if response.status is not Status.SUCCEEDED or not policy.enabled:
        return {}
    body = encode(response)
    if len(body) > policy.max_bytes:
        return {}
    kept = Kept(report.request_id, closed_at, closed_at + sharing.ttl, body)
    return books.workspaces.keep(report.workspace_id, sharing.key, kept, policy.max_entries, books.partition)


def _answers(report: AttemptReport, settlement: Settlement, landing: Landing) -> list[Addressed]:
    """The request's own response, and those of the ones that waited for it."""
    own = [Addressed(settlement.response, report.reply, report.traceparent)] if settlement.response else []
    return [*own, *(Addressed(response, asked.reply, asked.traceparent) for asked, response in landing.answers)]


def _left(report: AttemptReport, record: RequestRecord, offset: int) -> dict[str, Row | None]:
    """One that waited for another's answer, and does so no longer."""
    sharing = record.sharing
    if record.closed_by != offset or sharing is None or not sharing.joined or sharing.flight is None:
        return {}
    return {joined_key(report.workspace_id, sharing.key, sharing.flight, report.request_id): None}
