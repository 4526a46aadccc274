"""What becomes of a row that a sweep looks at."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.worker.lanes import MARKS_KEPT
from schemas.codec import decode
from schemas.internal import AttemptReport, Follow
from schemas.response import Status
from streams.accounts import Account
from streams.dispatch.decide import AttemptMark
from streams.lifecycle import RequestRecord, asker_of
from streams.rows import ACCOUNT_KEPT, ANSWER_GRACE, Row
from streams.sharing import Flight, Joined, Kept, Landed
from streams.sweep.decide import LOST_AFTER, Verdict, idle_since, judge_row
from streams.topology import REPORTS, Topology
from tests.unit.streams.making import NOW, REPLY, admitted

TOPOLOGY = Topology("spillway", ("claude",))
WINDOW = 86_400.0
AT = NOW.timestamp()
OPEN = RequestRecord(7, AT, month="2026-01", asker=asker_of(admitted(within=600)))


def judged(row: Row, after: float, key: str = "acme/r-1") -> Verdict | None:
    return judge_row(TOPOLOGY)(key, row, NOW + timedelta(seconds=after), WINDOW)


def test_a_request_that_everybody_has_lost_is_answered_through_settlement_in_its_own_partition() -> None:
    verdict = judged(OPEN, 600 + LOST_AFTER + 1)
    assert verdict is not None
    assert verdict.report is not None
    assert not verdict.leaves, "settlement closes it"
    assert (verdict.report.topic, verdict.report.partition) == (REPORTS, TOPOLOGY.workspace_partition("acme"))
    report = decode(AttemptReport, verdict.report.value)
    assert (report.follow, report.usage, report.reply) == (Follow.ANSWER, None, REPLY)
    assert report.response is not None
    assert (report.response.status, report.response.request_id) == (Status.EXPIRED, "r-1")
    assert report.response.metadata == {"k": "v"}


@pytest.mark.parametrize("after", [0, 600, 600 + LOST_AFTER])
def test_one_that_may_still_be_answered_is_left_alone(after: float) -> None:
    assert judged(OPEN, after) is None


@pytest.mark.parametrize("within", [3 * WINDOW, 10 * WINDOW])
def test_one_whose_deadline_is_later_than_the_window_keeps_its_record_and_so_its_reservation(within: float) -> None:
    patient = RequestRecord(7, AT, month="2026-01", reserved=5, asker=asker_of(admitted(within=within)))
    assert judged(patient, WINDOW + 1) is None
    assert judged(patient, within) is None
    verdict = judged(patient, within + LOST_AFTER + 1)
    assert verdict is not None
    assert verdict.report is not None
    assert judged(patient.close(9, AT + within), within + WINDOW + 1) == Verdict(leaves=True)


def test_a_request_id_with_slashes_is_found_again() -> None:
    verdict = judged(OPEN, 10_000, key="acme/a/b/c")
    assert verdict is not None
    assert verdict.report is not None
    assert decode(AttemptReport, verdict.report.value).request_id == "a/b/c"


@pytest.mark.parametrize(
    ("row", "age"),
    [
        (OPEN.close(3, AT), WINDOW),
        (replace(OPEN, asker=None), WINDOW),
        (Account(touched_at=AT), ACCOUNT_KEPT),
        (Kept("r-1", AT - 60, AT, b"{}"), ANSWER_GRACE),
        (Flight("r-1", 7, AT), WINDOW),
        (Joined(AT, b"{}"), WINDOW),
        (Landed(3, AT), WINDOW),
    ],
)
def test_a_row_leaves_when_nothing_can_ask_for_it_any_more(row: Row, age: float) -> None:
    assert judged(row, age - 1) is None
    assert judged(row, age + 1) == Verdict(leaves=True)


@pytest.mark.parametrize(("window", "stays"), [(60.0, WINDOW), (3 * WINDOW, 3 * WINDOW)])
def test_a_mark_stays_longer_than_any_call_however_short_a_request_id_is_known(window: float, stays: float) -> None:
    judge, mark = idle_since(AttemptMark.last_touched, MARKS_KEPT), AttemptMark(AT)
    assert judge("claude/acme/r-1", mark, NOW + timedelta(seconds=stays - 1), window) is None
    assert judge("claude/acme/r-1", mark, NOW + timedelta(seconds=stays + 1), window) == Verdict(leaves=True)
