"""Dispatch, decided: what to do with a command, and what follows from a call's result. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson

from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.money import ZERO, usd
from schemas.response import AttemptSummary, Error, Response, Status, Usage
from schemas.usage import CostSource, Outcome, Tokens, UsageEvent
from streams.answers import CANCELLED, all_failed, cancelled, expired, unanswered
from streams.commands import GONE_BACK
from streams.dispatch.ports import FIELD_REFUSED, NOT_SENT, Answer, ErrorClass, Failure
from streams.dispatch.vectors import as_wanted
from streams.reports import answered
from streams.tokens import tokens_of


@dataclass(frozen=True, slots=True)
class AttemptMark:
    """Written before a call: whoever finds it and did not make the call knows that a call may have been made.

    `earlier` is what the attempts before this one came to, so that the next attempt's number and the request's
    history survive the process. `passed_on` is the reason for which no call was made: the request went to its next
    provider instead, and must not be called here after all when its command is delivered again. `returns` is how often
    the request had gone back to providers that had passed it on, when that was written.

    `owner` is the worker that makes the call, and `ends_at` the moment, in seconds since 1970, at which that has ended
    at the latest. Until then the owner may report it, though the partition is another worker's.
    """

    started_at: float
    earlier: tuple[AttemptSummary, ...] = ()
    passed_on: str | None = None
    owner: str | None = None
    ends_at: float = 0.0
    returns: int = 0

    @property
    def attempt(self) -> int:
        return len(self.earlier) + 1

    def is_of(self, command: DispatchCommand) -> bool:
        """Whether it was written for this command or a later one of its request. Where the request was passed on and
        has come back since, it was written for an earlier one.
        """
        if self.passed_on and self.attempt == command.next_attempt:
            return self.returns >= command.returns
        return self.attempt >= command.next_attempt

    def last_touched(self) -> float:
        """When a sweep counts this mark as idle from."""
        return self.started_at


def encode_mark(mark: AttemptMark) -> bytes:
    """A row that older versions read as well: they know of the first three fields."""
    body: list[object] = [mark.started_at, [summary.model_dump(mode="json") for summary in mark.earlier]]
    if mark.returns:
        body += [mark.passed_on, mark.owner, mark.ends_at, mark.returns]
    elif mark.owner is not None:
        body += [mark.passed_on, mark.owner, mark.ends_at]
    elif mark.passed_on is not None:
        body.append(mark.passed_on)
    return orjson.dumps(body)


def decode_mark(value: bytes) -> AttemptMark:
    """A mark, of an older or newer version too: what this one does not know of it is ignored."""
    started_at, earlier, *more = orjson.loads(value)
    summaries = tuple(AttemptSummary.model_validate(summary) for summary in earlier)
    return AttemptMark(started_at, summaries, *more[:4])


@dataclass(frozen=True)
class Start:
    """Make the call with this number."""

    attempt: int


@dataclass(frozen=True)
class Interrupted:
    """The attempt of this mark was begun, and not by a call that this process works on. Settlement knows whether it was
    reported.

    `command` is the command as it stood when that attempt was begun.
    """

    command: DispatchCommand
    started_at: datetime


@dataclass(frozen=True)
class Expired:
    """It is too late to pay for an answer."""


@dataclass(frozen=True)
class PassedOn:
    """This lane has passed the request on before, for this reason; `command` is how it stood then."""

    command: DispatchCommand
    reason: str


Plan = Start | Interrupted | Expired | PassedOn


def plan(command: DispatchCommand, mark: AttemptMark | None, now: datetime, known_for: float = math.inf) -> Plan:
    """What to do with a command that no call of this process is working on.

    A request id is known for so many seconds. A mark that was made longer than that before the request was admitted is
    that of an earlier request, whose id is used again.
    """
    if mark is not None and mark.started_at + known_for < command.admitted.admitted_at.timestamp():
        mark = None
    if mark is not None and mark.is_of(command):
        begun = datetime.fromtimestamp(mark.started_at, UTC)
        as_begun = command.model_copy(update={"attempts": mark.earlier})
        return PassedOn(as_begun, mark.passed_on) if mark.passed_on else Interrupted(as_begun, begun)
    if command.admitted.expired(now):
        return Expired()
    return Start(command.next_attempt)


#: So many times one provider is asked in other words; a server that refuses on and on has used up its tries then.
MOST_REWORDINGS = 4
#: More doublings than this change no wait; a float ends at 2 ** 1024.
MAX_DOUBLINGS = 60
#: A wait is at least this many times the one before, and at least this share of the first ceiling.
BACKOFF_GROWTH = 1.25
LEAST_BACKOFF = 0.1


@dataclass(frozen=True)
class RetryPolicy:
    """How often one provider is asked, and how long to wait in between, in seconds."""

    attempts: int = 3
    delay: float = 1.0
    max_delay: float = 30.0

    def wait(self, tries: int, retry_after: float | None, jitter: float, before: float = 0.0) -> float:
        """Full jitter below an exponential ceiling, above a floor. `jitter` is in [0, 1).

        The floor is the provider's own word; where it gave none, somewhat more than the wait `before` this one, so
        that no draw of the dice makes a later retry come faster than an earlier one.
        """
        ceiling = min(self.delay * 2.0 ** min(tries - 1, MAX_DOUBLINGS), self.max_delay)
        if retry_after is not None:
            return retry_after + ceiling * jitter
        floor = min(max(before * BACKOFF_GROWTH, self.delay * LEAST_BACKOFF), ceiling)
        return floor + (ceiling - floor) * jitter


@dataclass(frozen=True)
class Attempt:
    """One attempt that was made. `estimate` is the cost that it holds while nobody knows better; None: unpriced."""

    command: DispatchCommand
    model: str
    lane: str
    started_at: datetime
    estimate: Decimal | None

    @property
    def number(self) -> int:
        return self.command.next_attempt

    def usage(
        self,
        outcome: Outcome,
        *,
        tokens: Tokens,
        cost: Decimal,
        source: CostSource,
        ended_at: datetime,
        error_code: str | None = None,
        model: str | None = None,
    ) -> UsageEvent:
        admitted = self.command.admitted
        request = admitted.request
        return UsageEvent.model_construct(
            request_id=admitted.request_id,
            workspace_id=admitted.workspace_id,
            attempt=self.number,
            kind=request.kind,
            provider=self.command.provider,
            model=model or self.model,
            user_id=request.user_id,
            purpose=request.purpose,
            priority=request.priority,
            outcome=outcome,
            error_code=error_code,
            tokens=tokens,
            cost=usd(cost),
            cost_source=source,
            requested_at=admitted.admitted_at,
            started_at=self.started_at,
            latency=max((ended_at - self.started_at).total_seconds(), 0.0),
            lane=self.lane,
            month=admitted.month,
        )

    def in_doubt(
        self, code: str, ended_at: datetime, tokens: Tokens | None = None, cost: Decimal | None = None
    ) -> UsageEvent:
        """The attempt may have been billed: it holds its estimate, so that no budget is blind to it.

        `tokens` and `cost` are what it used at least, where that is known: a better estimate.
        """
        held = self.estimate if cost is None else cost
        return self.usage(
            Outcome.IN_DOUBT,
            tokens=tokens or Tokens(),
            cost=held or ZERO,
            source="estimated" if held is not None else "unpriced",
            ended_at=ended_at,
            error_code=code,
        )


@dataclass(frozen=True)
class Verdict:
    """What follows from a call. `wait` is in seconds, for RETRY."""

    report: AttemptReport
    wait: float = 0.0


def judge_answer(
    attempt: Attempt, answer: Answer, priced: Decimal | None, now: datetime, first_chunk_at: datetime | None = None
) -> AttemptReport:
    """The request is answered. The provider's own word on the cost beats the computed one."""
    cost, source = _cost_of(answer, priced, attempt.estimate)
    usage = attempt.usage(
        Outcome.SUCCEEDED,
        tokens=answer.tokens,
        cost=cost,
        source=source,
        ended_at=now,
        model=answer.model,
    )
    return _report(attempt, Follow.ANSWER, usage, response=_succeeded(attempt, answer, usage, now, first_chunk_at))


