"""What becomes of those who wait for a flight's leader when it is answered. Pure.

They get what it got. Only where it was cancelled, or ran out of time, is that not theirs: those whose own time is over
are told so. Of the others the one with the nearest deadline leads from now on, with the reservation of the one before.

There may be thousands of them. So the leader's end writes one row for all (`Landed`), which closes them there and then,
and they are told in pieces afterwards: no other event has to wait for more than a piece, and none can find the flight
landed for one and not for another. A crash in between leaves the row and those aboard who are not told yet, and the
report is delivered again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest
from schemas.response import Response, Status
from streams.accounts import Movement
from streams.answers import expired
from streams.lifecycle import RequestRecord, Sharing, request_key
from streams.rows import Row
from streams.sharing import Flight, Joined, Landed, flight_key, joined_key, landed_key, served

#: How many are told at a time: some 10 ms of the worker's one loop, in which nothing else moves.
PIECE = 50


@dataclass(frozen=True)
class Passenger:
    """One who has joined."""

    request_id: str
    joined: Joined
    record: RequestRecord


class Aboard(Protocol):
    """Those aboard a flight, but for whom an earlier landing of it has still to tell."""

    def __iter__(self) -> Iterator[tuple[str, Joined]]: ...

    def passenger(self, request_id: str) -> Passenger | None:
        """One of them with its record, which is not read for the others."""
        ...


@dataclass(frozen=True)
class Arrival:
    """A leader's end: the report's offset, its response, its record as it is closed, and the flight as it is known.

    `begun`: an earlier delivery of the report has let the flight land, and did not come to the end of it.
    """

    workspace_id: str
    request_id: str
    offset: int
    record: RequestRecord
    response: Response
    flight: Flight | None = None
    begun: bool = False

    @property
    def ended_at(self) -> float:
        return self.record.closed_at or 0.0


@dataclass(frozen=True)
class Landing:
    """What a leader's end changes at once. `landed`, where anybody is to be told, is one of its `writes`, and must be
    with the broker before the first of them is. `afterwards` is written when everything else has arrived.
    """

    command: DispatchCommand | None = None
    movements: dict[str, Movement] = field(default_factory=dict)
    writes: dict[str, Row | None] = field(default_factory=dict)
    afterwards: dict[str, Row | None] = field(default_factory=dict)
    landed: Landed | None = None


@dataclass(frozen=True)
class Piece:
    """Some who are told, and with whom the next piece begins (None: this was the last one). `afterwards` is written
    when their answers have arrived: until then each one's row says that its answer may not have.
    """

    answers: tuple[tuple[AdmittedRequest, Response], ...]
    writes: dict[str, Row | None]
    afterwards: dict[str, Row | None]
    onward: str | None = None


NOTHING_LANDS = Landing()


def land(arrival: Arrival, aboard: Aboard) -> Landing:
    """The end of a leader. Delivered again, it leads to the same."""
    sharing = arrival.record.sharing
    if sharing is None or sharing.flight is None or sharing.joined:
        return NOTHING_LANDS
    if is_its_own(arrival.response):
        return _go_on(arrival, sharing, aboard)
    landing = _for_those_until(None, arrival, anybody=any(True for _ in aboard))
    return replace(landing, writes=landing.writes | _without_flight(arrival, sharing))


def tell(arrival: Arrival, passengers: Iterable[Passenger]) -> Piece:
    """The answer for each of these, and their records closed by it. Those who have gone their own way have theirs."""
    answers: list[tuple[AdmittedRequest, Response]] = []
    writes: dict[str, Row | None] = {}
    afterwards: dict[str, Row | None] = {}
    for one in passengers:
        afterwards |= _cleared(arrival, one)
        if not _waits(one, arrival):
            continue
        admitted = one.record.admitted(arrival.workspace_id, one.request_id)
        if admitted is not None:
            answers.append((admitted, _answer_for(arrival, admitted)))
        closed = one.record if one.record.closed else one.record.close(arrival.offset, arrival.ended_at)
        writes[request_key(arrival.workspace_id, one.request_id)] = closed
    return Piece(tuple(answers), writes, afterwards)


def all_told(arrival: Arrival) -> dict[str, Row | None]:
    """The last write of a landing, when everybody's answer has arrived."""
    return _landing_row(arrival, None)


def _waits(passenger: Passenger, arrival: Arrival) -> bool:
    """Whether it is for this leader to answer: not one that leads itself, or has gone its own way since."""
    own, sharing = passenger.record.sharing, arrival.record.sharing
    joined = own is not None and sharing is not None and own.joined and own.flight == sharing.flight
    return joined and passenger.record.closed_by in (None, arrival.offset)


