"""Admission, decided: a pure function of the request, what is known of it, the policy and `now`.

A request that was seen before takes the way that was chosen then. A new one is answered from what is kept, or joins an
identical one on its way, or gets a reservation and goes to its first provider; or it is told why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from schemas.base import Month, Priority
from schemas.codec import decode
from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest, CommonRequest
from schemas.response import Error, Response, Status
from streams.accounts import UNTOUCHED, Account
from streams.admit.money import PriceGuess, Refused, nobody_knows, reserve
from streams.admit.parse import Parsed, Refusal
from streams.admit.ports import Models
from streams.answers import expired, unanswered
from streams.budgets import Budget
from streams.lifecycle import ADMISSION, RequestRecord, Sharing, asker_of
from streams.outlook import Outlook
from streams.rows import Row
from streams.sharing import NOTHING_IS_KEPT, CachePolicy, Kept, served


@dataclass(frozen=True)
class AdmissionPolicy:
    """What the deployment decides. `kinds` maps each configured provider to the kinds that it answers.

    `default_deadline` is in seconds from admission, for requests that name none. Without `models` any model will do.
    """

    provider_order: tuple[str, ...]
    kinds: Mapping[str, frozenset[str]]
    default_deadline: float = 600.0
    models: Models | None = None
    cache: CachePolicy = NOTHING_IS_KEPT

    def cache_key(self, request: CommonRequest) -> str | None:
        """What a request's answer is kept under; a model has one key, with its vendor before it and without."""
        if self.models is not None and request.model is not None:
            request = self.models.plain(request)
        return self.cache.key(request)


@dataclass(frozen=True)
class Duplicate:
    """This request id is known from another record, or it was answered since: nothing new happens."""


@dataclass(frozen=True)
class Rebook:
    """A request that was answered since, and whose reservation a crash has kept from its account: the answer has
    released what was not there. It is put there now, and the two make nothing.
    """

    workspace_id: str
    record: RequestRecord


@dataclass(frozen=True)
class Forward:
    """The request goes to its first provider. `leads` says that identical ones may join it from now on."""

    record: RequestRecord
    command: DispatchCommand
    leads: bool = False


@dataclass(frozen=True)
class Join:
    """An identical request is on its way, and its answer will be this one's too."""

    record: RequestRecord
    command: DispatchCommand


@dataclass(frozen=True)
class Answer:
    """The request is answered here and now. `bury` says why its bytes belong into the dead letters as well."""

    record: RequestRecord
    response: Response
    admitted: AdmittedRequest
    bury: Error | None = None


@dataclass(frozen=True)
class Settle:
    """The request is answered, by settlement: it holds a reservation."""

    admitted: AdmittedRequest
    response: Response


Decision = Duplicate | Rebook | Forward | Join | Answer | Settle


@dataclass(frozen=True)
class Leader:
    """An identical request that is on its way: its flight, until when it is answered (seconds since 1970), which month
    it counts in, how urgent it is, and its trace.
    """

    flight: int
    deadline: float
    month: Month | None
    priority: Priority
    traceparent: str | None = None


@dataclass(frozen=True)
class Seen:
    """What is known of a record: its place in the log, what the table says of its request, and how the lanes stand.

    `wait` gives the seconds that the request would wait at a provider. It is None where the record may have been
    admitted before by a worker that is gone: whatever that one has chosen, it did not write it down everywhere yet,
    and the safe way is the one that depends on nothing. `account` is that of the budget's month. `cache_key` is what
    the request's answer is kept under (None: it is not), `kept` are the answers that are there, `leader` is the
    identical request on its way. `guess` says what a provider would ask. `own` are the rows that an earlier delivery of
    the same record has left.
    """

    offset: int
    budget: Budget
    known: RequestRecord | None = None
    wait: Outlook | None = None
    account: Account = UNTOUCHED
    cache_key: str | None = None
    kept: tuple[Kept, ...] = ()
    leader: Leader | None = None
    guess: PriceGuess = nobody_knows
    own: Mapping[str, Row | None] = field(default_factory=dict)


