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
    everybody = [one for one in passengers if one.request_id != arrival.request_id]
    waiting = [one for one in everybody if one.record.closed_by in (None, arrival.offset)]
    if is_its_own(arrival.response):
        return _go_on(arrival, sharing, passengers, waiting)
    told = _tell(arrival, waiting)
    return replace(
        told, writes=told.writes | _without_flight(arrival, sharing), afterwards=_cleared(arrival, passengers)
    )


def is_its_own(response: Response) -> bool:
    """Whether a leader's end says nothing about the others."""
    cancelled = response.error is not None and response.error.code == "cancelled"
    return cancelled or response.status is Status.EXPIRED


def _go_on(
    arrival: Arrival, sharing: Sharing, passengers: Sequence[Passenger], waiting: Sequence[Passenger]
) -> Landing:
    ended_at = arrival.record.closed_at or 0.0
    late = [one for one in waiting if one.joined.deadline <= ended_at and one.record.joined]
    told = replace(_tell(arrival, late), is_new_word=True)
    staying = [one for one in waiting if one not in late]
    if arrival.flight is not None and arrival.flight.led_from == arrival.offset:
        return _went_on(arrival.flight, told, staying)
    joined = [one for one in staying if one.record.joined and not one.record.closed]
    next_one = min(joined, key=lambda one: (one.joined.deadline, one.request_id), default=None)
    if next_one is None:
        writes = told.writes | _without_flight(arrival, sharing)
        return replace(told, writes=writes, afterwards=_cleared(arrival, passengers))
    month = next_one.record.month
    held = arrival.record.reserved if month else 0
    leads = replace(next_one.record, sharing=replace(sharing, joined=False, led_from=arrival.offset), reserved=held)
    flight = Flight(next_one.request_id, sharing.flight or 0, next_one.joined.deadline, led_from=arrival.offset)
    own: dict[str, Row | None] = {
        request_key(arrival.workspace_id, next_one.request_id): leads,
        flight_key(arrival.workspace_id, sharing.key): flight,
    }
    return replace(
        told,
        command=next_one.joined.decoded(),
        movements={month: leads.reserving()} if month else {},
        writes=told.writes | own,
        afterwards=_cleared(arrival, [one for one in passengers if one not in staying]),
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


def _went_on(flight: Flight, told: Landing, staying: Sequence[Passenger]) -> Landing:
    """Delivered again: somebody leads since then, and is called again if it is still on its way. The rest is theirs."""
    chosen = [one for one in staying if one.request_id == flight.leader and not one.record.closed]
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
