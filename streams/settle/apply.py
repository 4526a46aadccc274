"""A report applied: all that it changes in the table of its workspace, and all that it sends. Pure but for its reading.

`decide.py` says what becomes of the request, `landing.py` of those who wait for the same answer; here their rows come
together, in an order in which each is presupposed by the next ones (streams/rows.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from schemas.chunk import Chunk
from schemas.codec import encode
from schemas.internal import AttemptReport, DispatchCommand
from schemas.request import ReplyAddress
from schemas.response import Response, Status
from schemas.usage import UsageEvent
from streams.accounts import Movement, account_key
from streams.budgets import BudgetBook
from streams.lifecycle import RequestRecord, request_key
from streams.rows import Row
from streams.settle.decide import Purse, Settlement, settle
from streams.settle.landing import NOTHING_LANDS, PIECE, Arrival, Landing, Passenger, Piece, land, tell
from streams.sharing import NOTHING_IS_KEPT, CachePolicy, Joined, Kept, Landed, joined_key
from streams.workspaces import Workspaces

#: How many of those aboard one piece looks at, where few of them are to be told.
MOST_LOOKED_AT = 1_000
NO_FLIGHT = -1


@dataclass(frozen=True)
class SettleConfig:
    """What to do with a request whose attempt is in doubt, make another one or fail it; which answers are kept; and how
    many of those who wait for one answer are told at a time.
    """

    in_doubt: Literal["retry", "fail"] = "retry"
    in_flight: int = 256
    cache: CachePolicy = NOTHING_IS_KEPT
    piece: int = PIECE


@dataclass(frozen=True)
class Books:
    """Where a report is applied: one partition's rows, the budgets and the policy."""

    workspaces: Workspaces
    partition: int
    budgets: BudgetBook
    config: SettleConfig


@dataclass(frozen=True)
class Addressed:
    """A response on its way to whoever asked, and before it the chunk for one who reads chunks."""

    response: Response
    reply: ReplyAddress | None
    traceparent: str | None
    chunk: Chunk | None = None


@dataclass(frozen=True)
class Applied:
    """All that a report leads to. `afterwards` is written when everything else has arrived. `landing` is the end of a
    flight: those aboard are to be told when all the rest has arrived (`next_piece`).

    `writes` always has the request's record, changed or not, and is with the broker before anything else is sent. The
    broker refuses the rows of a worker that has lost the partition, so nothing that such a worker decides is sent.
    What is sent can also depend on the moment of the decision, and a later delivery finds it written down.
    """

    writes: dict[str, Row | None]
    usage: UsageEvent | None
    answers: list[Addressed]
    commands: list[DispatchCommand] = field(default_factory=list)
    afterwards: dict[str, Row | None] = field(default_factory=dict)
    landing: Arrival | None = None


