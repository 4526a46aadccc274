"""The end of a flight's leader, and what becomes of those who wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schemas.codec import encode
from schemas.response import Response, Status
from streams.accounts import Movement
from streams.answers import all_failed, cancelled, expired
from streams.dispatch.decide import judge_answer
from streams.lifecycle import RequestRecord, Sharing, asker_of, request_key
from streams.settle.landing import NOTHING_LANDS, Arrival, Landing, Passenger, Piece, all_told, land, tell
from streams.sharing import Flight, Joined, Landed, flight_key, joined_key, landed_key
from tests.unit.streams.making import NOW, answer, attempt, command

KEY, NUMBER = "abc", 7
OFFSET = 20
SHARING = Sharing(KEY, 60, NUMBER)
LEADER = RequestRecord(NUMBER, NOW.timestamp(), month="2026-01", reserved=500, sharing=SHARING)
FLIGHT = Flight("r-1", NUMBER, NOW.timestamp() + 600)
ENDED = NOW.timestamp() + 30


def passenger(name: str, within: float = 600.0, **record: Any) -> Passenger:
    waiting = command(within=within)
    own = waiting.admitted.model_copy(update={"request_id": name})
    waiting = waiting.model_copy(update={"admitted": own})
    known = RequestRecord(
        9, NOW.timestamp(), month="2026-01", sharing=replace(SHARING, joined=True), asker=asker_of(own)
    )
    return Passenger(name, Joined(own.deadline.timestamp(), encode(waiting)), replace(known, **record))


def succeeded() -> Response:
    response = judge_answer(attempt(), answer(), None, NOW + timedelta(seconds=30)).response
    assert response is not None
    return response


def arrival(response: Response, flight: Flight | None = FLIGHT, record: RequestRecord = LEADER) -> Arrival:
    return Arrival("acme", "r-1", OFFSET, record.close(OFFSET, ENDED), response, flight)


def arrive(response: Response, *passengers: Passenger, flight: Flight | None = FLIGHT) -> Landing:
    return land(arrival(response, flight), Aboard(passengers))


def told(response: Response, *passengers: Passenger) -> Piece:
    return tell(arrival(response), passengers)


class Aboard:
    """Those aboard, in no order, and how many of them were looked at."""

    def __init__(self, passengers: Sequence[Passenger]) -> None:
        self.passengers = {one.request_id: one for one in passengers}
        self.rows_read = self.records_read = 0

    def __iter__(self) -> Iterator[tuple[str, Joined]]:
        for name, one in self.passengers.items():
            self.rows_read += 1
            yield name, one.joined

    def passenger(self, request_id: str) -> Passenger | None:
        self.records_read += 1
        return self.passengers.get(request_id)


def row_of(name: str) -> str:
    return joined_key("acme", KEY, NUMBER, name)


LANDED = landed_key("acme", KEY, NUMBER, OFFSET)


ADMITTED = command().admitted
CANCELLED = cancelled(ADMITTED, (), NOW)
EXPIRED = expired(ADMITTED, (), NOW)


def test_everybody_gets_the_leaders_answer_as_their_own() -> None:
    piece = told(succeeded(), passenger("r-2"), passenger("r-3"))
    assert [response.request_id for _, response in piece.answers] == ["r-2", "r-3"]
    for asked, response in piece.answers:
        assert (response.content, response.cached, response.attempts) == ("hello", True, ())
        assert asked.reply == ADMITTED.reply
    closed = piece.writes[request_key("acme", "r-2")]
    assert isinstance(closed, RequestRecord)
    assert closed.closed_by == OFFSET
    assert set(piece.afterwards) == {row_of("r-2"), row_of("r-3")}


def test_the_leaders_end_says_so_in_one_row_for_all_and_looks_at_one_of_them() -> None:
    aboard = Aboard([passenger(f"r-{number}") for number in range(2, 1_000)])
    landing = land(arrival(succeeded()), aboard)
    assert landing.writes == {LANDED: Landed(OFFSET, ENDED), flight_key("acme", KEY): None}
    assert landing.landed == Landed(OFFSET, ENDED)
    assert (landing.command, landing.movements, aboard.rows_read, aboard.records_read) == (None, {}, 1, 0)
    assert all_told(arrival(succeeded())) == {LANDED: None}


def test_a_leader_that_nobody_has_joined_writes_nothing_of_a_landing() -> None:
    landing = arrive(succeeded())
    assert (landing.writes, landing.landed) == ({flight_key("acme", KEY): None}, None)


def test_a_landing_that_was_begun_is_ended_also_when_everybody_was_told() -> None:
    again = land(replace(arrival(succeeded(), None), begun=True), Aboard([]))
    assert again.landed is not None


def test_a_failure_is_shared_as_well_and_saves_nothing() -> None:
    [(_, response)] = told(all_failed(ADMITTED, (), NOW), passenger("r-2")).answers
    assert (response.status, response.cached, response.saved) == (Status.FAILED, False, None)
    assert response.error == all_failed(ADMITTED, (), NOW).error


@pytest.mark.parametrize("end", [CANCELLED, EXPIRED])
def test_after_a_leader_that_ends_alone_the_one_with_the_nearest_deadline_leads(end: Response) -> None:
    waiting = passenger("r-2", 500), passenger("r-3", 400), passenger("r-4", 10)
    landing = arrive(end, *waiting)
    assert landing.command is not None
    assert landing.command.admitted.request_id == "r-3"
    leads = landing.writes[request_key("acme", "r-3")]
    assert isinstance(leads, RequestRecord)
    assert (leads.joined, leads.reserved) == (False, LEADER.reserved)
    assert landing.movements == {"2026-01": Movement(reserved=500, open_requests=1)}, "the reservation changes hands"
    assert landing.landed == landing.writes[LANDED] == Landed(OFFSET, ENDED, until=ENDED)
    assert [one.request_id for one in waiting if landing.landed.has_aboard(one.joined.deadline)] == ["r-4"]
    piece = told(end, waiting[2])
    [(late, response)] = piece.answers
    assert (late.request_id, response.status) == ("r-4", Status.EXPIRED)
    assert set(piece.afterwards) == {row_of("r-4")}


def test_the_next_leader_is_found_without_reading_the_records_of_the_others() -> None:
    aboard = Aboard([passenger(f"r-{number}") for number in range(2, 1_000)])
    assert land(arrival(CANCELLED), aboard).command is not None
    assert (aboard.rows_read, aboard.records_read) == (998, 1)


@pytest.mark.parametrize("end", [succeeded(), CANCELLED])
def test_delivered_again_a_leaders_end_leads_to_the_same(end: Response) -> None:
    passengers = [passenger("r-2", 500), passenger("r-3", 400)]
    first, piece = arrive(end, *passengers), told(end, *passengers)
    rows = first.writes if first.command else piece.writes
    after = []
    for one in passengers:
        record = rows.get(request_key("acme", one.request_id), one.record)
        assert isinstance(record, RequestRecord)
        after.append(replace(one, record=record))
    flight = first.writes[flight_key("acme", KEY)]
    again = arrive(end, *after, flight=flight if isinstance(flight, Flight) else None)
    assert (again.landed, again.command) == (first.landed, first.command)
    if not first.command:
        assert told(end, *after) == piece


@pytest.mark.parametrize(
    ("led_from", "closed_by"), [(OFFSET + 3, None), (OFFSET, OFFSET + 3)], ids=["another leads", "it has ended"]
)
def test_delivered_again_after_its_next_leader_has_ended_a_leaders_end_finds_no_other_one(
    led_from: int, closed_by: int | None
) -> None:
    flight = replace(FLIGHT, leader="r-3", led_from=led_from, deadline=NOW.timestamp() + 400)
    led = passenger("r-3", 400, sharing=SHARING, closed_by=closed_by)
    landing = arrive(CANCELLED, led, passenger("r-2", 500), flight=flight)
    assert landing == NOTHING_LANDS


def test_one_who_was_answered_otherwise_is_left_alone() -> None:
    piece = told(succeeded(), passenger("r-2", closed_by=12, closed_at=ENDED))
    assert (piece.answers, piece.writes) == ((), {})
    assert set(piece.afterwards) == {row_of("r-2")}


def test_a_flight_that_has_begun_anew_under_the_same_key_is_not_ended() -> None:
    landing = arrive(succeeded(), passenger("r-2"), flight=Flight("r-9", NUMBER + 5, ENDED))
    assert flight_key("acme", KEY) not in landing.writes


@pytest.mark.parametrize("sharing", [None, replace(SHARING, joined=True), replace(SHARING, flight=None)])
def test_the_end_of_one_who_leads_nobody_lands_nothing(sharing: Sharing | None) -> None:
    alone = arrival(succeeded(), None, replace(LEADER, sharing=sharing))
    assert land(alone, Aboard([passenger("r-2")])) == NOTHING_LANDS
