"""The life of a request, as admission and settlement share it: open → closed, with the attempts that were reported.

Both stages read and write this record in the request's own partition, one event at a time, so there is one writer and
no race. Each change carries the offset of the event that made it: the same event delivered again finds its own mark,
changes nothing, and sends the same outputs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from schemas.base import Month
from schemas.internal import Follow
from schemas.request import AdmittedRequest, CacheOptions, CommonRequest, CompletionRequest, ReplyAddress
from schemas.usage import KNOWN_RANK, RANK_BIT, Outcome, UsageEvent
from streams.accounts import NO_MOVEMENT, Movement, nanos


@dataclass(frozen=True, slots=True)
class Reported:
    """An attempt that was reported: by which offset of the report topic, and what followed."""

    offset: int
    follow: Follow


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt was found to cost, in nano-dollars, by the report at an offset. The highest version counts."""

    offset: int
    attempt: int
    version: int
    cost: int

    @property
    def outcome(self) -> Outcome:
        """What became of an attempt that brought no answer: the version knows whether it is in doubt."""
        return Outcome.FAILED if self.version >> RANK_BIT >= KNOWN_RANK else Outcome.IN_DOUBT


@dataclass(frozen=True, slots=True)
class Sharing:
    """A request that takes part in a flight: identical requests that one call answers.

    `key` is what the answer is kept under, for `ttl` seconds. `flight` is the offset of the request that began it;
    None: an identical request was on its way that this one could not wait for, so it asks for itself. `joined` says
    that another one leads; `led_from` is the offset of the report that made this one the leader.
    """

    key: str
    ttl: int
    flight: int | None = None
    joined: bool = False
    led_from: int | None = None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What is known of one request. Times are seconds since 1970.

    `admitted_by` is the offset in the request topic; `closed_by` is where the terminal response came from: an offset in
    the report topic, or ADMISSION, and then `told` is what that answer was made of. `route` is the order of providers
    where admission has changed it for the state of their lanes: delivered again, the request must take the same way.
    `reserved` is held of the account of `month` until the request is closed, in nano-dollars; `charges` are what its
    attempts have cost. `asker` is all that an answer without a provider needs.
    """

    admitted_by: int
    admitted_at: float
    closed_by: int | None = None
    closed_at: float | None = None
    reports: dict[int, Reported] = field(default_factory=dict)
    route: tuple[str, ...] = ()
    month: Month | None = None
    reserved: int = 0
    charges: tuple[Charge, ...] = ()
    sharing: Sharing | None = None
    told: str | None = None
    asker: dict[str, Any] | None = None

    @property
    def closed(self) -> bool:
        return self.closed_by is not None

    @property
    def joined(self) -> bool:
        return self.sharing is not None and self.sharing.joined

    @property
    def deadline(self) -> float | None:
        """In seconds since 1970; None where it is not kept."""
        return None if self.asker is None else float(self.asker["d"])

    def close(self, by: int, at: float) -> RequestRecord:
        return replace(self, closed_by=by, closed_at=at)

    def report(self, attempt: int, offset: int, follow: Follow) -> RequestRecord:
        return replace(self, reports={**self.reports, attempt: Reported(offset, follow)})

    def charge(self, usage: UsageEvent, offset: int) -> RequestRecord:
        """Count what an attempt has cost, unless more was known of it before: the same choice as in the ledger."""
        known = max((charge.version for charge in self.charges if charge.attempt == usage.attempt), default=-1)
        if usage.version <= known:
            return self
        return replace(self, charges=(*self.charges, Charge(offset, usage.attempt, usage.version, nanos(usage.cost))))

    def reserving(self) -> Movement:
        """What its reservation is, in its account."""
        return Movement(reserved=self.reserved, open_requests=int(self.reserved > 0))

    def admitting(self) -> Movement:
        """What its admission changes in its account. A leader by succession has its reservation from settlement."""
        succeeded = self.sharing is not None and self.sharing.led_from is not None
        return NO_MOVEMENT if succeeded else self.reserving()

    def movement(self, offset: int) -> Movement:
        """What the report at an offset changes in its account: told from the record alone, as often as it is asked."""
        counted: dict[int, int] = {}
        spent = 0
        for charge in self.charges:
            if charge.offset == offset:
                spent += charge.cost - counted.get(charge.attempt, 0)
            counted[charge.attempt] = charge.cost
        release = self.reserving() if self.closed_by == offset else Movement()
        return Movement(spent, -release.reserved, -release.open_requests)

    def last_touched(self) -> float:
        """When a sweep counts this record as idle from."""
        return self.closed_at or self.admitted_at

    def admitted(self, workspace_id: str, request_id: str) -> AdmittedRequest | None:
        """The request as far as an answer without a provider needs it, without its content; None if it is not kept."""
        return None if self.asker is None else _from_asker(self, workspace_id, request_id, self.asker)


#: `closed_by` of a request that admission itself answered.
ADMISSION = -1
CACHE_OPTIONS = CacheOptions()
#: `admitted_by` of a request whose admission was never written down (its worker died first).
UNKNOWN = -1


def asker_of(admitted: AdmittedRequest) -> dict[str, Any]:
    """What a record keeps of whoever asked: enough for an answer, nothing of the content."""
    request = admitted.request
    found = {
        "k": request.kind,
        "d": admitted.deadline.timestamp(),
        "r": admitted.reply.model_dump(mode="json", exclude_defaults=True) if admitted.reply else None,
        "t": admitted.traceparent,
        "m": request.metadata or None,
        "u": request.user_id,
        "p": request.purpose,
        "s": getattr(request, "stream", False) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _from_asker(record: RequestRecord, workspace_id: str, request_id: str, asker: dict[str, Any]) -> AdmittedRequest:
    made: type[CommonRequest] = CompletionRequest if asker.get("s") else CommonRequest
    request: Any = made.model_construct(
        kind=asker["k"],
        workspace_id=workspace_id,
        metadata=asker.get("m", {}),
        user_id=asker.get("u"),
        purpose=asker.get("p"),
        # Defaults that pydantic takes long to make anew, and nobody reads: thousands may be answered at once.
        provider_options={},
        cache=CACHE_OPTIONS,
        stream=asker.get("s", False),
    )
    return AdmittedRequest.model_construct(
        request=request,
        request_id=request_id,
        workspace_id=workspace_id,
        admitted_at=datetime.fromtimestamp(record.admitted_at, UTC),
        deadline=datetime.fromtimestamp(asker["d"], UTC),
        reply=ReplyAddress.model_validate(asker["r"]) if "r" in asker else None,
        traceparent=asker.get("t"),
        month=record.month,
    )


def record_body(record: RequestRecord) -> dict[str, Any]:
    body: dict[str, Any] = {"v": 1, "o": record.admitted_by, "t": record.admitted_at}
    if record.closed:
        body["c"] = [record.closed_by, record.closed_at]
    if record.route:
        body["p"] = record.route
    if record.reports:
        body["r"] = {str(n): [seen.offset, seen.follow] for n, seen in record.reports.items()}
    if record.charges:
        body["$"] = [[charge.offset, charge.attempt, charge.version, charge.cost] for charge in record.charges]
    if record.sharing:
        sharing = record.sharing
        body["s"] = [sharing.key, sharing.ttl, sharing.flight, sharing.joined, sharing.led_from]
    fields = {"m": record.month, "h": record.reserved, "a": record.told, "w": record.asker}
    return body | {name: value for name, value in fields.items() if value}


def read_record(body: dict[str, Any]) -> RequestRecord:
    closed_by, closed_at = (body.get("c") or (None, None))[:2]
    return RequestRecord(
        admitted_by=body["o"],
        admitted_at=body["t"],
        closed_by=closed_by,
        closed_at=closed_at,
        reports={int(n): Reported(seen[0], Follow(seen[1])) for n, seen in body.get("r", {}).items()},
        route=tuple(body.get("p", ())),
        month=body.get("m"),
        reserved=body.get("h", 0),
        charges=tuple(Charge(*charge[:4]) for charge in body.get("$", ())),
        sharing=Sharing(*body["s"][:5]) if "s" in body else None,
        told=body.get("a"),
        asker=body.get("w"),
    )


def request_key(workspace_id: str, request_id: str) -> str:
    """A request's key in tables. A workspace id holds no slash, so two requests never share one."""
    return f"{workspace_id}/{request_id}"


def of_request_key(key: str) -> tuple[str, str]:
    """The workspace and the request of a key."""
    workspace_id, _, request_id = key.partition("/")
    return workspace_id, request_id
