"""What an audit says of a period: nothing where all agrees, and each fault by its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.compare import Judge
from app.audit.facts import Answered, BudgetSaid, MonthSum, Requested, Told, Used
from app.audit.findings import SAYS, Kind
from tests.unit.audit.world import (
    DOUBT,
    END,
    NOW,
    PATIENCE,
    START,
    Fact,
    Story,
    World,
    answered,
    books_of,
    judged,
    outcome,
    requested,
    row,
    scope,
    stories,
    used,
)

WELL = World()
WELL.live("w/well", Story((5, 7), (True, False, False), True, True, True))
CALM: list[Fact] = WELL.facts


def kinds(facts: list[Fact], **fields: Any) -> dict[str, int]:
    return {kind.value: count for kind, count in judged([*CALM, *facts], **fields).findings.counts.items()}


@given(st.lists(stories, max_size=8), st.randoms(), st.integers(1, 5))
def test_where_all_agrees_nothing_is_found_in_any_order_and_in_any_number_of_rounds(
    told: list[Story], dice: Any, shares: int
) -> None:
    world = World()
    for number, story in enumerate(told):
        world.live(f"w/r{number}", story)
    whole = judged(world.facts)
    dice.shuffle(world.facts)
    parts = judged(world.facts, shares=shares)
    assert whole.findings.clean, whole.findings
    assert parts.findings.clean, parts.findings
    assert parts.figures.counts == whole.figures.counts
    assert parts.in_ledger == whole.in_ledger == whole.in_usage
    assert whole.figures.counts["requests"] == len(told)
    assert whole.figures.counts["repeats_dropped"] == sum(story.repeated for story in told)
    assert whole.figures.costs["rows"] == sum(sum(story.costs) for story in told)


@given(st.lists(stories, min_size=1, max_size=6), st.data())
def test_whatever_is_taken_away_is_missed(told: list[Story], data: st.DataObject) -> None:
    world = World()
    for number, story in enumerate(told):
        world.live(f"w/r{number}", story)
    lost = data.draw(st.sampled_from(world.facts))
    left = [fact for fact in world.facts if fact != lost]
    # A request is its own witness, and a doubt that was resolved has no other.
    needed = not isinstance(lost, Requested) and not (isinstance(lost, Used) and not lost.known)
    assert judged(left).findings.clean is not needed


SEEN = used()
FAULTS: dict[str, list[Fact]] = {
    Kind.REQUEST_WITHOUT_RESPONSE: [requested()],
    Kind.ATTEMPT_WITHOUT_USAGE: [answered("w/r", 5), outcome(answered("w/r", 5))],
    Kind.USAGE_WITHOUT_ROW: [SEEN],
    Kind.ROW_WITHOUT_USAGE: [row(SEEN)],
    Kind.RESPONSE_WITHOUT_OUTCOME: [answered()],
    Kind.OUTCOME_WITHOUT_RESPONSE: [outcome(answered())],
    Kind.CONTRADICTION: [answered(), answered(meaning=8), outcome(answered())],
    Kind.ROW_DOUBLED: [SEEN, row(SEEN), row(SEEN)],
    Kind.OUTCOME_DOUBLED: [answered(), outcome(answered()), outcome(answered(), at=START + 1)],
    Kind.USAGE_DISAGREES: [SEEN, used(cost=6), row(used(cost=6))],
    Kind.ROW_DIFFERS: [used(cost=6), row(SEEN)],
    Kind.OUTCOME_DIFFERS: [answered(), outcome(answered(), status="failed")],
    Kind.RESPONSE_SUM: [answered("w/r", 5, cost=4), SEEN, row(SEEN), outcome(answered("w/r", 5, cost=4))],
    Kind.RESPONSE_USAGE: [answered("w/r", 4), SEEN, row(SEEN), outcome(answered("w/r", 4))],
    Kind.UNPRICED: [SEEN, row(SEEN, unpriced=True)],
}
#: These change a sum as well.
SUMS = (Kind.USAGE_WITHOUT_ROW, Kind.ROW_WITHOUT_USAGE, Kind.ROW_DOUBLED, Kind.ROW_DIFFERS)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_found_by_its_name_and_nothing_else(kind: str) -> None:
    sums = {Kind.MONTH_DIFFERS.value: 1} if kind in SUMS else {}
    assert kinds(FAULTS[kind]) == {kind: 1, **sums}


def test_every_fault_has_words_for_people() -> None:
    assert SAYS.keys() == set(Kind)
    assert set(FAULTS) == set(Kind) - {
        Kind.MONTH_DIFFERS,
        Kind.BUDGET_DIFFERS,
        Kind.RESERVATION_LEFT,
        Kind.RECORDS_GONE,
    }


def test_a_sum_that_disagrees_says_by_how_much() -> None:
    found = judged(FAULTS[Kind.ROW_DIFFERS]).findings
    assert found.amounts[Kind.MONTH_DIFFERS] == -1
    assert found.examples[Kind.MONTH_DIFFERS][0].detail == "ledger $0.000000005, usage $0.000000006"


@pytest.mark.parametrize(
    ("facts", "counted"),
    [
        ([requested(due=NOW - PATIENCE + 1)], "requests_open"),
        ([requested(waits=True)], "requests_open"),
        ([requested(home=False), requested(waits=True)], "requests_open"),
        ([answered(waits=True)], "responses_waiting"),
        ([used(waits=True)], "usage_waiting"),
        ([row(SEEN, fresh=True)], "rows_too_new"),
        ([SEEN, row(used(cost=6), fresh=True)], "rows_too_new"),
    ],
)
def test_what_is_still_on_its_way_is_counted_and_no_fault(facts: list[Fact], counted: str) -> None:
    verdict = judged(facts)
    assert verdict.findings.clean
    assert verdict.figures.counts[counted] == 1
    assert verdict.moving["w"] == 1


@pytest.mark.parametrize(
    "facts",
    [
        [*[requested(refused=True)] * 2, *[answered(status="rejected", meaning=n) for n in (1, 2)]],
        [requested(refused=True), requested(), answered(status="rejected", meaning=1), answered(meaning=2)],
        [answered(), answered()],
        [used(cost=9, rank=DOUBT), SEEN, row(SEEN)],
        [used(cost=9, rank=DOUBT), used(waits=True), row(used(cost=9, rank=DOUBT))],
        [used(waits=True), row(SEEN)],
        [answered("w/r", 9), used(cost=9, rank=DOUBT), SEEN, row(SEEN)],
        [answered("w/r", cost=9, attempts=(Told(1, 9, in_doubt=True),)), SEEN, row(SEEN)],
        [answered("w/r", cost=5, cached=True)],
        [answered("w/r", 5, asked=START - 2)],
        [answered("w/r", 5, at=NOW - 1)],
    ],
    ids=[
        "two records that are no requests, each refused",
        "one that is none, and one that is",
        "a response delivered twice",
        "a doubt that was resolved",
        "a better repeat that is not read yet",
        "a row whose acknowledgement is not written yet",
        "a response that was given while an attempt was in doubt",
        "a response that says in doubt what settlement knew",
        "an answer of the cache",
        "an attempt from before reading began",
        "a response from after the period",
    ],
)
def test_what_looks_strange_and_is_none(facts: list[Fact]) -> None:
    answers = [fact for fact in facts if isinstance(fact, Answered)]
    assert kinds([*facts, *map(outcome, answers[:1])]) == {}


def test_a_request_that_repeats_one_from_before_the_period_is_no_lost_one() -> None:
    books = books_of([requested()])
    assert list(books.unanswered()) == ["w/r"]
    books.answered_before("w/r")
    judge = Judge(scope())
    judge.judge(books)
    assert judge.verdict.findings.clean


@pytest.mark.parametrize(
    ("facts", "counted"),
    [
        ([requested()], "requests_not_compared"),
        ([outcome(answered())], "outcomes_not_compared"),
        ([row(SEEN)], "rows_not_compared"),
        ([used(cost=3), row(SEEN)], "rows_not_compared"),
    ],
)
def test_what_retention_has_removed_is_not_called_missing(facts: list[Fact], counted: str) -> None:
    verdict = judged(facts, responses_since=lambda _: END, usage_since=lambda _: END)
    assert verdict.findings.clean
    assert verdict.figures.counts[counted] == 1


def test_attempts_in_doubt_and_corrections_are_told_with_their_money() -> None:
    doubt, right = used("w/a", cost=9, rank=DOUBT), used("w/b", cost=2, original=5, corrected=True)
    verdict = judged([doubt, row(doubt), used("w/b"), right._replace(version=SEEN.version + 10**18), row(right)])
    assert verdict.figures.counts["in_doubt"] == 1
    assert verdict.figures.costs["in_doubt"] == 9
    assert verdict.figures.costs["corrected"] == -3


def test_a_call_that_was_taken_for_lost_and_is_in_doubt_for_its_own_reasons_is_no_disagreement() -> None:
    lost, cut_off = used(cost=9, rank=DOUBT, supposed=True), used(cost=2, rank=DOUBT)
    assert judged([*CALM, lost, cut_off, row(lost)]).findings.counts.get(Kind.USAGE_DISAGREES) is None
    assert judged([*CALM, cut_off, used(cost=3, rank=DOUBT), row(cut_off)]).findings.counts[Kind.USAGE_DISAGREES] == 1


def state(**fields: int) -> BudgetSaid:
    given = {"spent": 10, "reserved": 0, "open_requests": 0, "at": START, **fields}
    return BudgetSaid("w", "2026-11", **given)


def month(**fields: int) -> dict[tuple[str, str], MonthSum]:
    return {
        ("w", "2026-11"): MonthSum("w", "2026-11", **{"cost": 10, "corrections": 0, "last_change": START, **fields})
    }


@pytest.mark.parametrize(
    ("said", "sums", "found"),
    [
        (state(), month(), None),
        (state(), month(cost=7, corrections=-3), None),
        (state(spent=0), {}, None),
        (state(spent=11), month(), Kind.BUDGET_DIFFERS),
        (state(), month(cost=7), Kind.BUDGET_DIFFERS),
        (state(), {}, Kind.BUDGET_DIFFERS),
        (state(reserved=1), month(), Kind.RESERVATION_LEFT),
        (state(open_requests=1), month(), Kind.RESERVATION_LEFT),
        (state(spent=11, at=NOW - PATIENCE + 1), month(), None),
        (state(spent=11), month(last_change=NOW), None),
    ],
)
def test_a_budget_has_counted_what_the_ledger_has_without_its_corrections(
    said: BudgetSaid, sums: dict[tuple[str, str], MonthSum], found: Kind | None
) -> None:
    judge = Judge(scope())
    judge.budgets([said], sums)
    assert list(judge.verdict.findings.counts) == ([found] if found else [])


def test_a_budget_is_not_compared_while_a_request_is_open() -> None:
    judge = Judge(scope())
    judge.verdict.moving["w"] = 1
    judge.budgets([state(spent=11, reserved=5)], month())
    assert judge.verdict.findings.clean
    assert judge.verdict.figures.counts["budgets_moving"] == 1
