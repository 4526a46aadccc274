"""Records of Kafka, put together for the page; rows of ClickHouse as well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from app.dlq.notes import Note
from app.web.figures import MINUTES, costs_of, flow_of, latest_of
from app.web.heard import LETTERS, Arrivals, Heard, behind, by_lane, of_topics
from schemas.codec import encode
from schemas.control import Mode, ModeChange
from schemas.dead_letter import DeadLetter, Origin
from streams.budgets import Budget, BudgetBook
from streams.dispatch.control import ControlBoard
from streams.topology import BUDGET_STATE, CONTROL, DEAD_LETTERS, LANES, REDRIVES, REQUESTS
from tests.unit.web import making
from tests.unit.web.making import NOW


def record(topic: str, key: str, value: bytes | None, offset: int = 0, headers: Any = ()) -> Any:
    place = {"topic": topic, "partition": 0, "offset": offset, "timestamp": 1_764_083_045_000 + offset}
    return SimpleNamespace(**place, key=key.encode(), value=value, headers=headers)


def heard(*records: Any) -> Heard:
    found = Heard(BudgetBook(Budget(Decimal(1000))), ControlBoard({}))
    for each in records:
        found.hear(each)
    return found


def test_the_newest_record_of_a_key_counts_and_one_without_a_value_ends_it() -> None:
    first, second = making.lane_state(waiting=1), making.lane_state(waiting=2)
    known = heard(record(LANES, "claude/0", encode(first)), record(LANES, "claude/0", encode(second)))
    assert known.lanes["claude/0"].waiting == 2
    known.hear(record(LANES, "claude/0", None))
    assert known.lanes == {}


def test_what_is_none_of_spillways_changes_nothing() -> None:
    known = heard(
        record(LANES, "claude/0", b"nonsense"),
        record(BUDGET_STATE, "acme/2026-11", b"{}"),
        record(CONTROL, "mode/claude", b"\xff"),
    )
    assert (known.lanes, known.states) == ({}, {})


def test_modes_are_those_that_operators_have_set() -> None:
    known = heard(record(CONTROL, "mode/claude", encode(ModeChange(target="claude", mode=Mode.PAUSED))))
    assert known.board.mode_for(making.LANES[0]) is Mode.PAUSED


def test_dead_letters_are_told_without_their_content_and_the_newest_are_kept() -> None:
    dead = DeadLetter(Origin(REQUESTS, 1, 2, 0), "not_json", "It is not JSON.", b"k", b"a secret prompt")
    found = heard(*(record(DEAD_LETTERS, "k", dead.value, n, dead.to_headers()) for n in range(11 * LETTERS)))
    assert [each.place.offset for each in found.newest()] == list(reversed(range(10 * LETTERS, 11 * LETTERS)))
    newest = found.newest()[0]
    assert (newest.code, newest.message) == ("not_json", "It is not JSON.")
    assert newest.origin == dead.origin
    assert "secret" not in repr(newest)


@pytest.mark.parametrize("headers", [(), [("kafka_dlt-original-topic", b"\xff")]])
def test_a_record_that_somebody_else_wrote_there_is_shown_as_such(headers: Any) -> None:
    [found] = heard(record(DEAD_LETTERS, "k", b"x", headers=headers)).newest()
    assert (found.code, found.origin) == ("unknown", None)


def test_letters_that_were_sent_again_are_noted() -> None:
    dead = DeadLetter(Origin(REQUESTS, 1, 2, 0), "not_json", "It is not JSON.", b"k", b"x")
    found = heard(record(DEAD_LETTERS, "k", dead.value, 4, dead.to_headers()))
    [letter] = found.newest()
    note = Note(letter.place, letter.buried_at, "done", "run", "now")
    found.hear(record(REDRIVES, note.key().decode(), note.value()))
    found.hear(record(REDRIVES, "nonsense", b"{}"))
    assert found.notes.newest(letter) == note


def test_what_waits_is_from_where_a_group_has_acknowledged_to_the_end() -> None:
    lane = making.LANES[0]
    places = [
        TopicPartition(REQUESTS, 0),
        TopicPartition(REQUESTS, 1),
        TopicPartition("ai.dispatch.claude", lane.partition),
    ]
    ends = dict(zip(places, (10, 20, 30), strict=True))
    waiting = behind({places[0]: 4, places[2]: 31}, ends, {places[1]: 15})
    assert of_topics(waiting, REQUESTS) == 6 + 5
    assert by_lane(waiting, making.LANES) == {lane.name: 0}


def test_arrivals_are_of_the_last_minute_and_unknown_before_it_was_watched() -> None:
    arrivals = Arrivals()
    assert [arrivals.see(now, end) for now, end in ((0, 100), (30, 110), (60, 115), (90, 117))] == [None, None, 15, 7]
    # The topic was made anew.
    assert arrivals.see(100, 3) is None


def test_minutes_without_an_answer_are_there_and_there_is_no_median_of_nothing() -> None:
    start = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)
    naive = datetime(2026, 11, 25, 14, 1)  # noqa: DTZ001 - as the client hands it over
    found = flow_of([(naive, 5, 2, 1)], (1, 0, 0, 1, [float("nan")] * 2), start)
    assert len(found.minutes) == MINUTES
    assert [(each.succeeded, each.failed) for each in found.minutes[:3]] == [(0, 0), (5, 1), (0, 0)]
    assert (found.p50, found.p95) == (None, None)
    assert flow_of([], (1, 1, 0, 0, [0.5, 0.9]), start).p95 == 0.9


def test_rows_become_requests_with_their_attempts() -> None:
    row = ("acme", "r", "completion", "succeeded", None, "claude", "m", None, 1, 15, Decimal("0.5"), Decimal(0))
    times = (None, NOW, 1.5)
    attempt = ("claude", "m", "claude/0", "failed", "overloaded", 0, Decimal(0), "computed", NOW, 0.1)
    attempts = [("acme", "r", 1, *attempt), ("acme", "other", 1, *attempt), ("acme", "r", 2, *attempt)]
    [found] = latest_of([(*row, *times)], attempts)
    assert [tried.number for tried in found.tried] == [1, 2]
    assert (found.cached, found.requested_at, found.cost) == (True, None, Decimal("0.5"))


def test_costs_keep_their_cents() -> None:
    [found] = costs_of([(NOW - timedelta(hours=1), "claude", "m", 2, 30, Decimal("0.123456789"))])
    assert found.cost == Decimal("0.123456789")
