"""A request's way, told from what the ledger has of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from app.web.path import Admitted, Called, Ended, Waited, path
from tests.unit.web.making import NOW, answered, tried


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_waits_stand_between_admission_and_each_call() -> None:
    first = tried(number=1, lane="claude/0", outcome="failed", started_at=later(2), latency=1.0)
    second = tried(number=2, lane="openai/1", started_at=later(7.5), latency=0.5)
    steps = path(answered(requested_at=NOW, answered_at=later(8.01), latency=8.01, tried=(second, first)))
    assert steps == [
        Admitted(NOW),
        Waited(2.0, "claude/0"),
        Called(first),
        Waited(4.5, "openai/1"),
        Called(second),
        Ended(later(8.01), "succeeded", False, 8.01),
    ]


def test_one_that_no_lane_called_waited_until_its_end() -> None:
    steps = path(answered(status="expired", requested_at=NOW, answered_at=later(60), latency=60.0, tried=()))
    assert steps == [Admitted(NOW), Waited(60.0, None), Ended(later(60), "expired", False, 60.0)]


def test_what_was_never_admitted_has_only_its_end() -> None:
    steps = path(answered(status="rejected", requested_at=None, tried=(), latency=0.0))
    assert steps == [Ended(NOW, "rejected", False, 0.0)]


def test_a_clock_that_went_back_makes_no_wait() -> None:
    called = tried(started_at=later(-3), latency=3.0)
    assert not any(isinstance(step, Waited) for step in path(answered(requested_at=NOW, tried=(called,))))
