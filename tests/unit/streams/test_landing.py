"""The end of a flight's leader, and what becomes of those who wait for it."""

from __future__ import annotations

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
from streams.settle.landing import NOTHING_LANDS, Arrival, Landing, Passenger, land
from streams.sharing import Flight, Joined, flight_key, joined_key
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


def arrive(response: Response, *passengers: Passenger, flight: Flight | None = FLIGHT) -> Landing:
    leader = LEADER.close(OFFSET, ENDED)
    return land(Arrival("acme", "r-1", OFFSET, leader, response, flight), passengers)


ADMITTED = command().admitted
CANCELLED = cancelled(ADMITTED, (), NOW)
EXPIRED = expired(ADMITTED, (), NOW)


def test_everybody_gets_the_leaders_answer_as_their_own() -> None:
    landed = arrive(succeeded(), passenger("r-2"), passenger("r-3"))
    assert [response.request_id for _, response in landed.answers] == ["r-2", "r-3"]
    for asked, response in landed.answers:
        assert (response.content, response.cached, response.attempts) == ("hello", True, ())
        assert asked.reply == ADMITTED.reply
    assert landed.command is None
    assert landed.writes[flight_key("acme", KEY)] is None
    closed = landed.writes[request_key("acme", "r-2")]
    assert isinstance(closed, RequestRecord)
    assert closed.closed_by == OFFSET
    assert set(landed.afterwards) == {joined_key("acme", KEY, NUMBER, name) for name in ("r-2", "r-3")}


def test_a_failure_is_shared_as_well_and_saves_nothing() -> None:
    landed = arrive(all_failed(ADMITTED, (), NOW), passenger("r-2"))
    [(_, response)] = landed.answers
    assert (response.status, response.cached, response.saved) == (Status.FAILED, False, None)
    assert response.error == all_failed(ADMITTED, (), NOW).error


@pytest.mark.parametrize("end", [CANCELLED, EXPIRED])
def test_after_a_leader_that_ends_alone_the_one_with_the_nearest_deadline_leads(end: Response) -> None:
    landed = arrive(end, passenger("r-2", 500), passenger("r-3", 400), passenger("r-4", 10))
    assert landed.command is not None
    assert landed.command.admitted.request_id == "r-3"
    leads = landed.writes[request_key("acme", "r-3")]
    assert isinstance(leads, RequestRecord)
    assert (leads.joined, leads.reserved) == (False, LEADER.reserved)
    assert landed.movements == {"2026-01": Movement(reserved=500, open_requests=1)}, "the reservation changes hands"
    [(late, told)] = landed.answers
    assert (late.request_id, told.status) == ("r-4", Status.EXPIRED)
    assert set(landed.afterwards) == {joined_key("acme", KEY, NUMBER, "r-4")}


@pytest.mark.parametrize("end", [succeeded(), CANCELLED])
def test_delivered_again_a_leaders_end_leads_to_the_same(end: Response) -> None:
    passengers = [passenger("r-2", 500), passenger("r-3", 400)]
    first = arrive(end, *passengers)
    rows = first.writes
    after = [replace(one, record=rows.get(request_key("acme", one.request_id), one.record)) for one in passengers]
    flight = rows[flight_key("acme", KEY)]
    again = arrive(end, *after, flight=flight if isinstance(flight, Flight) else None)
    assert (again.answers, again.command) == (first.answers, first.command)


def test_one_who_was_answered_otherwise_is_left_alone() -> None:
    landed = arrive(succeeded(), passenger("r-2", closed_by=12, closed_at=ENDED))
    assert landed.answers == ()
    assert request_key("acme", "r-2") not in landed.writes
    assert set(landed.afterwards) == {joined_key("acme", KEY, NUMBER, "r-2")}


def test_a_flight_that_has_begun_anew_under_the_same_key_is_not_ended() -> None:
    landed = arrive(succeeded(), passenger("r-2"), flight=Flight("r-9", NUMBER + 5, ENDED))
    assert flight_key("acme", KEY) not in landed.writes


@pytest.mark.parametrize("sharing", [None, replace(SHARING, joined=True), replace(SHARING, flight=None)])
def test_the_end_of_one_who_leads_nobody_lands_nothing(sharing: Sharing | None) -> None:
    record = replace(LEADER, sharing=sharing).close(OFFSET, ENDED)
    assert land(Arrival("acme", "r-1", OFFSET, record, succeeded(), None), [passenger("r-2")]) == NOTHING_LANDS
