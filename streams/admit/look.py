"""What admission reads of a workspace before it decides, and what its decision writes. Pure but for its reading."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.codec import encode
from streams.accounts import account_key
from streams.admit.decide import (
    AdmissionPolicy,
    Answer,
    Decision,
    Duplicate,
    Forward,
    Join,
    Leader,
    Rebook,
    Seen,
    Settle,
)
from streams.admit.money import PriceGuess
from streams.admit.parse import Parsed
from streams.budgets import BudgetBook
from streams.lifecycle import request_key
from streams.outlook import Outlook
from streams.rows import Row
from streams.sharing import Flight, Joined, flight_key, joined_key
from streams.workspaces import Workspaces


@dataclass(frozen=True)
class Books:
    """What is known of workspaces, and the policy."""

    workspaces: Workspaces
    budgets: BudgetBook
    policy: AdmissionPolicy
    guess: PriceGuess


@dataclass(frozen=True)
class Place:
    """Where a request is in the log."""

    offset: int
    partition: int


def look(parsed: Parsed, place: Place, books: Books, now: datetime, wait: Outlook | None) -> Seen:
    """All that the decision depends on."""
    request, request_id, rows = parsed.request, id_of(parsed), books.workspaces
    workspace_id = request.workspace_id
    known = rows.request(workspace_id, request_id, place.partition)
    budget = books.budgets.of(workspace_id)
    month = known.month if known is not None and known.month else budget.month_of(now)
    key = books.policy.cache_key(request)
    is_own = known is not None and known.admitted_by == place.offset
    return Seen(
        offset=place.offset,
        budget=budget,
        known=known,
        wait=wait,
        account=rows.account(workspace_id, month, place.partition),
        cache_key=key,
        kept=rows.kept(workspace_id, key, place.partition) if key else (),
        leader=_leader(workspace_id, request_id, key, rows, place.partition) if key else None,
        guess=books.guess,
        own=rows.rows_of_request(workspace_id, request_id, place.partition) if is_own else {},
    )


def _leader(workspace_id: str, request_id: str, key: str, rows: Workspaces, partition: int) -> Leader | None:
    """The identical request on its way, if there is one that is not answered yet."""
    flight = rows.flight(workspace_id, key, partition)
    if flight is None or flight.leader == request_id:
        return None
    record = rows.request(workspace_id, flight.leader, partition)
    if record is None or record.closed:
        return None
    return Leader(flight.number, flight.deadline, record.month, flight.priority, (record.asker or {}).get("t"))


def writes_of(decision: Decision, seen: Seen, now: datetime) -> dict[str, Row | None]:
    """The rows that a decision leaves behind, each before those that presuppose it.

    A request that is delivered again writes again what is there: the write before may have been what failed.
    """
    if isinstance(decision, Duplicate | Settle):
        return dict(seen.own)
    if isinstance(decision, Rebook):
        month, movement = decision.record.month, decision.record.admitting()
        account = seen.account.admit(movement, seen.offset, now.timestamp())
        return {**seen.own, account_key(decision.workspace_id, month): account} if month else dict(seen.own)
    admitted = decision.admitted if isinstance(decision, Answer) else decision.command.admitted
    workspace_id, request_id = admitted.workspace_id, admitted.request_id
    record, sharing = decision.record, decision.record.sharing
    writes: dict[str, Row | None] = {request_key(workspace_id, request_id): record}
    deadline = admitted.deadline.timestamp()
    if isinstance(decision, Join) and sharing is not None and sharing.flight is not None:
        name = joined_key(workspace_id, sharing.key, sharing.flight, request_id)
        writes[name] = Joined(deadline, encode(decision.command))
    if isinstance(decision, Forward):
        if decision.leads and sharing is not None and sharing.flight is not None:
            writes[flight_key(workspace_id, sharing.key)] = Flight(
                request_id, sharing.flight, deadline, priority=admitted.request.priority
            )
        if movement := record.admitting():
            account = seen.account.admit(movement, seen.offset, now.timestamp())
            writes[account_key(workspace_id, admitted.budget_month)] = account
    return writes


def id_of(parsed: Parsed) -> str:
    return parsed.request.request_id or parsed.envelope.request_id
