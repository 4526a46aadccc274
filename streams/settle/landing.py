"""What becomes of those who wait for a flight's leader when it is answered. Pure.

They get what it got. Only where it was cancelled, or ran out of time, is that not theirs: those whose own time is over
are told so. Of the others the one with the nearest deadline leads from now on, with the reservation of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest
from schemas.response import Response, Status
from streams.accounts import Movement
from streams.answers import expired
from streams.lifecycle import RequestRecord, Sharing, request_key
from streams.rows import Row
from streams.sharing import Flight, Joined, flight_key, joined_key, served


@dataclass(frozen=True)
class Passenger:
    """One who has joined."""

    request_id: str
    joined: Joined
    record: RequestRecord


@dataclass(frozen=True)
class Arrival:
    """A leader's end: the report's offset, its response, its record as it is closed, and the flight as it is known."""

    workspace_id: str
    request_id: str
    offset: int
    record: RequestRecord
    response: Response
    flight: Flight | None = None


@dataclass(frozen=True)
class Landing:
    """`writes` come before anything is sent, `afterwards` when all of it has arrived: until then each passenger's row
    says that its answer may not have.
    """

    answers: tuple[tuple[AdmittedRequest, Response], ...] = ()
    command: DispatchCommand | None = None
    movements: dict[str, Movement] = field(default_factory=dict)
    writes: dict[str, Row | None] = field(default_factory=dict)
    afterwards: dict[str, Row | None] = field(default_factory=dict)
    #: The answers are not the leader's: they tell of this moment.
    is_new_word: bool = False


NOTHING_LANDS = Landing()


def land(arrival: Arrival, passengers: Sequence[Passenger]) -> Landing:
    """The end of a leader. Delivered again, it leads to the same."""
    sharing = arrival.record.sharing
    if sharing is None or sharing.flight is None or sharing.joined:
        return NOTHING_LANDS
    waiting = [one for one in passengers if _waits(one, arrival, sharing)]
    if is_its_own(arrival.response):
        return _go_on(arrival, sharing, passengers, waiting)
    told = _tell(arrival, waiting)
    return replace(
        told, writes=told.writes | _without_flight(arrival, sharing), afterwards=_cleared(arrival, passengers)
    )


def _waits(passenger: Passenger, arrival: Arrival, sharing: Sharing) -> bool:
    """Whether it is for this leader to answer: not one that leads itself, or has gone its own way since."""
    own = passenger.record.sharing
    joined = own is not None and own.joined and own.flight == sharing.flight
    return joined and passenger.record.closed_by in (None, arrival.offset)


def is_its_own(response: Response) -> bool:
    """Whether a leader's end says nothing about the others."""
    cancelled = response.error is not None and response.error.code == "cancelled"
    return cancelled or response.status is Status.EXPIRED


def _go_on(
    arrival: Arrival, sharing: Sharing, passengers: Sequence[Passenger], waiting: Sequence[Passenger]
) -> Landing:
    """Those whose time is over are told so, and one of the others leads."""
    ended_at = arrival.record.closed_at or 0.0
    late = [one for one in waiting if one.joined.deadline <= ended_at]
    told = replace(_tell(arrival, late), is_new_word=True)
    staying = {one.request_id: one for one in waiting if one.joined.deadline > ended_at and not one.record.closed}
    flight = arrival.flight
    if flight is not None and flight.led_from == arrival.offset:
        # Delivered again: the one that was chosen then. What has become of it since is its own affair.
        chosen = [one for one in passengers if one.request_id == flight.leader and not one.record.closed]
        return _hand_over(arrival, sharing, told, chosen[0]) if chosen else told
    if not staying:
        writes = told.writes | _without_flight(arrival, sharing)
        return replace(told, writes=writes, afterwards=_cleared(arrival, passengers))
    successor = min(staying.values(), key=lambda one: (one.joined.deadline, one.request_id))
    gone = [one for one in passengers if one.request_id not in staying]
    return replace(_hand_over(arrival, sharing, told, successor), afterwards=_cleared(arrival, gone))


def _hand_over(arrival: Arrival, sharing: Sharing, told: Landing, successor: Passenger) -> Landing:
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
        told,
        command=command,
        movements={month: leads.reserving()} if month else {},
        writes=told.writes | own,
    )


def _without_flight(arrival: Arrival, sharing: Sharing) -> dict[str, Row | None]:
    """A flight that has ended leaves the table, unless another one has begun under its key."""
    flight = arrival.flight
    here = flight is not None and flight.number == sharing.flight
    return {flight_key(arrival.workspace_id, sharing.key): None} if here else {}


def _cleared(arrival: Arrival, passengers: Iterable[Passenger]) -> dict[str, Row | None]:
    sharing = arrival.record.sharing
    if sharing is None or sharing.flight is None:
        return {}
    key, flight = sharing.key, sharing.flight
    return {joined_key(arrival.workspace_id, key, flight, one.request_id): None for one in passengers}


def _went_on(flight: Flight, told: Landing, passengers: Sequence[Passenger]) -> Landing:
    """Delivered again: somebody leads since then, and is called again if it is still on its way. The rest is theirs."""
    chosen = [one for one in passengers if one.request_id == flight.leader and not one.record.closed]
    if not chosen:
        return told
    [leader] = chosen
    held = {leader.record.month: leader.record.reserving()} if leader.record.month else {}
    return replace(told, command=leader.joined.decoded(), movements=held)


def _tell(arrival: Arrival, passengers: Iterable[Passenger]) -> Landing:
    """The answer for each of these, and their records closed by it."""
    answers: list[tuple[AdmittedRequest, Response]] = []
    writes: dict[str, Row | None] = {}
    closed_at = arrival.record.closed_at or 0.0
    for one in passengers:
        admitted = one.record.admitted(arrival.workspace_id, one.request_id)
        if admitted is not None:
            answers.append((admitted, _answer_for(arrival, admitted, closed_at)))
        closed = one.record if one.record.closed else one.record.close(arrival.offset, closed_at)
        writes[request_key(arrival.workspace_id, one.request_id)] = closed
    return Landing(tuple(answers), writes=writes)


def _answer_for(arrival: Arrival, admitted: AdmittedRequest, closed_at: float) -> Response:
    if is_its_own(arrival.response):
        return expired(admitted, (), datetime.fromtimestamp(closed_at, UTC))
    return served(arrival.response, admitted, arrival.response.answered_at)
