"""A flight lands in pieces: a crash between any two steps, whatever has survived it, and whoever is heard first
afterwards. Everybody gets one answer, and the same one however often.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import count, product

import pytest

from schemas.response import Status
from streams.dispatch.ports import Answer, ErrorClass, Failure
from streams.sharing import CachePolicy
from tests.model.world import EVERYTHING, START, Reader, World, answer, request

#: Enough for three pieces.
ABOARD = 5
KEPT, NOT_KEPT = CachePolicy(ttl=60), CachePolicy(ttl=60, max_bytes=1)
ENDS: dict[str, Answer | Failure] = {
    "answered": answer(),
    "failed": Failure(ErrorClass.TERMINAL, "invalid_request", "no"),
}


class Flight:
    """A leader with others aboard, whose end is the next report that settlement reads."""

    def __init__(self, end: Answer | Failure, cache: CachePolicy) -> None:
        self.world = World(lambda _: end, cache=cache, piece=2)
        self.world.now = START + timedelta(hours=1)
        self.admission, self.settlement, *self.lanes = self.world.readers

    def board(self, deadlines: list[int]) -> None:
        """Requests that ask for the same, due so many seconds from now; the first one leads."""
        for number, within in enumerate(deadlines):
            due = self.world.now + timedelta(seconds=within)
            self.world.requests.append(request(number, deadline=due))
            self.hear(self.admission)
        assert len(self.lanes[0].log) == 1, "one call for all"

    def hear(self, reader: Reader) -> None:
        """All that there is to read, to its end."""
        while reader.position < len(reader.log):
            self.world.deliver(reader)
            self.run()

    def run(self, steps: int | None = None) -> bool:
        """Whether there is still something to do after so many steps."""
        for done in count():
            if not self.world.tasks or done == steps:
                return bool(self.world.tasks)
            self.world.advance(self.world.tasks[0])
        raise AssertionError

    def ends(self, requests: int) -> None:
        """What must be so when everything has come to rest."""
        self.world.run_dry()
        for number in range(requests):
            told = self.world.responses[f"default/r-{number}"]
            assert told, f"request {number} was lost"
            assert all(one == told[0] for one in told), "two answers contradict each other"
        left = [key for key in self.world.table.rows if key.startswith(("@flight/", "@joined/", "@landed/"))]
        assert not left, "somebody waits for a flight that has ended"
        assert all((one.reserved, one.open_requests) == (0, 0) for one in self.world.accounts())


def accidents(flight: Flight, steps: int, survive: int, *, admission_first: bool) -> bool:
    """Crash after so many steps of the leader's end, with so many writes of those under way; False: it ended before."""
    flight.world.deliver(flight.settlement)
    if not flight.run(steps):
        return False
    flight.world.crash(survive)
    flight.world.now += timedelta(seconds=1)
    for reader in (flight.admission, flight.settlement) if admission_first else (flight.settlement, flight.admission):
        flight.hear(reader)
    return True


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("cache", [KEPT, NOT_KEPT], ids=["kept", "not kept"])
@pytest.mark.parametrize("end", ENDS)
def test_whenever_a_worker_dies_each_one_aboard_has_one_answer(end: str, cache: CachePolicy, committed: bool) -> None:
    for steps in count():
        reached = False
        for survive, admission_first in product(range(12), (True, False)):
            flight = Flight(ENDS[end], cache)
            flight.board([600] * (1 + ABOARD))
            flight.hear(flight.lanes[0])
            if committed:
                flight.world.commit()
            reached = accidents(flight, steps, survive, admission_first=admission_first)
            flight.ends(1 + ABOARD)
            if committed:
                assert sum(flight.world.calls.values()) == 1
        if not reached:
            assert steps > 3 * 2, "it has been told in pieces"
            return


@pytest.mark.parametrize("committed", [True, False])
def test_whenever_a_worker_dies_while_a_leader_runs_out_of_time_one_leads_and_the_late_are_told(
    committed: bool,
) -> None:
    for steps in count():
        reached = False
        for survive, admission_first in product(range(12), (True, False)):
            flight = Flight(answer(), KEPT)
            flight.board([60, 60, 60, 61, 61, 600, 300, 900])
            if committed:
                flight.world.commit()
            flight.world.now += timedelta(seconds=62)
            flight.hear(flight.lanes[0])
            reached = accidents(flight, steps, survive, admission_first=admission_first)
            flight.ends(8)
            statuses = [flight.world.responses[f"default/r-{number}"][0].status for number in range(8)]
            assert statuses == [Status.EXPIRED] * 5 + [Status.SUCCEEDED] * 3
            if committed:
                assert {call.split("/")[1] for call in flight.world.calls} == {"r-6"}, "the nearest deadline leads"
        if not reached:
            return


def test_one_who_is_cancelled_while_a_flight_lands_has_the_answer_of_the_flight() -> None:
    for steps in count():
        flight = Flight(answer(), KEPT)
        flight.board([600] * (1 + ABOARD))
        flight.hear(flight.lanes[0])
        for number in range(1, 1 + ABOARD):
            flight.world.cancel(number)  # Read behind the leader's end.
        flight.world.deliver(flight.settlement)
        reached = flight.run(steps)
        while flight.settlement.position < len(flight.settlement.log):
            flight.world.deliver(flight.settlement)
        flight.ends(1 + ABOARD)
        assert {told[0].status for told in flight.world.responses.values()} == {Status.SUCCEEDED}
        if not reached:
            return


def test_a_flight_that_lands_again_after_its_next_leader_has_ended_finds_no_other_one() -> None:
    flight = Flight(answer(), KEPT)
    flight.board([60, 70, 600, 700])
    flight.world.commit()
    for seconds in (65, 10):
        flight.world.now += timedelta(seconds=seconds)
        flight.hear(flight.lanes[0])
        flight.hear(flight.settlement)
    flight.world.crash(EVERYTHING)
    flight.ends(4)
    assert {call.split("/")[1] for call in flight.world.calls} == {"r-2"}