def apply(report: AttemptReport, offset: int, books: Books, now: datetime) -> Applied:
    """Read, decide, and say what to write. Delivered again, a report leads to the same."""
    known = books.workspaces.request(report.workspace_id, report.request_id, books.partition)
    settlement = settle(known, report, offset, books.config.in_doubt, now, _purse(report, known, books))
    record = settlement.record
    arrival = _arrival(report, settlement, offset, books)
    landing = land(arrival, _Aboard(arrival, books)) if arrival else NOTHING_LANDS
    writes: dict[str, Row | None] = {request_key(report.workspace_id, report.request_id): record}
    writes |= landing.writes
    writes |= _moved(report.workspace_id, record, landing, offset, books, now)
    writes |= _keep(report, settlement, offset, books)
    commands = [command for command in (settlement.command, landing.command) if command is not None]
    return Applied(
        writes=writes,
        usage=settlement.usage,
        answers=_answers(report, settlement),
        commands=commands,
        afterwards=landing.afterwards | _left(report, record, offset),
        landing=arrival if landing.landed else None,
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
    """The accounts that the report changes: nearly always one.

    Where a reservation changes hands the sum stays, and that it was done is written all the same: when it is delivered
    again, its next leader may have ended, and nobody could tell that the reservation was passed on and not given back.

    An account that knows of the report already is written again: the local table may be all that knows, because the
    broker did not take the write, or the worker was killed before it could.
    """
    movements: defaultdict[str, Movement] = defaultdict(Movement, landing.movements)
    if record.month:
        movements[record.month] += record.movement(offset)
    rows: dict[str, Row | None] = {}
    for month, movement in movements.items():
        account = books.workspaces.account(workspace_id, month, books.partition)
        if movement or month in landing.movements:
            rows[account_key(workspace_id, month)] = account.settle(movement, offset, now.timestamp())
    return rows


def _arrival(report: AttemptReport, settlement: Settlement, offset: int, books: Books) -> Arrival | None:
    """The end of this request, if others may wait for its answer and it has been answered now."""
    record, response = settlement.record, settlement.response
    sharing = record.sharing
    if record.closed_by != offset or response is None or sharing is None or sharing.flight is None:
        return None
    flight = books.workspaces.flight(report.workspace_id, sharing.key, books.partition)
    landed = books.workspaces.landed(report.workspace_id, sharing.key, sharing.flight, books.partition)
    begun = any(row.by == offset for row in landed)
    return Arrival(report.workspace_id, report.request_id, offset, record, response, flight, begun)


def next_piece(arrival: Arrival, books: Books, since: str = "") -> Piece:
    """The next ones whom a landing tells, out of what is in the table now, from a request id on."""
    aboard, told = _Aboard(arrival, books), list[Passenger]()
    own = next((row for row in aboard.landed() if row.by == arrival.offset), None)
    if own is None:
        return tell(arrival, ())
    for looked_at, (name, joined) in enumerate(aboard.rows(since)):
        if len(told) >= books.config.piece or looked_at >= MOST_LOOKED_AT:
            return replace(tell(arrival, told), onward=name)
        if own.has_aboard(joined.deadline) and (one := aboard.passenger(name)) is not None:
            told.append(one)
    return tell(arrival, told)


@dataclass(frozen=True)
class _Aboard:
    """Implements landing.Aboard: the rows of those who have joined a leader's flight."""

    arrival: Arrival
    books: Books

    def __iter__(self) -> Iterator[tuple[str, Joined]]:
        return self.rows()

    def rows(self, since: str = "") -> Iterator[tuple[str, Joined]]:
        earlier = [row for row in self.landed() if row.by < self.arrival.offset]
        workspace_id, rows, (key, flight) = self.arrival.workspace_id, self.books.workspaces, self._flight
        for name, joined in rows.joined(workspace_id, key, flight, self.books.partition, since):
            if not any(row.has_aboard(joined.deadline) for row in earlier):
                yield name, joined

    def passenger(self, request_id: str) -> Passenger | None:
        workspace_id, rows, (key, flight) = self.arrival.workspace_id, self.books.workspaces, self._flight
        joined = rows.aboard(workspace_id, key, flight, request_id, self.books.partition)
        record = rows.row_of_request(workspace_id, request_id, self.books.partition)
        return None if joined is None or record is None else Passenger(request_id, joined, record)

    def landed(self) -> list[Landed]:
        return self.books.workspaces.landed(self.arrival.workspace_id, *self._flight, self.books.partition)

    @property
    def _flight(self) -> tuple[str, int]:
        sharing = self.arrival.record.sharing
        return ("", NO_FLIGHT) if sharing is None or sharing.flight is None else (sharing.key, sharing.flight)


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


def _answers(report: AttemptReport, settlement: Settlement) -> list[Addressed]:
    """The request's own response, and before it what its worker has not told of it."""
    if settlement.response is None:
        return []
    rest = report.rest if settlement.response is report.response else None
    return [Addressed(settlement.response, report.reply, report.traceparent, rest)]


def _left(report: AttemptReport, record: RequestRecord, offset: int) -> dict[str, Row | None]:
    """One that waited for another's answer, and does so no longer."""
    sharing = record.sharing
    if record.closed_by != offset or sharing is None or not sharing.joined or sharing.flight is None:
        return {}
    return {joined_key(report.workspace_id, sharing.key, sharing.flight, report.request_id): None}