def decide(parsed: Parsed, seen: Seen, policy: AdmissionPolicy, now: datetime) -> Decision:
    """Admit a valid request, unless its id is known from another record."""
    known = seen.known
    if known is not None and (known.admitted_by != seen.offset or known.closed_by not in (None, ADMISSION)):
        # Another record of the same id, or a redelivery of a request that has been answered since.
        return Rebook(parsed.request.workspace_id, known) if _is_unbooked(known, seen) else Duplicate()
    # On redelivery the first admission's time stands: the same deadline, hence the same outputs.
    moment = datetime.fromtimestamp(known.admitted_at, now.tzinfo) if known is not None else now
    admitted = _admit(parsed, seen.budget, policy, moment, known)
    record = known or RequestRecord(seen.offset, moment.timestamp(), month=admitted.month, asker=asker_of(admitted))
    route = _route(parsed.request, policy)
    if known is not None and not known.closed and not known.joined:
        return _forward_again(known, admitted, route, now)
    if record.closed_at is not None:
        # Answered here before: the same answer again, to the second.
        now = datetime.fromtimestamp(record.closed_at, now.tzinfo)
        if record.told is not None:
            return _again(record, record.told, admitted, seen, now)
    if admitted.expired(now):
        return _answer(record, expired(admitted, (), now), admitted, now)
    if isinstance(route, Error):
        response = unanswered(admitted, Status.REJECTED, route, now=now)
        return _answer(record, response, admitted, now, bury=route)
    return _begin(record, admitted, route, seen, policy, now)


def _is_unbooked(known: RequestRecord, seen: Seen) -> bool:
    """Whether the account has the release of a reservation, or will have it, and not the reservation: a worker died
    before both rows of its admission were with the broker, and its command went all the way before this record was read
    again.
    """
    return (
        known.admitted_by == seen.offset
        and known.closed_by is not None
        and seen.account.is_unbooked(known.admitting(), seen.offset)
    )


def _forward_again(
    known: RequestRecord, admitted: AdmittedRequest, route: tuple[str, ...] | Error, now: datetime
) -> Decision:
    """Delivered again while it is on its way: the same way. Its deadline is its lane's affair by now.

    The providers may have been set up anew in between, and none of them be left. Then settlement answers, which also
    ends what was reserved.
    """
    if isinstance(route, Error) and not known.route:
        return Settle(admitted, unanswered(admitted, Status.REJECTED, route, now=now))
    return Forward(known, DispatchCommand(admitted=admitted, route=known.route or cast(tuple[str, ...], route)))


def _begin(
    record: RequestRecord,
    admitted: AdmittedRequest,
    route: tuple[str, ...],
    seen: Seen,
    policy: AdmissionPolicy,
    now: datetime,
) -> Decision:
    """The way of a request for which nothing has happened yet."""
    ttl = admitted.request.cache.ttl
    if (found := _fresh(seen.kept, now.timestamp(), ttl)) is not None:
        answer = served(decode(Response, found.response), admitted, now)
        return _answer(replace(record, told=f"{FROM}{found.leader}"), answer, admitted, now)
    chosen = _around(route, admitted, seen.wait, now) if seen.wait is not None else route
    command = DispatchCommand(admitted=admitted, route=chosen)
    sharing = _share(admitted, seen, policy)
    if sharing is not None and sharing.joined:
        return Join(replace(record, sharing=sharing), command)
    held = reserve(admitted, chosen, seen.budget, seen.account, seen.guess)
    if isinstance(held, Refused):
        told = replace(record, told=f"{REFUSED}{held.error.model_dump_json()}")
        return _answer(told, unanswered(admitted, Status.REJECTED, held.error, now=now), admitted, now)
    record = replace(record, route=chosen if chosen != route else (), reserved=held.amount, sharing=sharing)
    return Forward(record, command, leads=sharing is not None and sharing.flight is not None)


def _share(admitted: AdmittedRequest, seen: Seen, policy: AdmissionPolicy) -> Sharing | None:
    """Whether it waits for an identical one, begins a flight of its own, or goes alone beside one.

    One that is more urgent asks for itself, because it would wait in the leader's place; so does one of another month:
    should it have to lead, the reservation that it takes over must be of its own month. One that reads chunks joins as
    any other, and gets the whole answer as one chunk.
    """
    if seen.cache_key is None:
        return None
    alone = Sharing(seen.cache_key, admitted.request.cache.ttl or policy.cache.ttl)
    if seen.leader is None:
        return replace(alone, flight=seen.offset)
    leader = seen.leader
    in_time = leader.deadline <= admitted.deadline.timestamp() and leader.month == admitted.month
    in_time = in_time and leader.priority.rank <= admitted.request.priority.rank
    if in_time:
        return replace(alone, flight=leader.flight, joined=True)
    return alone