def judge_failure(
    attempt: Attempt,
    failure: Failure,
    policy: RetryPolicy,
    now: datetime,
    jitter: float,
    before: float = 0.0,
    priced: Decimal | None = None,
) -> Verdict:
    """Retry in the lane, go to the next provider, or give up. `before` is the wait before this attempt, in seconds;
    `priced` is the cost of the failure's tokens.
    """
    usage = _failed_usage(attempt, failure, priced, now)
    command = attempt.command
    attempts = (*command.attempts, _summary(attempt, usage, failure))
    if failure.error_class is ErrorClass.TERMINAL:
        error = Error(code=failure.code, message=failure.message)
        response = unanswered(command.admitted, Status.FAILED, error, attempts=attempts, now=now)
        return Verdict(_report(attempt, Follow.ANSWER, usage, response=response))
    tries = _tries_at(command.provider, attempts)
    at_once = failure.is_key_refusal or failure.is_field_refusal
    wait = 0.0 if at_once else policy.wait(max(tries, 1), failure.retry_after, jitter, before)
    # Seconds and not moments: a provider may name a wait that no calendar holds.
    in_time = wait < (command.admitted.deadline - now).total_seconds()
    if failure.error_class is ErrorClass.RETRYABLE and tries < policy.attempts and in_time:
        again = command.model_copy(update={"attempts": attempts, "not_before": None})
        if usage.cost and command.admitted.guarded:
            # It may have been paid for: settlement knows whether the budget has room for another one.
            asked = again.model_copy(update={"not_before": now + timedelta(seconds=wait)})
            return Verdict(_report(attempt, Follow.FORWARD, usage, command=asked))
        return Verdict(_report(attempt, Follow.RETRY, usage, command=again), wait)
    return Verdict(_next_provider(attempt, usage, attempts, now))


