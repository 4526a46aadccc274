"""What follows from a call: waits, costs and words."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode, encode
from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.money import ZERO
from schemas.response import AttemptSummary, Error, ResponseWarning, Status
from schemas.usage import Outcome, Tokens
from streams.commands import GONE_BACK
from streams.dispatch.decide import (
    MOST_REWORDINGS,
    AttemptMark,
    Expired,
    Interrupted,
    PassedOn,
    RetryPolicy,
    Start,
    Verdict,
    cut_short,
    decode_mark,
    encode_mark,
    handed_on,
    judge_answer,
    judge_failure,
    onward,
    plan,
    report_cancelled,
    report_expired,
    report_interrupted,
    report_not_sent,
)
from streams.dispatch.ports import ErrorClass, Failure
from tests.unit.streams.making import ESTIMATE, NOW, REPLY, answer, attempt, command, summary

POLICY = RetryPolicy(attempts=3, delay=1.0, max_delay=30.0)
ENDED = NOW + timedelta(seconds=2)
BUSY = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down")
CUT = Failure(ErrorClass.RETRYABLE, "truncated", "cut off", may_be_billed=True)
BAD_KEY = Failure(ErrorClass.FALL_BACK, "bad_key", "no such key")
REFUSED = Failure(ErrorClass.TERMINAL, "invalid_request", "too many tools")
JITTER = st.floats(0, 1, exclude_max=True)


def judge(
    failure: Failure, *, tries: int = 1, route: tuple[str, ...] = ("claude", "openai"), within: float = 600.0
) -> Verdict:
    earlier = tuple(summary(number, route[0]) for number in range(1, tries))
    return judge_failure(attempt(command(*route, attempts=earlier, within=within)), failure, POLICY, ENDED, 0.5)


# Waits -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000), JITTER)
def test_a_wait_is_between_nothing_and_the_ceiling(tries: int, jitter: float) -> None:
    assert 0 <= POLICY.wait(tries, None, jitter) <= 30.0


@given(st.integers(1, 10_000), st.floats(0, 1e9), JITTER)
def test_a_wait_is_never_shorter_than_the_provider_asks(tries: int, retry_after: float, jitter: float) -> None:
    assert retry_after <= POLICY.wait(tries, retry_after, jitter) <= retry_after + 30.0


def test_the_ceiling_doubles_until_its_maximum() -> None:
    assert [POLICY.wait(tries, None, 1.0) for tries in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def test_nearly_all_of_the_wait_is_jitter() -> None:
    assert POLICY.wait(3, None, 0.0) == 0.1
    assert POLICY.wait(3, None, 1.0) == 4.0


@given(st.integers(1, 20), st.lists(JITTER, min_size=20, max_size=20))
def test_whatever_the_dice_say_each_wait_is_longer_than_the_one_before_until_the_maximum(
    tries: int, jitters: list[float]
) -> None:
    before = 0.0
    for number in range(1, tries + 1):
        wait = POLICY.wait(number, None, jitters[number - 1], before)
        assert wait >= min(1.25 * before, 30.0)
        before = wait


# A failure and what comes next -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tries", [1, 2])
def test_a_busy_provider_is_asked_again_by_its_own_lane(tries: int) -> None:
    verdict = judge(BUSY, tries=tries)
    assert verdict.report.follow is Follow.RETRY
    assert 0.5 * 2 ** (tries - 1) <= verdict.wait <= 2 ** (tries - 1)
    again = verdict.report.command
    assert again is not None
    assert again.route == ("claude", "openai")
    assert again.next_attempt == tries + 1
    assert again.attempts[-1].error is not None
    assert again.attempts[-1].error.retryable


def test_the_next_key_is_tried_at_once_as_another_attempt_of_the_same_provider() -> None:
    refused = Failure(ErrorClass.RETRYABLE, "key_refused", "wrong key (key 1 of 2 of AI_CLAUDE_API_KEY)")
    verdict = judge(refused)
    assert (verdict.report.follow, verdict.wait) == (Follow.RETRY, 0.0)
    assert verdict.report.usage is not None
    assert (verdict.report.usage.error_code, verdict.report.usage.cost) == ("key_refused", Decimal(0))
    assert judge(refused, tries=3).report.follow is Follow.FORWARD, "keys do not make attempts endless"


REWORDED = Failure(ErrorClass.RETRYABLE, "field_refused", "temperature is not supported")


def test_a_refused_field_is_asked_without_at_once_and_costs_no_try() -> None:
    first = judge(REWORDED)
    assert (first.report.follow, first.wait) == (Follow.RETRY, 0.0)
    assert first.report.usage is not None
    assert (first.report.usage.error_code, first.report.usage.cost) == ("field_refused", Decimal(0))
    once = RetryPolicy(attempts=1)
    assert judge_failure(attempt(command("claude")), REWORDED, once, ENDED, 0.0).report.follow is Follow.RETRY
    assert not REWORDED.is_outage


def test_a_server_that_refuses_one_field_after_another_has_an_end() -> None:
    once = RetryPolicy(attempts=1)
    earlier: list[AttemptSummary] = []
    for number in range(1, MOST_REWORDINGS + 2):
        tried = attempt(command("claude", "openai", attempts=tuple(earlier)))
        verdict = judge_failure(tried, REWORDED, once, ENDED, 0.0)
        assert verdict.report.follow is (Follow.RETRY if number <= MOST_REWORDINGS else Follow.FORWARD)
        error = Error(code="field_refused", message="no", retryable=True)
        earlier.append(summary(number, "claude").model_copy(update={"error": error}))


def test_a_refused_key_says_nothing_of_the_provider_while_another_is_left() -> None:
    assert not Failure(ErrorClass.RETRYABLE, "key_refused", "no").is_outage
    assert Failure(ErrorClass.FALL_BACK, "bad_key", "no").is_outage


def test_a_provider_is_not_asked_more_often_than_the_policy_says() -> None:
    verdict = judge(BUSY, tries=3)
    assert verdict.report.follow is Follow.FORWARD
    assert verdict.wait == 0.0
    assert verdict.report.command is not None
    assert verdict.report.command.route == ("openai",)


def test_the_tries_at_another_provider_do_not_count() -> None:
    earlier = tuple(summary(number, "claude") for number in (1, 2, 3))
    verdict = judge_failure(attempt(command("openai", attempts=earlier)), BUSY, POLICY, ENDED, 0.0)
    assert verdict.report.follow is Follow.RETRY
    assert verdict.report.command is not None
    assert verdict.report.command.next_attempt == 5


def test_a_failure_of_the_provider_alone_goes_to_the_next_one_at_once() -> None:
    verdict = judge(BAD_KEY)
    assert verdict.report.follow is Follow.FORWARD
    assert verdict.report.command is not None
    assert verdict.report.command.provider == "openai"
    assert verdict.report.response is None


def test_what_no_provider_will_answer_is_failed_at_once_in_the_providers_words() -> None:
    report = judge(REFUSED).report
    assert report.follow is Follow.ANSWER
    assert report.command is None
    assert report.response is not None
    assert report.response.status is Status.FAILED
    assert report.response.error is not None
    assert (report.response.error.code, report.response.error.message) == ("invalid_request", "too many tools")
    assert not report.response.error.retryable
    assert [each.attempt for each in report.response.attempts] == [1]


@pytest.mark.parametrize(("failure", "retryable"), [(BUSY, True), (BAD_KEY, False)])
def test_when_all_providers_have_failed_the_last_error_is_told(failure: Failure, retryable: bool) -> None:
    report = judge(failure, tries=3, route=("claude",)).report
    assert report.follow is Follow.ANSWER
    assert report.response is not None
    assert report.response.status is Status.FAILED
    assert report.response.error is not None
    assert report.response.error.code == "all_providers_failed"
    assert report.response.error.message == f"All AI providers failed. Last error: {failure.message}"
    assert report.response.error.retryable is retryable
    assert [each.attempt for each in report.response.attempts] == [1, 2, 3]


@pytest.mark.parametrize("retry_after", [598.0, 1e6, 1e12, 1e300, math.inf])
def test_a_wait_beyond_the_deadline_is_not_begun(retry_after: float) -> None:
    failure = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=retry_after)
    assert judge(failure).report.follow is Follow.FORWARD


def test_a_wait_that_ends_before_the_deadline_is_begun() -> None:
    failure = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=597.0)
    assert judge(failure).report.follow is Follow.RETRY


@pytest.mark.parametrize("failure", [BUSY, BAD_KEY])
def test_a_failure_after_the_deadline_expires_the_request(failure: Failure) -> None:
    report = judge(failure, within=2.0).report
    assert report.follow is Follow.ANSWER
    assert report.response is not None
    assert report.response.status is Status.EXPIRED


# Money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "priced", "estimate", "cost", "source"),
    [
        ("0.3", "0.2", "0.5", "0.3", "reported"),
        ("0", "0.2", "0.5", "0", "reported"),
        (None, "0.2", "0.5", "0.2", "computed"),
        (None, "0", "0.5", "0", "computed"),
        (None, None, "0.5", "0.5", "estimated"),
        (None, None, None, "0", "unpriced"),
    ],
)
def test_the_best_known_cost_counts(
    reported: str | None, priced: str | None, estimate: str | None, cost: str, source: str
) -> None:
    told, computed, held = (None if text is None else Decimal(text) for text in (reported, priced, estimate))
    report = judge_answer(attempt(estimate=held), answer(reported_cost=told), computed, ENDED)
    assert report.usage is not None
    assert (report.usage.cost, report.usage.cost_source) == (Decimal(cost), source)
    assert report.usage.outcome is Outcome.SUCCEEDED


def test_a_cost_is_kept_in_nano_dollars() -> None:
    report = judge_answer(attempt(), answer(), Decimal("0.12345678949"), ENDED)
    assert report.usage is not None
    assert str(report.usage.cost) == "0.123456789"


def test_a_call_that_may_have_been_billed_is_in_doubt_with_its_estimate() -> None:
    usage = judge(CUT).report.usage
    assert usage is not None
    assert (usage.outcome, usage.cost, usage.cost_source) == (Outcome.IN_DOUBT, ESTIMATE, "estimated")
    assert usage.error_code == "truncated"


def test_a_call_in_doubt_without_any_estimate_is_marked_as_unpriced() -> None:
    usage = judge_failure(attempt(estimate=None), CUT, POLICY, ENDED, 0.5).report.usage
    assert usage is not None
    assert (usage.outcome, usage.cost, usage.cost_source) == (Outcome.IN_DOUBT, Decimal(0), "unpriced")


@pytest.mark.parametrize("failure", [BUSY, BAD_KEY, REFUSED])
def test_a_call_that_cannot_have_been_billed_costs_nothing(failure: Failure) -> None:
    usage = judge(failure).report.usage
    assert usage is not None
    assert (usage.outcome, usage.cost, usage.tokens) == (Outcome.FAILED, Decimal(0), Tokens())
    assert usage.error_code == failure.code


def test_an_answer_tells_what_all_attempts_together_cost() -> None:
    report = judge_answer(attempt(command(attempts=(summary(1, cost="0.5"),))), answer(), Decimal("0.25"), ENDED)
    assert report.usage is not None
    assert report.response is not None
    assert report.usage.cost == Decimal("0.25")
    assert report.response.usage.cost == Decimal("0.75")


def test_a_failed_request_tells_what_its_attempts_cost() -> None:
    report = judge_failure(
        attempt(command("claude", attempts=(summary(1, cost="0.5"), summary(2, cost="0.5")))), CUT, POLICY, ENDED, 0.5
    ).report
    assert report.response is not None
    assert report.response.usage.cost == Decimal("1.5")


# An answer ---------------------------------------------------------------------------------------------------------


def test_an_answer_closes_the_request_with_what_the_provider_said() -> None:
    lost = ResponseWarning(code="text_repaired", message="A mark stands there.")
    told = {"finish_reason_raw": "eos", "warnings": (lost,)}
    report = judge_answer(
        attempt(), answer(citations=("https://example.com",), tool_calls=({"id": "t-1"},), **told), None, ENDED
    )
    assert report.follow is Follow.ANSWER
    response = report.response
    assert response is not None
    assert response.status is Status.SUCCEEDED
    assert (response.content, response.model, response.finish_reason) == ("hello", "m-1-exact", "stop")
    assert (response.finish_reason_raw, response.warnings) == ("eos", (lost,))
    assert (response.citations, response.tool_calls) == (("https://example.com",), ({"id": "t-1"},))
    assert (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens) == (3, 5, 8)
    assert response.usage.cached_tokens == 1
    assert response.latency == 2.0
    assert response.metadata == {"k": "v"}
    assert response.event_id == "r-1/response"


def test_usage_says_who_asked_for_what_and_where() -> None:
    usage = judge_answer(attempt(), answer(), None, ENDED).usage
    assert usage is not None
    assert usage.attempt_id == "r-1/1"
    assert (usage.workspace_id, usage.user_id, usage.purpose) == ("acme", "u-1", "test")
    assert (usage.provider, usage.model, usage.lane) == ("claude", "m-1-exact", "claude/0")
    assert (usage.requested_at, usage.started_at, usage.latency) == (NOW, NOW, 2.0)


def test_a_clock_that_goes_backwards_makes_no_negative_latency() -> None:
    report = judge_answer(attempt(), answer(), None, NOW - timedelta(seconds=5))
    assert report.usage is not None
    assert report.response is not None
    assert report.usage.latency == report.response.latency == 0.0


def test_every_report_can_be_read_back_and_knows_its_reply_address() -> None:
    reports = [
        judge_answer(attempt(), answer(), Decimal("0.25"), ENDED),
        *(judge(failure).report for failure in (BUSY, CUT, BAD_KEY, REFUSED)),
        judge(BUSY, tries=3, route=("claude",)).report,
        report_interrupted(attempt(), ENDED),
        report_expired(command(), ENDED),
    ]
    for report in reports:
        assert decode(AttemptReport, encode(report)) == report
        assert report.reply == REPLY
        assert report.traceparent == "00-abc-def-01"


# What to do with a command -----------------------------------------------------------------------------------------


def test_a_command_without_a_mark_starts_its_next_attempt() -> None:
    assert plan(command(), None, NOW) == Start(1)
    assert plan(command(attempts=(summary(1), summary(2))), None, NOW) == Start(3)


def test_a_mark_of_an_earlier_attempt_does_not_stop_the_next_one() -> None:
    mark = AttemptMark(NOW.timestamp())
    assert plan(command(attempts=(summary(1),)), mark, NOW) == Start(2)


@pytest.mark.parametrize("earlier", [(), (summary(1),), (summary(1), summary(2))])
def test_a_mark_of_the_same_or_a_later_attempt_is_somebodys_who_is_gone(earlier: tuple[()]) -> None:
    mark = AttemptMark(NOW.timestamp(), earlier)
    found = plan(command(), mark, NOW)
    assert isinstance(found, Interrupted)
    assert found.command.next_attempt == mark.attempt
    assert found.started_at == NOW


@pytest.mark.parametrize(("within", "expected"), [(0.0, Expired()), (0.001, Start(1))])
def test_no_call_is_begun_from_the_deadline_on(within: float, expected: object) -> None:
    assert plan(command(within=within), None, NOW) == expected


def test_a_mark_is_asked_about_even_after_the_deadline() -> None:
    assert isinstance(plan(command(within=0.0), AttemptMark(NOW.timestamp()), NOW), Interrupted)


@pytest.mark.parametrize("reason", [None, "circuit_open"])
def test_a_mark_of_an_earlier_request_with_the_same_id_is_none_of_this_one(reason: str | None) -> None:
    admitted_at = command().admitted.admitted_at.timestamp()
    earlier = AttemptMark(admitted_at - 61, (summary(1),), reason)
    assert plan(command(), earlier, NOW, known_for=60.0) == Start(1)
    assert plan(command(), AttemptMark(admitted_at - 59, (), reason), NOW, known_for=60.0) != Start(1)


def routed(*route: str, **fields: object) -> DispatchCommand:
    return command().model_copy(update={"route": route, **fields})


def test_a_provider_that_passes_a_request_on_is_remembered() -> None:
    first = onward(routed("claude", "openai", "local"), "circuit_open")
    assert first is not None
    assert (first.route, first.passed_by, first.returns) == (("openai", "local"), ("claude",), 0)
    second = onward(first, "too_busy")
    assert second is not None
    assert (second.route, second.passed_by) == (("local",), ("claude", "openai"))
    assert onward(second, "too_busy") is None, "nobody is left who has not passed it on"


def test_one_that_goes_back_asks_those_first_that_have_passed_it_on() -> None:
    back = onward(routed("local", passed_by=("claude", "openai")), GONE_BACK)
    assert back is not None
    assert (back.route, back.passed_by, back.returns) == (("claude", "openai", "local"), (), 1)


def test_a_provider_that_was_tried_is_not_asked_again() -> None:
    told = routed("openai", "local", passed_by=("claude",))
    failed = judge_failure(attempt(told), BAD_KEY, POLICY, ENDED, 0.5)
    assert failed.report.command is not None
    assert (failed.report.command.route, failed.report.command.passed_by) == (("local",), ("claude",))


def test_whoever_has_come_back_is_called_where_it_was_passed_on_before_and_delivered_again_it_is_passed_on() -> None:
    mark = decode_mark(encode_mark(AttemptMark(NOW.timestamp(), (), "paused", returns=1)))
    assert plan(routed("claude", returns=2), mark, NOW) == Start(1)
    assert isinstance(plan(routed("claude", returns=1), mark, NOW), PassedOn)
    assert isinstance(plan(routed("claude"), mark, NOW), PassedOn)


def test_a_mark_of_a_later_attempt_counts_however_often_the_request_has_come_back() -> None:
    """Found by the simulation: the first attempt was called twice."""
    later = AttemptMark(NOW.timestamp(), (summary(1),), "paused")
    assert isinstance(plan(routed("claude", returns=1), later, NOW), PassedOn)


def test_a_call_that_was_begun_is_asked_about_however_often_its_request_has_come_back() -> None:
    begun = decode_mark(encode_mark(AttemptMark(NOW.timestamp(), (), None, "owner", 5.0, returns=1)))
    assert begun.returns == 1
    assert isinstance(plan(routed("claude", returns=3), begun, NOW), Interrupted)


def test_an_expired_command_is_reported_without_a_call_and_without_usage() -> None:
    report = report_expired(command(attempts=(summary(1, cost="0.5"),)), ENDED)
    assert report.follow is Follow.ANSWER
    assert report.usage is None
    assert report.response is not None
    assert report.response.status is Status.EXPIRED
    assert report.response.usage.cost == Decimal("0.5")


def test_an_interrupted_attempt_is_reported_in_doubt_with_a_command_for_the_next_one() -> None:
    report = report_interrupted(attempt(), ENDED)
    assert report.follow is Follow.INTERRUPTED
    assert report.usage is not None
    assert (report.usage.outcome, report.usage.cost, report.usage.attempt) == (Outcome.IN_DOUBT, ESTIMATE, 1)
    assert report.usage.error_code == "interrupted"
    assert report.command is not None
    assert report.command.next_attempt == 2
    assert report.command.route == ("claude", "openai")


@given(st.floats(0, 4e9), st.lists(st.decimals(0, 10**6, places=9), max_size=4))
def test_a_mark_survives_its_table(started_at: float, costs: list[Decimal]) -> None:
    mark = AttemptMark(started_at, tuple(summary(n, cost=str(cost)) for n, cost in enumerate(costs, 1)))
    assert decode_mark(encode_mark(mark)) == mark


@given(st.none() | st.sampled_from(["too_busy"]), st.none() | st.text(min_size=1), st.floats(0, 4e9))
def test_a_mark_tells_its_owner_and_the_end_of_its_call_and_an_older_version_reads_the_rest(
    reason: str | None, owner: str | None, ends_at: float
) -> None:
    mark = AttemptMark(NOW.timestamp(), (summary(1),), reason, owner, ends_at if owner else 0.0)
    stored = encode_mark(mark)
    assert decode_mark(stored) == mark
    started_at, earlier, *passed_on = orjson.loads(stored)
    assert (started_at, len(earlier)) == (NOW.timestamp(), 1)
    assert (passed_on[:1] or [None]) == [reason]


@pytest.mark.parametrize("row", [b"[5.0,[]]", b'[5.0,[],"too_busy"]'])
def test_a_mark_of_an_older_version_names_nobody(row: bytes) -> None:
    mark = decode_mark(row)
    assert (mark.started_at, mark.owner, mark.ends_at) == (5.0, None, 0.0)


def test_a_retry_of_a_lane_that_has_moved_is_made_by_its_present_owner_after_the_same_wait() -> None:
    busy = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=7.0)
    verdict = judge_failure(attempt(), busy, RetryPolicy(), NOW, 0.0)
    assert verdict.report.follow is Follow.RETRY
    report = handed_on(verdict.report, NOW + timedelta(seconds=verdict.wait))
    assert report.follow is Follow.FORWARD
    assert report.usage == verdict.report.usage
    assert report.command is not None
    assert verdict.report.command is not None
    assert report.command.attempts == verdict.report.command.attempts
    assert report.command.route == ("claude", "openai")
    assert report.command.not_before == NOW + timedelta(seconds=7)


def test_every_other_report_of_a_lane_that_has_moved_stays_what_it_is() -> None:
    answered = judge_answer(attempt(), answer(), None, NOW)
    gone_on = judge_failure(attempt(), Failure(ErrorClass.FALL_BACK, "bad_key", "no"), RetryPolicy(), NOW, 0.5).report
    for report in (answered, gone_on, report_interrupted(attempt(), NOW)):
        assert handed_on(report, NOW) is report


def test_a_call_that_was_not_made_uses_its_number_up_costs_nothing_and_comes_back_to_its_provider() -> None:
    report = report_not_sent(attempt(), ENDED)
    assert report.follow is Follow.FORWARD
    assert report.usage is not None
    assert (report.usage.attempt, report.usage.outcome, report.usage.cost) == (1, Outcome.FAILED, ZERO)
    assert (report.usage.error_code, report.usage.tokens) == ("not_sent", Tokens())
    assert report.command is not None
    assert (report.command.next_attempt, report.command.route) == (2, ("claude", "openai"))


def test_calls_that_were_not_made_count_for_no_try() -> None:
    not_sent = report_not_sent(attempt(), NOW).command
    assert not_sent is not None
    policy = RetryPolicy(attempts=2)
    down = Failure(ErrorClass.RETRYABLE, "server_error", "no")
    first = judge_failure(attempt(not_sent), down, policy, NOW, 0.5).report
    assert first.follow is Follow.RETRY, "the first of two"
    assert first.command is not None
    second = judge_failure(attempt(first.command), down, policy, NOW, 0.5).report
    assert second.follow is Follow.FORWARD
    assert second.command is not None
    assert second.command.route == ("openai",)


def test_a_request_that_is_cancelled_before_its_call_costs_nothing_and_says_so() -> None:
    report = report_cancelled(command(attempts=(summary(1, cost="0.25"),)), NOW)
    assert (report.follow, report.usage) == (Follow.ANSWER, None)
    assert report.response is not None
    assert report.response.status is Status.FAILED
    assert report.response.error == Error(code="cancelled", message="The request was cancelled.")
    assert report.response.usage.cost == Decimal("0.25"), "what its attempts cost before"


def test_a_call_that_is_cut_short_ends_the_request_and_holds_what_was_written() -> None:
    failure = cut_short(prompt_tokens=100, written=40)
    report = judge_failure(attempt(), failure, RetryPolicy(), NOW, 0.5, priced=Decimal("0.001")).report
    assert report.follow is Follow.ANSWER, "nobody wants it from another provider either"
    assert report.usage is not None
    assert report.usage.outcome is Outcome.IN_DOUBT
    assert (report.usage.tokens.prompt_tokens, report.usage.tokens.completion_tokens) == (100, 10)
    assert (report.usage.cost, report.usage.cost_source) == (Decimal("0.001"), "estimated")


def test_a_call_that_is_cut_short_without_a_word_holds_its_whole_estimate() -> None:
    report = judge_failure(attempt(), cut_short(100, 0), RetryPolicy(), NOW, 0.5).report
    assert report.usage is not None
    assert (report.usage.cost, report.usage.tokens) == (ESTIMATE, Tokens())


def test_a_streamed_answer_tells_when_its_first_chunk_came() -> None:
    report = judge_answer(attempt(), answer(), None, NOW + timedelta(seconds=5), NOW + timedelta(seconds=1))
    assert report.response is not None
    assert report.response.time_to_first_chunk == 1.0