#: What `told` of a request begins with that admission has answered: from whose answer, or with which error.
FROM, REFUSED = "from ", "refused "


def _again(record: RequestRecord, told: str, admitted: AdmittedRequest, seen: Seen, now: datetime) -> Decision:
    """The answer that was given before."""
    if told.startswith(REFUSED):
        error = Error.model_validate_json(told.removeprefix(REFUSED))
        return _answer(record, unanswered(admitted, Status.REJECTED, error, now=now), admitted, now)
    leader = told.removeprefix(FROM)
    for kept in seen.kept:
        if kept.leader == leader:
            return _answer(record, served(decode(Response, kept.response), admitted, now), admitted, now)
    # Kept answers outlive their end by a quarter of an hour: it was given long ago.
    return Duplicate()


def _fresh(kept: tuple[Kept, ...], now: float, ttl: int | None) -> Kept | None:
    return max((one for one in kept if one.is_fresh(now, ttl)), key=lambda one: one.kept_at, default=None)


def _around(route: tuple[str, ...], admitted: AdmittedRequest, wait: Outlook, now: datetime) -> tuple[str, ...]:
    """The route, with the providers last that would not answer in time. Where none would, nothing changes."""
    left = (admitted.deadline - now).total_seconds()
    late = {name for name in route if wait(name) >= left}
    return (*(name for name in route if name not in late), *(name for name in route if name in late))


def reject(refusal: Refusal, at: datetime) -> Response:
    """The response to a record that is no request. `at` must be the same for each delivery of the record."""
    return Response(
        request_id=refusal.envelope.request_id,
        workspace_id=refusal.envelope.workspace_id,
        status=Status.REJECTED,
        error=Error(code=refusal.code, message=refusal.message),
        answered_at=at,
    )


def _answer(
    record: RequestRecord,
    response: Response,
    admitted: AdmittedRequest,
    now: datetime,
    bury: Error | None = None,
) -> Answer:
    closed = record if record.closed else record.close(ADMISSION, now.timestamp())
    return Answer(closed, response, admitted, bury)


def _admit(
    parsed: Parsed, budget: Budget, policy: AdmissionPolicy, now: datetime, known: RequestRecord | None = None
) -> AdmittedRequest:
    """The request with all that admission decides of it, but for its way."""
    request, envelope = parsed.request, parsed.envelope
    latest = now + timedelta(seconds=policy.default_deadline)
    return AdmittedRequest.model_construct(
        request=cast(Any, request),
        request_id=request.request_id or envelope.request_id,
        workspace_id=request.workspace_id,
        admitted_at=now,
        deadline=request.deadline or envelope.expires or latest,
        reply=envelope.reply,
        traceparent=envelope.traceparent,
        month=known.month if known is not None else budget.month_of(now),
        guarded=budget.refuses,
    )


def _route(request: CommonRequest, policy: AdmissionPolicy) -> tuple[str, ...] | Error:
    """The providers to try: those that are preferred, those that claim the model, the deployment's own order.

    Where there is none, why.
    """
    wished = request.preferred_providers or ()
    unknown = [name for name in wished if name not in policy.kinds]
    if unknown and len(unknown) == len(wished):
        return _unsupported(
            f"None of the preferred providers ({', '.join(wished)}) is configured here; "
            f"configured are: {', '.join(policy.kinds) or 'none'}."
        )
    claimants = policy.models.claimants(request.model) if policy.models and request.model else ()
    if policy.models and request.model and not claimants and len(wished) != 1:
        return _unknown_model(request.model, policy.models.told(policy.kinds))
    order = dict.fromkeys(name for name in (*wished, *claimants, *policy.provider_order) if name in policy.kinds)
    route = tuple(name for name in order if request.kind in policy.kinds[name])
    if not route:
        return _unsupported(
            f"None of the configured providers ({', '.join(policy.kinds)}) answers {request.kind} requests."
        )
    return route


def _unsupported(message: str) -> Error:
    return Error(code="unsupported_operation", message=message)


def _unknown_model(model: str, known: str) -> Error:
    """Nobody would be asked for it: the answer would come from another model, and be paid for as if it were wanted."""
    return Error(
        code="unknown_model",
        message=f"No provider here is known to have the model {model!r}; known are: {known}. "
        f"Name one of these, or the one provider in `preferred_providers` that shall be asked for it.",
    )