def report_interrupted(attempt: Attempt, now: datetime) -> AttemptReport:
    """Asks settlement about a mark: it counts the attempt as in doubt if it was never reported."""
    usage = attempt.in_doubt("interrupted", now)
    told = Failure(
        ErrorClass.RETRYABLE,
        "interrupted",
        "The worker that made this call is gone; it may have been billed.",
        may_be_billed=True,
    )
    attempts = (*attempt.command.attempts, _summary(attempt, usage, told))
    again = attempt.command.model_copy(update={"attempts": attempts, "not_before": None})
    return _report(attempt, Follow.INTERRUPTED, usage, command=again)


def report_not_sent(attempt: Attempt, now: datetime) -> AttemptReport:
    """The attempt was marked, and then its call was not made, because this worker may no longer make it, or too late.

    Its number is used up, so that no number is ever called twice; it has cost nothing, and counts for no try. The
    request comes back to its lane.
    """
    usage = attempt.usage(
        Outcome.FAILED, tokens=Tokens(), cost=ZERO, source="computed", ended_at=now, error_code=NOT_SENT.code
    )
    attempts = (*attempt.command.attempts, _summary(attempt, usage, NOT_SENT))
    again = attempt.command.model_copy(update={"attempts": attempts, "not_before": None})
    return _report(attempt, Follow.FORWARD, usage, command=again)


def handed_on(report: AttemptReport, not_before: datetime) -> AttemptReport:
    """The report of a lane that is no longer this worker's: where it would try again by itself, the present owner does,
    not before a moment.
    """
    if report.follow is not Follow.RETRY or report.command is None:
        return report
    command = report.command.model_copy(update={"not_before": not_before})
    return report.model_copy(update={"follow": Follow.FORWARD, "command": command})