def is_its_own(response: Response) -> bool:
    """Whether a leader's end says nothing about the others."""
    cancelled = response.error is not None and response.error.code == "cancelled"
    return cancelled or response.status is Status.EXPIRED


def _for_those_until(until: float | None, arrival: Arrival, *, anybody: bool) -> Landing:
    """The flight has landed for those who are due until then; None: for all."""
    if not anybody and not arrival.begun:
        return NOTHING_LANDS
    landed = Landed(arrival.offset, arrival.ended_at, until)
    return Landing(writes=_landing_row(arrival, landed), landed=landed)


def _landing_row(arrival: Arrival, landed: Landed | None) -> dict[str, Row | None]:
    sharing = arrival.record.sharing
    if sharing is None or sharing.flight is None:
        return {}
    return {landed_key(arrival.workspace_id, sharing.key, sharing.flight, arrival.offset): landed}


def _go_on(arrival: Arrival, sharing: Sharing, aboard: Aboard) -> Landing:
    """Those whose time is over are told so, and one of the others leads."""
    due = sorted((joined.deadline, name) for name, joined in aboard)
    late = _for_those_until(arrival.ended_at, arrival, anybody=bool(due) and due[0][0] <= arrival.ended_at)
    flight = arrival.flight
    led_from = flight.led_from if flight is not None and flight.number == sharing.flight else None
    if flight is not None and led_from is not None and led_from >= arrival.offset:
        # Delivered again: the one that was chosen then. What has become of it since is its own affair, and if another
        # one leads by now, that has come after its end.
        chosen = _leader_of(flight, aboard) if led_from == arrival.offset else None
        return late if chosen is None else _hand_over(arrival, sharing, late, chosen)
    gone: dict[str, Row | None] = {}
    for deadline, name in due:
        one = aboard.passenger(name) if deadline > arrival.ended_at else None
        if one is None:
            continue
        if _waits(one, arrival) and not one.record.closed:
            return replace(_hand_over(arrival, sharing, late, one), afterwards=gone)
        gone |= _cleared(arrival, one)
    return replace(late, writes=late.writes | _without_flight(arrival, sharing), afterwards=gone)


def _leader_of(flight: Flight, aboard: Aboard) -> Passenger | None:
    """The leader by succession: its row aboard is there until its own end."""
    one = aboard.passenger(flight.leader)
    return None if one is None or one.record.closed else one


def _hand_over(arrival: Arrival, sharing: Sharing, late: Landing, successor: Passenger) -> Landing:
    """The successor leads, with the reservation of the one before.

    The flight names it before its own record does: after a crash in between, the same one is found.
    """
    leads, month = successor.record, successor.record.month
    if leads.joined:
        held = arrival.record.reserved if month else 0
        leads = replace(leads, sharing=replace(sharing, joined=False, led_from=arrival.offset), reserved=held)
    command = successor.joined.decoded()
    flight = Flight(
        leader=successor.request_id,
        number=sharing.flight or 0,
        deadline=successor.joined.deadline,
        led_from=arrival.offset,
        priority=command.admitted.request.priority,
    )
    own: dict[str, Row | None] = {
        flight_key(arrival.workspace_id, sharing.key): flight,
        request_key(arrival.workspace_id, successor.request_id): leads,
    }
    return replace(
        late,
        command=command,
        movements={month: leads.reserving()} if month else {},
        writes=late.writes | own,
    )


def _without_flight(arrival: Arrival, sharing: Sharing) -> dict[str, Row | None]:
    """A flight that has ended leaves the table, unless another one has begun under its key.

    One that has left already leaves once more: the local table may be all that knows of it.
    """
    here = arrival.flight is None or arrival.flight.number == sharing.flight
    return {flight_key(arrival.workspace_id, sharing.key): None} if here else {}


def _cleared(arrival: Arrival, one: Passenger) -> dict[str, Row | None]:
    sharing = arrival.record.sharing
    if sharing is None or sharing.flight is None:
        return {}
    return {joined_key(arrival.workspace_id, sharing.key, sharing.flight, one.request_id): None}


def _answer_for(arrival: Arrival, admitted: AdmittedRequest) -> Response:
    if is_its_own(arrival.response):
        return expired(admitted, (), datetime.fromtimestamp(arrival.ended_at, UTC))
    return served(arrival.response, admitted, arrival.response.answered_at)
