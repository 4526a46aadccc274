"""bench/chaos.py: each check finds what it is there for, in small rounds made by hand, and nothing else."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from bench.chaos_parts import checks
from bench.chaos_parts.checks import CHECKS, UNNAMED, logs, not_the_ledger, silences
from bench.chaos_parts.facts import End, Excuses, Facts, calls_of, rows_of
from bench.chaos_parts.load import Sent
from bench.chaos_parts.names import ALERTING, CHANGELOG, OWNER_ROW, REPLIES, TIGHT, cost
from bench.chaos_parts.stack import Limits
from tests.unit.bench.chaos_journal import (
    CONTENT,
    MONTH,
    PRICE,
    T,
    account,
    asked,
    call,
    event,
    facts,
    piece,
    record,
    response,
    row,
    rows,
    state,
)

KILL = event("kill", T + 1.5, worker=1)


def wrong(found: Facts) -> dict[str, int | str]:
    """What is wrong by any of the checks."""
    told: dict[str, int | str] = {}
    for check in CHECKS.values():
        told |= {word: count for word, count in check(found).wrong.items() if count}
    return told


def test_nothing_is_wrong_with_a_round_in_which_all_is_well() -> None:
    assert wrong(facts()) == {}


def test_each_word_belongs_to_one_check_and_is_explained() -> None:
    words = [word for check in CHECKS.values() for word in check(facts()).wrong]
    assert len(words) == len(set(words))
    assert set(words) <= set(re.findall(r"\w+", checks.__doc__ or ""))


# Answers --------------------------------------------------------------------------------------------------------------


def test_a_request_without_an_answer_is_lost_and_one_that_was_never_in_the_topic_is_not() -> None:
    both = {**asked(), **asked("r-2")}
    assert wrong(facts({"ai.responses": []})) == {"lost": 1}
    assert wrong(facts(asked=both)) == {}


@pytest.mark.parametrize(
    "second",
    [
        response(status="expired"),
        response(content=CONTENT.replace("stone", "cloud")),
        response(usage={"cost": "0.1"}),
        record(response().json(), ce_id=b"another"),
    ],
)
def test_two_answers_must_say_the_same_under_the_same_id(second: Any) -> None:
    assert wrong(facts({"ai.responses": [response(), second]})) == {"contradict": 1}


def test_the_same_answer_may_come_again() -> None:
    assert wrong(facts({"ai.responses": [response(), response()]})) == {}


@pytest.mark.parametrize("content", ["A[r-1] river END2", "A[r-2] river stone END2", "A[r-1] river stone", ""])
def test_an_answer_must_be_whole_and_the_answer_to_its_prompt(content: str) -> None:
    assert wrong(facts({"ai.responses": [response(content=content)]})) == {"content": 1}


def test_only_a_request_with_a_deadline_of_its_own_expires() -> None:
    expired = {"ai.responses": [response(status="expired", at=T + 5)]}
    assert wrong(facts(expired)) == {"expired": 1}
    assert wrong(facts(expired, asked=asked(deadline=T + 4))) == {}


# Calls ----------------------------------------------------------------------------------------------------------------


def test_an_attempt_is_called_once() -> None:
    again = call(number=2, at=T + 1.1, end=None, worker="w2")
    assert wrong(facts(calls=[call(), again])) == {"twice": 1}


def test_each_call_has_one_row() -> None:
    assert wrong(facts(rows={}))["norow"] == 1
    assert wrong(facts(rows={"r-1/1": [row(), row()]})) == {"rowdouble": 1}


def test_a_row_costs_what_the_provider_has_billed() -> None:
    assert wrong(facts(rows=rows(row(cost=PRICE * 2))))["cost"] == 1
    assert wrong(facts(rows=rows(row(outcome="failed"))))["cost"] == 1
    assert wrong(facts(calls=[call(end=End(T + 2, "cutbody", 10, 6))]))["cost"] == 1


def test_a_call_that_was_answered_is_in_doubt_only_where_something_has_happened() -> None:
    doubt = rows(row(outcome="in_doubt"))
    assert wrong(facts(rows=doubt)) == {"doubt_unexcused": 1}
    assert wrong(facts(rows=doubt, events=[KILL])) == {}
    assert wrong(facts(rows=doubt, calls=[call(end=End(T + 2, "cut"))])) == {}
    for cancelled_at, found in ((T + 1.3, {}), (T - 0.5, {"doubt_unexcused": 1})):
        cancelled = [response(status="failed", at=T + 1.6)]
        told = wrong(facts({"ai.responses": cancelled}, rows=doubt, asked=asked(cancelled_at=cancelled_at)))
        assert told == found, "it crossed the answer, or came long before"


def test_a_row_without_a_call_costs_nothing_unless_it_is_in_doubt() -> None:
    assert wrong(facts(calls=[], rows=rows(row(outcome="failed")))) == {"nocall_paid": 1}
    assert wrong(facts(calls=[], rows=rows(row(outcome="in_doubt")))) == {}


def test_a_request_is_paid_again_only_where_something_has_happened_and_its_answer_is_not_known() -> None:
    later = call("r-1/2", at=T + 4, end=End(T + 5, "ok", 10, 6), number=2, worker="w2")
    known, doubt = rows(row(), row("r-1/2")), rows(row(outcome="in_doubt"), row("r-1/2"))
    paid_twice: Any = {
        "topics": {
            "ai.budget.state": [state(PRICE * 2)],
            CHANGELOG: [account(PRICE * 2)],
            "ai.responses": [response(attempts=[{"attempt": 2}])],
        },
        "calls": [call(), later],
    }
    assert wrong(facts(**paid_twice, rows=known)) == {"repeat_unexcused": 1, "paid_again_though_known": 1}
    assert wrong(facts(**paid_twice, rows=known, events=[KILL])) == {"paid_again_though_known": 1}
    assert wrong(facts(**paid_twice, rows=doubt, events=[KILL])) == {}
    freeze = event("freeze", T + 1.5, worker=1, seconds=12.0)
    assert wrong(facts(**paid_twice, rows=known, events=[freeze])) == {}, "it may report what it knows when it wakes"
    assert wrong(facts(**paid_twice, rows=known, events=[KILL, freeze])) == {}, "whatever else happened to it"


# Money ----------------------------------------------------------------------------------------------------------------


def test_an_account_is_the_ledger_by_its_newest_word() -> None:
    assert wrong(facts({"ai.budget.state": []})) == {"differs": 1}
    assert wrong(facts({"ai.budget.state": [state(at="2"), state(Decimal(1), at="1")]})) == {}
    assert wrong(facts({"ai.budget.state": [state(), state(Decimal(1), at="2")]})) == {"differs": 1}


def test_nothing_stays_reserved() -> None:
    assert wrong(facts({"ai.budget.state": [state(reserved="0.1")]})) == {"reserved": 1}


def test_a_budget_that_refuses_is_not_passed_and_its_thresholds_are_told() -> None:
    workspace = "tight0"
    assert TIGHT[workspace] == "0.004"
    bill = cost("claude", 10, 1_000)
    told = [record({}, ce_id=f"{workspace}/{MONTH}/{threshold}".encode()) for threshold in (50, 80, 90, 100)]
    topics = {"ai.budget.state": [state(bill, workspace=workspace)], CHANGELOG: [], "ai.budget.alerts": told}
    spent: Any = {
        "asked": asked(workspace=workspace),
        "calls": [call(end=End(T + 2, "ok", 10, 1_000))],
        "rows": rows(row(cost=bill, workspace=workspace)),
    }
    assert wrong(facts(topics, **spent)) == {"over": 1}
    assert wrong(facts({**topics, "ai.budget.alerts": told[:3]}, **spent)) == {"over": 1, "alerts_missing": 1}


def test_a_budget_that_only_tells_may_be_passed() -> None:
    bill = cost("claude", 10, 5_000)
    spent: Any = {
        "asked": asked(workspace="al0"),
        "calls": [call(end=End(T + 2, "ok", 10, 5_000))],
        "rows": rows(row(cost=bill, workspace="al0")),
    }
    assert bill > Decimal(ALERTING["al0"])
    assert wrong(facts({"ai.budget.state": [state(bill, workspace="al0")], CHANGELOG: []}, **spent)) == {
        "alerts_missing": 1
    }


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ([account(), account(offset=1, place=(4, 1))], "cl_back"),
        ([account(), account(offset=1, place=(5, 0))], "cl_back"),
        ([account(), account(Decimal(1), offset=1)], "cl_differs"),
        ([account(reserved=7)], "cl_differs"),
    ],
)
def test_rows_of_accounts_never_go_back_and_the_last_is_the_ledger(found: list[Any], word: str) -> None:
    assert wrong(facts({CHANGELOG: found})) == {word: 1}


def test_a_request_that_was_closed_stays_closed() -> None:
    steps = [{"v": 1}, {"v": 1, "c": 3}, {"v": 1}, {"v": 1, "c": 4}]
    table = [record(step, key="w0/r-1", offset=number) for number, step in enumerate(steps)]
    assert wrong(facts({CHANGELOG: [account(), *table]})) == {}
    assert wrong(facts({CHANGELOG: [account(), *table[:3]]})) == {"cl_open": 1}


@pytest.mark.parametrize("value", [{"name": "w1-7", "epoch": 3}, {"v": 1, "c": 1, "o": 7}, None])
def test_the_row_of_a_partitions_owner_is_no_request_and_no_account(value: dict[str, Any] | None) -> None:
    owners = [record(value, key=OWNER_ROW, offset=number) for number in (1, 2)]
    assert wrong(facts({CHANGELOG: [account(), *owners]})) == {}
    closed = [record({"v": 1, "c": 1}, key=OWNER_ROW, offset=3), record({"v": 1}, key=OWNER_ROW, offset=4)]
    assert wrong(facts({CHANGELOG: [account(), *closed]})) == {}


def test_tables_that_were_made_anew_are_the_ledger() -> None:
    ledger = {("w0", MONTH): Decimal(3)}
    held: dict[str, Any] = {"spent": "3", "reserved": "0", "open_requests": 0}
    assert not_the_ledger({("w0", MONTH): held}, ledger) == []
    assert len(not_the_ledger({("w0", MONTH): {**held, "spent": "2"}}, ledger)) == 1
    assert len(not_the_ledger({("w0", MONTH): {**held, "reserved": "1"}}, ledger)) == 1
    assert len(not_the_ledger({("w1", MONTH): held}, ledger)) == 1


# Quotas ---------------------------------------------------------------------------------------------------------------


def openai(count: int, at: float, first: int = 0) -> list[Any]:
    """So many calls, half a second apart, that were refused."""
    return [
        call(f"q-{n}/1", at=at + (n - first) / 2, end=End(at, "500"), number=n, provider="openai")
        for n in range(first, first + count)
    ]


def quota(**more: Any) -> Mapping[str, int | str]:
    return CHECKS["quota"](facts(**more)).wrong


def test_no_minute_has_more_requests_than_the_limit_allows() -> None:
    limits = Limits(rpm=60)
    assert quota(calls=openai(60, T), limits=limits)["rpm_over"] == 0
    assert quota(calls=openai(63, T), limits=limits)["rpm_over"] == 3
    assert quota(calls=openai(60, T) + openai(60, T + 60, first=60), limits=limits)["rpm_over"] == 0


def test_a_minute_in_which_the_limit_changed_may_have_the_higher_one() -> None:
    lower, higher = (event("limits", T + 5, rpm=rpm, code=0) for rpm in (30, 90))
    assert quota(calls=openai(60, T), limits=Limits(rpm=60), events=[lower])["rpm_over"] == 0
    assert quota(calls=openai(60, T + 80), limits=Limits(rpm=60), events=[lower])["rpm_over"] == 30
    assert quota(calls=openai(90, T + 6), limits=Limits(rpm=60), events=[higher])["rpm_over"] == 0
    refused = {**higher, "code": 1}
    assert quota(calls=openai(90, T + 6), limits=Limits(rpm=60), events=[refused])["rpm_over"] == 30
    back = event("restored", T + 20)
    assert quota(calls=openai(90, T + 90), limits=Limits(rpm=60), events=[higher, back])["rpm_over"] == 30


def test_no_minute_has_more_tokens_than_the_limit_allows_but_those_of_one_that_goes_alone() -> None:
    def local(count: int, tokens: int) -> list[Any]:
        end = End(T, "ok", tokens - 6, 6)
        return [call(f"t-{n}/1", at=T + n, end=end, number=n, provider="local") for n in range(count)]

    assert quota(calls=local(10, 100), limits=Limits(tpm=1_000))["tpm_over"] == 0
    assert quota(calls=local(12, 100), limits=Limits(tpm=1_000))["tpm_over"] == 2
    assert quota(calls=local(3, 900), limits=Limits(tpm=1_000))["tpm_over"] == 0


# Streams --------------------------------------------------------------------------------------------------------------

FINAL = record({"request_id": "r-1"}, offset=90, ce_type=b"ai.response")
HALVES = [piece(0, CONTENT[:9]), piece(1, CONTENT[9:], offset=1)]


def stream(*replies: Any, **body: Any) -> dict[str, int | str]:
    return wrong(facts({REPLIES: [*replies], "ai.responses": [response(**body)]}, asked=asked(stream=True)))


def test_the_pieces_of_a_stream_are_the_answer_and_may_come_again() -> None:
    assert stream(*HALVES, FINAL) == {}
    assert stream(*HALVES, piece(1, CONTENT[9:], offset=2), FINAL) == {}


def test_pieces_come_in_their_order_each_index_once() -> None:
    assert stream(piece(1, CONTENT[9:]), piece(0, CONTENT[:9], offset=1), FINAL) == {"disorder": 1}
    assert stream(*HALVES, piece(1, "something else", offset=2), FINAL) == {"disorder": 1}
    assert stream(HALVES[0], piece(2, CONTENT[9:], offset=1), FINAL) == {"disorder": 1}


def test_pieces_that_are_not_the_answer_or_come_after_it_are_found() -> None:
    assert stream(HALVES[0], FINAL) == {"mismatch": 1}
    assert stream(FINAL) == {"mismatch": 1}
    assert stream(*HALVES, piece(0, "late", attempt=2, offset=5), FINAL) == {"mismatch": 1}
    first = [
        piece(0, "broken off", offset=10),
        *[piece(n, CONTENT[n * 9 :][: 9 if not n else None], 2, 20 + n) for n in (0, 1)],
    ]
    two = {"attempts": [{"attempt": 1}, {"attempt": 2}]}
    assert stream(*first, FINAL, **two) == {}


def test_an_answer_that_was_kept_may_come_without_pieces_but_not_with_others() -> None:
    assert stream(FINAL, cached=True) == {}
    assert stream(*HALVES, FINAL, cached=True) == {}
    assert stream(piece(0, "another"), FINAL, cached=True) == {"mismatch": 1}


def test_a_stream_has_a_final_reply() -> None:
    assert stream(*HALVES) == {"noreply": 1}


# Cancellations and deadlines ------------------------------------------------------------------------------------------


def test_after_a_cancellation_nobody_is_called_and_nothing_succeeds() -> None:
    assert wrong(facts(asked=asked(cancelled_at=T - 0.5))) == {}, "it crossed them"
    assert wrong(facts(asked=asked(cancelled_at=T - 5))) == {"cancel_calls": 1, "cancel_succ": 1}
    late = {"ai.responses": [response(at=T + 8)]}
    assert wrong(facts(late, asked=asked(cancelled_at=T + 1.2))) == {"cancel_succ": 1}
    freeze = event("freeze", T + 1.6, worker=1, seconds=6.0)
    assert wrong(facts(late, asked=asked(cancelled_at=T + 1.2), events=[freeze])) == {}, "it had the answer already"


def test_after_a_deadline_nobody_is_called_and_nothing_succeeds() -> None:
    assert wrong(facts(asked=asked(deadline=T + 1.8))) == {}
    assert wrong(facts(asked=asked(deadline=T + 1.2))) == {"dl_succ": 1}
    assert wrong(facts(asked=asked(deadline=T + 0.5))) == {"dl_calls": 1, "dl_succ": 1}


def test_an_answer_is_not_much_later_than_its_deadline() -> None:
    for after, found in ((60.0, {}), (70.0, {"late": 1})):
        expired = [response(status="expired", at=T + 4 + after)]
        assert wrong(facts({"ai.responses": expired}, asked=asked(deadline=T + 4))) == found


# Hostile records ------------------------------------------------------------------------------------------------------


def letter(reason: bytes = b"spillway.not_json") -> Any:
    body = record(None)
    headers = {
        "kafka_dlt-original-topic": b"ai.requests",
        "kafka_dlt-original-partition": (0).to_bytes(4, "big"),
        "kafka_dlt-original-offset": (7).to_bytes(8, "big"),
        "kafka_dlt-exception-fqcn": reason,
        "kafka_dlt-exception-message": b"why",
    }
    return type(body)(0, 0, body.timestamp, None, b"\xff", tuple(headers.items()))


def test_a_hostile_record_has_a_letter_or_an_answer() -> None:
    sent = [Sent("notjson", 0, 7)]
    there = [*facts().topic("ai.requests"), record({}, offset=7)]
    identity = str(uuid.uuid5(UNNAMED, f"ai.requests/0/7/{round(T * 1000)}"))
    answered = [response(), response(identity, "rejected")]
    assert wrong(facts({"ai.requests": there}, hostile=sent)) == {"hostile": 1}
    assert wrong(facts({"ai.requests": there, "ai.dead-letters": [letter()]}, hostile=sent)) == {}
    assert wrong(facts({"ai.requests": there, "ai.responses": answered}, hostile=sent)) == {}


def test_a_letter_blames_no_record_for_a_fault_of_ours_and_nothing_is_left_unread() -> None:
    assert wrong(facts({"ai.dead-letters": [letter(b"spillway.internal_error")]})) == {"internal": 1}
    assert wrong(facts(behind={"spillway:ai.requests/0": 3})) == {"lag": 1}


# Logs, journals, events -----------------------------------------------------------------------------------------------


def test_logs_are_searched_for_tracebacks_and_lost_exceptions() -> None:
    told = json.dumps({"level": "error", "logger": "a.b", "event": "it failed 3 times"})
    found = logs({"w1": f"{told}\nTraceback (most recent call last):\n", "w2": "Task exception was never retrieved\n"})
    assert found.wrong == {"tracebacks": 1, "never": 1}
    assert found.figures["w1"]["told"] == {"erro b: it failed # times": 1}


def test_calls_are_read_from_the_journal() -> None:
    start = {"event": "start", "provider": "claude", "worker": "w1", "plan": "ok"}
    lines = [
        {"t": 1.0, "event": "up", "provider": "claude"},
        {**start, "t": 2.0, "call": 1, "attempt": "r-1/1"},
        {**start, "t": 2.5, "call": 2, "attempt": "r-2/1"},
        {"t": 3.0, "event": "end", "call": 1, "how": "ok", "prompt_tokens": 10, "completion_tokens": 6},
        {"t": 3.5, "event": "cut", "call": 2, "how": "waiting"},
        {**start, "t": 4.0, "call": 3, "attempt": "r-3/1"},
    ]
    first, second, third = calls_of(json.dumps(line) for line in lines)
    assert (first.attempt, first.at, first.answer, first.price) == ("r-1/1", 2.0, End(3.0, "ok", 10, 6), PRICE)
    assert (second.answer, second.how) == (None, "waiting")
    assert (third.end, third.tokens) == (None, 0)


def test_rows_are_kept_by_their_attempt() -> None:
    told = {"workspace_id": "w0", "request_id": "r-1", "attempt": 1, "outcome": "succeeded", "error_code": None}
    assert rows_of([{**told, "cost": str(PRICE), "budget_month": MONTH}] * 2) == {"r-1/1": [row(), row()]}


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], None),
        ([event("kill", T, worker=1)], "kill"),
        ([event("kill_early", T, worker=1)], "kill"),
        ([event("freeze", T - 20, worker=1, seconds=6.0)], "freeze"),
        ([event("freeze", T - 50, worker=1, seconds=6.0)], None),
        ([event("term", T - 40, worker=1)], "term"),
        ([event("broker_kill", T - 40)], "broker"),
        ([event("broker_freeze", T - 60, seconds=30.0)], "broker"),
        ([event("kill", T, worker=2)], "other-kill"),
        ([event("kill", T, worker=2), event("broker_kill", T)], "broker"),
        ([event("clickhouse_kill", T), event("provider_down", T), event("limits", T)], None),
    ],
)
def test_what_happened_to_a_worker_explains_what_went_wrong(events: list[dict[str, Any]], why: str | None) -> None:
    assert Excuses(events).why("w1", T, T + 1) == why


def test_after_a_fault_the_longest_silence_of_a_partition_is_told() -> None:
    answers = [response(at=T + after) for after in (-1, 1, 2, 9, 10)]
    others = [type(one)(1, one.offset, one.timestamp, one.key, one.value) for one in answers[:3]]
    [found] = silences(facts({"ai.responses": [*answers, *others]}, events=[KILL, event("limits", T)]))
    assert (found["event"], found["silence"]) == ("kill", 7.0)