def report_expired(command: DispatchCommand, now: datetime) -> AttemptReport:
    """The deadline passed while the request waited: no call, no usage."""
    return answered(command.admitted, expired(command.admitted, command.attempts, now))


def report_cancelled(command: DispatchCommand, now: datetime) -> AttemptReport:
    """Nobody wants the answer any more: no call, no usage."""
    return answered(command.admitted, cancelled(command.admitted, command.attempts, now))


def cut_short(prompt_tokens: int, written: int) -> Failure:
    """A call that was given up because nobody wants its answer; it is billed as far as it came.

    `written` is in bytes of text that had come already; where none came, all may have been written elsewhere.
    """
    tokens = Tokens(prompt_tokens=prompt_tokens, completion_tokens=tokens_of(written)) if written else None
    return Failure(ErrorClass.TERMINAL, "cancelled", CANCELLED, may_be_billed=True, tokens=tokens)


def too_large(answer: Answer) -> Failure:
    """An answer that fits into no record: it is paid for, and another one would be no smaller."""
    message = "The answer is larger than a record may be; ask for less at once."
    return Failure(ErrorClass.TERMINAL, "answer_too_large", message, may_be_billed=True, tokens=answer.tokens)


#: Why a lane passes a request on, for people. Keys are the reasons' codes.
REASONS = {
    "circuit_open": "{provider} has failed repeatedly and is not called for the moment",
    "too_busy": "{provider} is too busy to answer before the deadline",
    "paused": "{provider} is paused by the operator",
    "draining": "{provider} is being drained by the operator",
}


def onward(command: DispatchCommand, reason: str) -> DispatchCommand | None:
    """The command for the provider that it goes to without a call here; None where none is left."""
    here, *others = command.route
    if reason == GONE_BACK:
        again = {"route": (*command.passed_by, here), "passed_by": (), "returns": command.returns + 1}
        return command.model_copy(update={**again, "not_before": None})
    if not others:
        return None
    passed_by = (*command.passed_by, here)
    return command.model_copy(update={"route": tuple(others), "passed_by": passed_by, "not_before": None})


def report_unavailable(command: DispatchCommand, reason: str, now: datetime) -> AttemptReport:
    """The last provider of the route cannot be called, and nothing is left: no call, no usage."""
    told = Error(code=reason, message=REASONS[reason].format(provider=command.provider), retryable=True)
    response = all_failed(command.admitted, command.attempts, now, last=told)
    return answered(command.admitted, response)


def _cost_of(answer: Answer, priced: Decimal | None, estimate: Decimal | None) -> tuple[Decimal, CostSource]:
    if answer.reported_cost is not None:
        return answer.reported_cost, "reported"
    if priced is not None:
        return priced, "estimated" if answer.is_estimated else "computed"
    # An unknown price is an alarm and holds the estimate: never silently nothing.
    return (estimate, "estimated") if estimate is not None else (ZERO, "unpriced")


def _failed_usage(attempt: Attempt, failure: Failure, priced: Decimal | None, now: datetime) -> UsageEvent:
    if failure.may_be_billed:
        return attempt.in_doubt(failure.code, now, failure.tokens, priced if failure.tokens else None)
    return attempt.usage(
        Outcome.FAILED,
        tokens=Tokens(),
        cost=ZERO,
        source="computed",
        ended_at=now,
        error_code=failure.code,
    )


def _next_provider(
    attempt: Attempt, usage: UsageEvent, attempts: tuple[AttemptSummary, ...], now: datetime
) -> AttemptReport:
    command = attempt.command
    if command.admitted.expired(now):
        response = expired(command.admitted, attempts, now)
        return _report(attempt, Follow.ANSWER, usage, response=response)
    if len(command.route) == 1:
        response = all_failed(command.admitted, attempts, now)
        return _report(attempt, Follow.ANSWER, usage, response=response)
    onward = command.model_copy(update={"route": command.route[1:], "attempts": attempts, "not_before": None})
    return _report(attempt, Follow.FORWARD, usage, command=onward)


