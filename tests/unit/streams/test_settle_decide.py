"""Settlement: each report, delivered once, twice, late or in doubt."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Literal

import pytest

from schemas.budget import BudgetAction
from schemas.chunk import Chunk
from schemas.internal import AttemptReport, Follow
from schemas.response import Status
from schemas.usage import Outcome
from streams.accounts import Account, nanos
from streams.budgets import Budget
from streams.dispatch.decide import RetryPolicy, judge_answer, judge_failure, report_expired, report_interrupted
from streams.dispatch.ports import ErrorClass, Failure
from streams.lifecycle import ADMISSION, UNKNOWN, RequestRecord
from streams.settle.apply import _answers
from streams.settle.decide import Purse, Settlement, settle
from tests.unit.streams.making import NOW, answer, attempt, command

BUSY = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down")
BAD_KEY = Failure(ErrorClass.FALL_BACK, "bad_key", "no such key")
OPEN = RequestRecord(admitted_by=7, admitted_at=NOW.timestamp())
LATER = NOW + timedelta(seconds=5)


def answered(text: str = "hello") -> AttemptReport:
    return judge_answer(attempt(), answer(content=text), None, LATER)


def forwarded() -> AttemptReport:
    return judge_failure(attempt(), BAD_KEY, RetryPolicy(), LATER, 0.5).report


def retried() -> AttemptReport:
    return judge_failure(attempt(), BUSY, RetryPolicy(), LATER, 0.5).report


def interrupted() -> AttemptReport:
    return report_interrupted(attempt(), LATER)


def apply(
    known: RequestRecord | None, report: AttemptReport, offset: int, in_doubt: Literal["retry", "fail"] = "retry"
) -> Settlement:
    return settle(known, report, offset, in_doubt, LATER)


ALL = {"answer": answered, "forward": forwarded, "retry": retried, "interrupted": interrupted}


def test_an_answer_closes_the_request_and_is_sent() -> None:
    report = answered()
    settled = apply(OPEN, report, 20)
    assert settled.response == report.response
    assert settled.usage == report.usage
    assert settled.command is None
    assert (settled.record.closed_by, settled.record.closed_at) == (20, LATER.timestamp())
    assert settled.record.reports[1].follow is Follow.ANSWER


def test_a_forward_goes_to_the_next_provider_and_leaves_the_request_open() -> None:
    report = forwarded()
    settled = apply(OPEN, report, 20)
    assert settled.command == report.command
    assert settled.usage == report.usage
    assert settled.response is None
    assert not settled.record.closed


def test_a_retry_is_counted_and_left_to_its_lane() -> None:
    report = retried()
    settled = apply(OPEN, report, 20)
    assert settled.usage == report.usage
    assert (settled.command, settled.response) == (None, None)
    assert not settled.record.closed


def test_an_expired_wait_is_answered_without_usage() -> None:
    settled = apply(OPEN, report_expired(command(), LATER), 20)
    assert settled.usage is None
    assert settled.response is not None
    assert settled.response.status is Status.EXPIRED
    assert settled.record.closed_by == 20
    assert settled.record.reports == {}


def test_an_attempt_in_doubt_is_counted_and_made_again() -> None:
    report = interrupted()
    settled = apply(OPEN, report, 20, "retry")
    assert settled.usage is not None
    assert settled.usage.outcome is Outcome.IN_DOUBT
    assert settled.command == report.command
    assert settled.response is None
    assert not settled.record.closed


def test_an_attempt_in_doubt_is_counted_and_failed_where_the_policy_says_so() -> None:
    settled = apply(OPEN, interrupted(), 20, "fail")
    assert settled.usage is not None
    assert settled.usage.outcome is Outcome.IN_DOUBT
    assert settled.command is None
    assert settled.response is not None
    assert settled.response.status is Status.FAILED
    assert settled.response.error is not None
    assert settled.response.error.code == "in_doubt"
    assert settled.response.usage.cost == settled.usage.cost
    assert settled.record.closed_by == 20


@pytest.mark.parametrize("follow", ALL)
@pytest.mark.parametrize("in_doubt", ["retry", "fail"])
def test_a_report_delivered_again_sends_the_same_and_changes_nothing(
    follow: str, in_doubt: Literal["retry", "fail"]
) -> None:
    report = ALL[follow]()
    first = apply(OPEN, report, 20, in_doubt)
    assert apply(first.record, report, 20, in_doubt) == first


def test_an_expired_wait_delivered_again_is_answered_again() -> None:
    report = report_expired(command(), LATER)
    first = apply(OPEN, report, 20)
    assert apply(first.record, report, 20) == first


@pytest.mark.parametrize("follow", ALL)
def test_a_request_is_answered_once_and_whatever_comes_later_sends_nothing_to_the_caller(follow: str) -> None:
    first = apply(OPEN, answered(), 20)
    late = apply(first.record, ALL[follow](), 30)
    assert (late.response, late.command) == (None, None)
    assert (late.record.closed_by, late.record.closed_at) == (20, LATER.timestamp())


@pytest.mark.parametrize("follow", ["answer", "forward", "retry"])
def test_a_late_report_of_a_call_is_counted_all_the_same(follow: str) -> None:
    report = ALL[follow]()
    closed = OPEN.close(ADMISSION, NOW.timestamp())
    settled = apply(closed, report, 20)
    assert settled.usage == report.usage
    assert (settled.response, settled.command) == (None, None)


def test_a_doubt_about_a_request_that_admission_closed_is_counted_and_not_made_again() -> None:
    settled = apply(OPEN.close(ADMISSION, NOW.timestamp()), interrupted(), 20)
    assert settled.usage is not None
    assert (settled.response, settled.command) == (None, None)


def test_two_different_answers_never_contradict_each_other() -> None:
    first = apply(OPEN, answered("one"), 20)
    second = apply(first.record, answered("two"), 30)
    assert second.response is None
    again = apply(second.record, answered("one"), 20)
    assert again.response == first.response


@pytest.mark.parametrize("follow", ["answer", "forward"])
def test_a_mark_whose_attempt_was_reported_is_not_in_doubt(follow: str) -> None:
    reported = apply(OPEN, ALL[follow](), 20)
    asked = apply(reported.record, interrupted(), 30)
    assert asked == Settlement(reported.record)


def test_a_retry_whose_lane_is_gone_is_sent_on_by_settlement_without_a_doubt() -> None:
    reported = apply(OPEN, retried(), 20)
    question = interrupted()
    asked = apply(reported.record, question, 30)
    assert asked.command is not None
    assert question.command is not None
    assert asked.command.next_attempt == question.command.next_attempt
    assert asked.usage is None
    assert apply(asked.record, question, 30) == asked


def test_a_retry_that_is_sent_on_tells_of_its_attempt_what_was_reported() -> None:
    """Whoever found the mark took the attempt for lost, at its estimate; it had failed, and cost nothing."""
    asked = apply(apply(OPEN, retried(), 20).record, interrupted(), 30)
    assert asked.command is not None
    [told] = asked.command.attempts
    assert (told.outcome, told.cost) == (Outcome.FAILED, Decimal(0))


def test_a_retry_that_was_sent_on_is_not_sent_on_a_second_time() -> None:
    asked = apply(apply(OPEN, retried(), 20).record, interrupted(), 30)
    assert apply(asked.record, interrupted(), 40).command is None


def test_an_attempt_in_doubt_is_doubted_once() -> None:
    doubted = apply(OPEN, interrupted(), 20)
    assert apply(doubted.record, interrupted(), 30) == Settlement(doubted.record)


def refused_by_the_provider() -> AttemptReport:
    failure = Failure(ErrorClass.TERMINAL, "invalid_request", "no")
    return judge_failure(attempt(), failure, RetryPolicy(), LATER, 0.5).report


@pytest.mark.parametrize("report", [answered(), refused_by_the_provider()], ids=["succeeded", "failed"])
def test_an_answer_that_arrives_after_the_doubt_is_counted_and_is_not_the_answer(report: AttemptReport) -> None:
    """The next attempt was sent with the doubt, and answers."""
    doubted = apply(OPEN, interrupted(), 20)
    late = apply(doubted.record, report, 30)
    assert (late.response, late.command) == (None, None)
    assert late.usage == report.usage
    assert not late.record.closed
    assert apply(late.record, report, 30) == late, "however often it is delivered"
    again = apply(late.record, interrupted(), 20)
    assert again.command is not None, "the doubt, delivered again, sends the next attempt again"


def test_after_a_late_answer_the_next_attempt_answers() -> None:
    doubted = apply(OPEN, interrupted(), 20)
    assert doubted.command is not None
    late = apply(doubted.record, answered("late"), 30)
    then = judge_answer(attempt(doubted.command), answer(content="the answer"), None, LATER)
    settled = apply(late.record, then, 40)
    assert settled.response == then.response
    assert settled.record.closed_by == 40


def test_after_a_late_answer_the_next_attempts_end_without_a_call_answers() -> None:
    doubted = apply(OPEN, interrupted(), 20)
    assert doubted.command is not None
    late = apply(doubted.record, answered(), 30)
    settled = apply(late.record, report_expired(doubted.command, LATER), 40)
    assert settled.response is not None
    assert settled.response.status is Status.EXPIRED


def test_a_late_report_replaces_what_the_doubt_has_counted() -> None:
    doubted = apply(OPEN, interrupted(), 20)
    report = judge_answer(attempt(), answer(), Decimal("0.25"), LATER)
    late = apply(doubted.record, report, 30)
    assert doubted.usage is not None
    assert report.usage is not None
    assert report.usage.version > doubted.usage.version, "the ledger keeps it"
    estimate, cost = nanos(doubted.usage.cost), nanos(report.usage.cost)
    assert estimate != cost
    assert doubted.record.movement(20).spent == estimate
    assert late.record.movement(30).spent == cost - estimate


def test_an_answer_that_an_older_version_has_taken_after_the_doubt_stays_the_answer() -> None:
    doubted = apply(OPEN, interrupted(), 20)
    report = answered()
    closed = doubted.record.close(30, LATER.timestamp())
    assert apply(closed, report, 30).response == report.response


def test_a_doubt_that_has_closed_the_request_says_the_same_after_the_policy_has_changed() -> None:
    failed = apply(OPEN, interrupted(), 20, "fail")
    again = apply(failed.record, interrupted(), 20, "retry")
    assert again.command is None
    assert again.response == failed.response


def test_a_forward_that_arrives_after_the_doubt_starts_no_second_chain_however_often_it_is_delivered() -> None:
    doubted = apply(OPEN, interrupted(), 20)
    late = apply(doubted.record, forwarded(), 30)
    assert late.usage is not None
    assert late.command is None
    assert apply(late.record, forwarded(), 30) == late


@pytest.mark.parametrize("follow", ["forward", "retry"])
def test_a_doubt_delivered_again_after_a_late_report_keeps_its_chain(follow: str) -> None:
    """Its command may not have been with the broker yet when its worker died."""
    doubted = apply(OPEN, interrupted(), 20)
    late = apply(doubted.record, ALL[follow](), 30)
    again = apply(late.record, interrupted(), 20)
    after = apply(again.record, ALL[follow](), 30)
    assert sum(settled.command is not None for settled in (again, after)) == 1


def test_after_an_in_doubt_failure_a_late_answer_is_counted_and_not_sent() -> None:
    failed = apply(OPEN, interrupted(), 20, "fail")
    report = answered()
    late = apply(failed.record, report, 30, "fail")
    assert late.usage == report.usage
    assert late.response is None


@pytest.mark.parametrize("follow", ALL)
def test_a_report_of_a_request_that_was_never_written_down_is_settled(follow: str) -> None:
    report = ALL[follow]()
    settled = apply(None, report, 20)
    assert settled.record.admitted_by == UNKNOWN
    assert (settled.response, settled.command, settled.usage) == (
        apply(OPEN, report, 20).response,
        apply(OPEN, report, 20).command,
        report.usage,
    )


def test_a_question_that_names_no_attempt_changes_nothing() -> None:
    bare = interrupted().model_copy(update={"usage": None})
    assert apply(OPEN, bare, 20) == Settlement(OPEN)


# Another attempt, and the budget ------------------------------------------------------------------------------------


def settled_with(action: BudgetAction) -> Settlement:
    """An attempt in doubt at its estimate, of a request whose budget refused when it was admitted, and is used up."""
    to_do = command()
    guarded = to_do.model_copy(update={"admitted": to_do.admitted.model_copy(update={"guarded": True})})
    purse = Purse(Account(spent=nanos(Decimal(10))), Budget(Decimal(10), action=action))
    return settle(OPEN, report_interrupted(attempt(guarded), LATER), 20, "retry", LATER, purse)


def test_another_attempt_for_which_a_budget_that_refuses_has_no_room_is_not_made() -> None:
    settled = settled_with(BudgetAction.REFUSE)
    assert settled.command is None
    assert settled.response is not None
    assert settled.response.error is not None
    assert settled.response.error.code == "budget_exceeded"


def test_a_budget_that_was_set_to_refuse_nobody_since_the_admission_stands_in_nobodys_way() -> None:
    settled = settled_with(BudgetAction.ALERT)
    assert settled.command is not None
    assert settled.response is None


def test_what_a_worker_has_not_told_of_its_answer_is_told_with_it_and_only_with_it() -> None:
    rest = Chunk(request_id="r-1", workspace_id="acme", attempt=1, index=3, content="lo", at=NOW)
    report = answered().model_copy(update={"rest": rest})
    [said] = _answers(report, apply(OPEN, report, 20))
    assert (said.response, said.chunk) == (report.response, rest)
    doubted = apply(OPEN, interrupted(), 20).record
    assert _answers(report, apply(doubted, report, 21)) == [], "the next attempt is told"
