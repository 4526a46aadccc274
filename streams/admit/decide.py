"""Admission, decided: a pure function of the request, what is known of it, the policy and `now`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest, CommonRequest
from schemas.response import Error, Response, Status
from streams.admit.parse import Parsed, Refusal
from streams.admit.ports import Models
from streams.answers import expired, unanswered
from streams.lifecycle import ADMISSION, RequestRecord
from streams.outlook import Outlook


@dataclass(frozen=True)
class AdmissionPolicy:
    """What the deployment decides. `kinds` maps each configured provider to the kinds that it answers.

    `default_deadline` is in seconds from admission, for requests that name none. Without `models` any model will do.
    """

    provider_order: tuple[str, ...]
    kinds: Mapping[str, frozenset[str]]
    default_deadline: float = 600.0
    models: Models | None = None


@dataclass(frozen=True)
class Duplicate:
    """This request id is known from another record: nothing happens."""


@dataclass(frozen=True)
class Forward:
    """The request goes to its first provider."""

    record: RequestRecord
    command: DispatchCommand


@dataclass(frozen=True)
class Answer:
    """The request is answered here and now. `bury` says why its bytes belong into the dead letters as well."""

    record: RequestRecord
    response: Response
    admitted: AdmittedRequest | None
    bury: Error | None = None


Decision = Duplicate | Forward | Answer


@dataclass(frozen=True)
class Seen:
    """What is known of a record: its place in the log, what the table says of its request, and how the lanes stand.

    `wait` gives the seconds that the request would wait at a provider. It is None where the record may have been
    admitted before by a worker that is gone: whatever that one has chosen, it did not write it down everywhere yet,
    and the safe way is the one that depends on nothing.
    """

    offset: int
    known: RequestRecord | None = None
    wait: Outlook | None = None


def decide(parsed: Parsed, seen: Seen, policy: AdmissionPolicy, now: datetime) -> Decision:
    """Admit a valid request, unless its id is known from another record."""
    known, offset = seen.known, seen.offset
    if known is not None and known.admitted_by != offset:
        return Duplicate()
    if known is not None and known.closed_by not in (None, ADMISSION):
        # A redelivery of a request that has been answered since.
        return Duplicate()
    # On redelivery the first admission's time stands: the same deadline, hence the same outputs.
    moment = datetime.fromtimestamp(known.admitted_at, now.tzinfo) if known is not None else now
    admitted = _admit(parsed, policy, moment)
    record = known or RequestRecord(admitted_by=offset, admitted_at=moment.timestamp())
    if record.closed_at is not None:
        # Answered here before: the same answer again, to the second.
        now = datetime.fromtimestamp(record.closed_at, now.tzinfo)
    if admitted.expired(now):
        return _answer(record, expired(admitted, (), now), admitted, now)
    route = _route(parsed.request, policy)
    if isinstance(route, Error):
        response = unanswered(admitted, Status.REJECTED, route, now=now)
        return _answer(record, response, admitted, now, bury=route)
    if known is None and seen.wait is not None:
        chosen = _around(route, admitted, seen.wait, now)
        if chosen != route:
            record = replace(record, route=chosen)
    return Forward(record, DispatchCommand(admitted=admitted, route=record.route or route))


def _around(route: tuple[str, ...], admitted: AdmittedRequest, wait: Outlook, now: datetime) -> tuple[str, ...]:
    """The route, with the providers last that would not answer in time. Where none would, nothing changes."""
    left = (admitted.deadline - now).total_seconds()
    late = {name for name in route if wait(name) >= left}
    return (*(name for name in route if name not in late), *(name for name in route if name in late))


def reject(refusal: Refusal, now: datetime) -> Response:
    """The response to a record that is no request."""
    return Response(
        request_id=refusal.envelope.request_id,
        workspace_id=refusal.envelope.workspace_id,
        status=Status.REJECTED,
        error=Error(code=refusal.code, message=refusal.message),
        answered_at=now,
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


def _admit(parsed: Parsed, policy: AdmissionPolicy, now: datetime) -> AdmittedRequest:
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