def _tries_at(provider: str, attempts: tuple[AttemptSummary, ...]) -> int:
    """Those that were made, but for the first ones that only our own words had spoilt."""
    codes = [attempt.error.code if attempt.error else "" for attempt in attempts if attempt.provider == provider]
    made = len(codes) - codes.count(NOT_SENT.code)
    return made - min(codes.count(FIELD_REFUSED), MOST_REWORDINGS)


def _summary(attempt: Attempt, usage: UsageEvent, failure: Failure) -> AttemptSummary:
    return AttemptSummary(
        attempt=attempt.number,
        provider=attempt.command.provider,
        model=attempt.model,
        outcome=usage.outcome,
        error=Error(
            code=failure.code,
            message=failure.message,
            retryable=failure.error_class is ErrorClass.RETRYABLE,
        ),
        latency=usage.latency,
        cost=usage.cost,
    )


def _succeeded(
    attempt: Attempt, answer: Answer, usage: UsageEvent, now: datetime, first_chunk_at: datetime | None
) -> Response:
    command = attempt.command
    tokens = answer.tokens
    spent = sum((earlier.cost for earlier in command.attempts), start=usage.cost)
    done = AttemptSummary.model_construct(
        attempt=attempt.number,
        provider=command.provider,
        model=answer.model,
        outcome=Outcome.SUCCEEDED,
        latency=usage.latency,
        cost=usage.cost,
    )
    return Response.model_construct(
        request_id=command.admitted.request_id,
        workspace_id=command.admitted.workspace_id,
        kind=command.admitted.request.kind,
        status=Status.SUCCEEDED,
        content=answer.content,
        tool_calls=answer.tool_calls,
        citations=answer.citations,
        embeddings=as_wanted(answer.embeddings, command.admitted.request),
        images=answer.images,
        related_questions=answer.related_questions,
        search_results=answer.search_results,
        provider=command.provider,
        model=answer.model,
        finish_reason=answer.finish_reason,
        finish_reason_raw=answer.finish_reason_raw,
        warnings=answer.warnings,
        usage=Usage.model_construct(
            prompt_tokens=tokens.prompt_tokens,
            completion_tokens=tokens.completion_tokens,
            total_tokens=tokens.total_tokens,
            cached_tokens=tokens.cached_tokens,
            cache_write_tokens=tokens.cache_write_tokens,
            reasoning_tokens=tokens.reasoning_tokens,
            search_requests=tokens.search_requests,
            cost=spent,
        ),
        latency=max((now - command.admitted.admitted_at).total_seconds(), 0.0),
        estimated_cost=None if attempt.estimate is None else usd(attempt.estimate),
        time_to_first_chunk=_seconds(attempt.started_at, first_chunk_at) if first_chunk_at else None,
        attempts=(*command.attempts, done),
        metadata=command.admitted.request.metadata,
        user_id=command.admitted.request.user_id,
        purpose=command.admitted.request.purpose,
        requested_at=command.admitted.admitted_at,
        month=command.admitted.month,
        answered_at=now,
    )


def _seconds(begin: datetime, end: datetime) -> float:
    return max((end - begin).total_seconds(), 0.0)


def _report(
    attempt: Attempt,
    follow: Follow,
    usage: UsageEvent,
    *,
    response: Response | None = None,
    command: DispatchCommand | None = None,
) -> AttemptReport:
    admitted = attempt.command.admitted
    return AttemptReport.model_construct(
        request_id=admitted.request_id,
        workspace_id=admitted.workspace_id,
        follow=follow,
        usage=usage,
        response=response,
        command=command,
        reply=admitted.reply,
        traceparent=admitted.traceparent,
    )
