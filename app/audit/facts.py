"""What an audit keeps of a record: names, moments and money, never a body. Pure.

Moments are milliseconds since 1970 and money is in nano-dollars, both as integers: there may be millions of them. A
`key` is `workspace/request id`. `waits` says that the record's reader has not acknowledged it yet.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import orjson

from schemas.base import Event, Moment, Month, RequestId, WorkspaceId
from schemas.codec import UndecodableError, decode
from schemas.money import ZERO, Usd
from schemas.request import Part
from schemas.response import Status
from schemas.usage import RANK_BIT, Outcome, UsageEvent
from streams.admit.parse import Parsed, Raw, parse
from streams.lifecycle import request_key

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: From this rank on, a usage event knows how its attempt has ended.
_KNOWN = 4


class Requested(NamedTuple):
    """A record of `ai.requests`. `home`: in its workspace's own partition, where requests are admitted."""

    key: str
    at: int
    due: int
    home: bool
    refused: bool
    waits: bool


class Told(NamedTuple):
    """What a response says of one attempt."""

    attempt: int
    cost: int
    in_doubt: bool


class Answered(NamedTuple):
    """A terminal response. `meaning` is the same for repeats; `asked` is when its request was admitted, about."""

    key: str
    at: int
    asked: int
    meaning: int
    status: str
    cost: int
    attempts: tuple[Told, ...]
    cached: bool
    waits: bool


class Used(NamedTuple):
    """A usage event. `original` is the cost before any correction. `supposed`: who found the attempt's mark took it for
    lost; whoever made the call may say more of it later, and be in doubt too.
    """

    key: str
    attempt: int
    started: int
    month: str
    version: int
    cost: int
    original: int
    corrected: bool
    waits: bool
    supposed: bool = False

    @property
    def known(self) -> bool:
        return self.version >> RANK_BIT >= _KNOWN


class LedgerRow(NamedTuple):
    """A row of `attempts`. `fresh`: written since the audit began, so its usage may be newer than what was read."""

    key: str
    attempt: int
    started: int
    month: str
    version: int
    cost: int
    original: int
    corrected: bool
    in_doubt: bool
    unpriced: bool
    fresh: bool


class OutcomeRow(NamedTuple):
    """A row of `outcomes`."""

    key: str
    at: int
    status: str
    cost: int
    fresh: bool


class MonthSum(NamedTuple):
    """What the ledger says of a workspace's whole month. `corrections`: by how much they have changed the cost."""

    workspace: str
    month: str
    cost: int
    corrections: int
    last_change: int


class BudgetSaid(NamedTuple):
    """The newest state of a workspace's month on `ai.budget.state`."""

    workspace: str
    month: str
    spent: int
    reserved: int
    open_requests: int
    at: int


class Place(NamedTuple):
    """Where a record is, and what it says of itself."""

    topic: str
    partition: int
    offset: int
    timestamp: int


def milliseconds(moment: datetime) -> int:
    return int((moment - _EPOCH).total_seconds() * 1000)


def nanos(amount: Decimal) -> int:
    return int(amount.scaleb(9))


def dollars(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-9)


class RequestReader:
    """Reads records of `ai.requests` as admission does. `deadline` is in seconds, for requests that name none."""

    def __init__(self, *, max_bytes: int, deadline: float) -> None:
        self._max_bytes = max_bytes
        self._deadline = int(deadline * 1000)

    def read(
        self, value: bytes | None, headers: tuple[tuple[str, bytes], ...], place: Place, waits: bool
    ) -> tuple[str, Requested]:
        """The workspace, and the request as if it were at home there."""
        identity = f"{place.topic}/{place.partition}/{place.offset}/{place.timestamp}"
        parsed = parse(Raw(value, headers, identity), max_bytes=self._max_bytes)
        envelope = parsed.envelope
        if not isinstance(parsed, Parsed):
            key = request_key(envelope.workspace_id, envelope.request_id)
            return envelope.workspace_id, Requested(key, place.timestamp, place.timestamp, True, True, waits)
        request = parsed.request
        key = request_key(request.workspace_id, request.request_id or envelope.request_id)
        stated = request.deadline or envelope.expires
        due = milliseconds(stated) if stated else place.timestamp + self._deadline
        return request.workspace_id, Requested(key, place.timestamp, max(due, place.timestamp), True, False, waits)


class _Cost(Part):
    cost: Usd = ZERO


class _Attempt(Part):
    attempt: int
    outcome: Outcome
    cost: Usd = ZERO


class _Response(Event):
    """The part of a response that an audit compares."""

    request_id: RequestId
    workspace_id: WorkspaceId
    status: Status
    usage: _Cost = _Cost()
    attempts: tuple[_Attempt, ...] = ()
    cached: bool = False
    latency: float = 0.0
    answered_at: Moment


#: Differ between repeats of an answer that admission gives anew when a record is delivered again.
_MOMENTS = ("answered_at", "latency")


def answered(value: bytes | None, waits: bool) -> Answered | None:
    """The response in a record; None: it is none."""
    try:
        response = decode(_Response, value)
    except UndecodableError:
        return None
    body = {name: part for name, part in orjson.loads(value or b"").items() if name not in _MOMENTS}
    digest = hashlib.blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=7).digest()
    at = milliseconds(response.answered_at)
    return Answered(
        key=request_key(response.workspace_id, response.request_id),
        at=at,
        asked=at - int(response.latency * 1000),
        meaning=int.from_bytes(digest),
        status=response.status.value,
        cost=nanos(response.usage.cost),
        attempts=tuple(
            Told(told.attempt, nanos(told.cost), told.outcome is Outcome.IN_DOUBT) for told in response.attempts
        ),
        cached=response.cached,
        waits=waits,
    )


def used(value: bytes | None, waits: bool) -> Used | None:
    """The usage event in a record; None: it is none."""
    try:
        event = decode(UsageEvent, value)
    except UndecodableError:
        return None
    correction = event.correction
    return Used(
        key=request_key(event.workspace_id, event.request_id),
        attempt=event.attempt,
        started=milliseconds(event.started_at),
        month=event.budget_month,
        version=event.version,
        cost=nanos(event.cost),
        original=nanos(correction.original_cost if correction else event.cost),
        corrected=correction is not None,
        waits=waits,
        supposed=event.error_code == "interrupted",
    )


class _State(Event):
    workspace_id: WorkspaceId
    month: Month
    spent: Usd
    reserved: Usd
    open_requests: int
    at: Moment


def budget_said(value: bytes | None) -> BudgetSaid | None:
    """The budget's state in a record; None: it is none."""
    try:
        state = decode(_State, value)
    except UndecodableError:
        return None
    spent, reserved = nanos(state.spent), nanos(state.reserved)
    return BudgetSaid(state.workspace_id, state.month, spent, reserved, state.open_requests, milliseconds(state.at))
