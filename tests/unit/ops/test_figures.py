"""What is counted, what is read at a scrape, and how many series there can be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import MOST_CODES, MOST_MODELS, OTHER, Few, MeteredLedger, PrometheusMetrics
from app.ops.backlog import behind
from app.ops.gauges import Gauges, Sources
from app.ops.months import OTHERS, Months
from app.providers.availability import Standing
from app.settings import load_settings
from schemas.control import LaneState, LimitState, Mode
from schemas.response import Error, Response, Status
from schemas.usage import Outcome
from streams.account.ports import LedgerUnavailableError
from streams.accounts import Account
from streams.budgets import Budget, BudgetBook
from streams.metrics import Once
from tests.support.values.usage import usage

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
GIGA = 10**9


def board(most: int = 50, owned: tuple[int, ...] = (0, 1)) -> Months:
    return Months(BudgetBook(Budget(Decimal(10))), lambda: owned, lambda: NOW, most)


def response(request_id: str, status: Status = Status.SUCCEEDED, **fields: object) -> Response:
    values = {"provider": "claude", "latency": 0.3, "answered_at": NOW, **fields}
    return Response(request_id=request_id, workspace_id="acme", status=status, **values)


class Counted:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = PrometheusMetrics(self.registry, board())

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def series(self, name: str) -> int:
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        return sum(sample.name == name for family in families for sample in family.samples)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_a_response_is_counted_once_however_often_it_is_sent(counted: Counted) -> None:
    for answer in (response("r-1"), response("r-1"), response("r-2", cached=True, saved=Decimal("0.25"))):
        counted.metrics.answered(answer)
    labels = {"kind": "completion", "provider": "claude", "status": "succeeded"}
    assert counted("ai_requests_total", cached="false", **labels) == 1
    assert counted("ai_requests_total", cached="true", **labels) == 1
    assert counted("ai_request_duration_seconds_count", **labels) == 2
    assert counted("ai_request_duration_seconds_bucket", le="0.25", **labels) == 0
    assert counted("ai_saved_usd_total") == 0.25


def test_a_failure_is_counted_by_its_code_and_without_a_provider_where_none_answered(counted: Counted) -> None:
    error = Error(code="all_providers_failed", message="All AI providers failed.")
    counted.metrics.answered(response("r-1", Status.FAILED, provider=None, error=error))
    assert counted("ai_errors_total", stage="request", provider="none", code="all_providers_failed") == 1


def test_the_first_word_on_an_attempt_counts_and_what_is_known_later_of_a_doubt_does_not(counted: Counted) -> None:
    doubt = usage(outcome=Outcome.IN_DOUBT, cost=Decimal("0.04"))
    counted.metrics.attempted(doubt)
    counted.metrics.attempted(doubt.model_copy(update={"outcome": Outcome.SUCCEEDED, "cost": Decimal("0.01")}))
    assert counted("ai_cost_usd_total", provider="openai", model="gpt-4o") == 0.04
    assert counted("ai_attempts_total", provider="openai", outcome="in_doubt") == 1
    assert counted("ai_attempts_total", provider="openai", outcome="succeeded") is None
    assert counted("ai_errors_total", stage="attempt", provider="openai", code="in_doubt") == 1


def test_models_and_codes_beyond_a_number_are_one_series(counted: Counted) -> None:
    for number in range(MOST_MODELS + 50):
        counted.metrics.attempted(usage(model=f"model-{number}"))
        counted.metrics.buried(f"code_{number}")
    assert counted.series("ai_cost_usd_total") == MOST_MODELS + 1
    assert counted("ai_cost_usd_total", provider="openai", model=OTHER) == pytest.approx(0.5)
    assert counted.series("ai_dead_letters_total") == MOST_CODES + 1


def test_no_label_holds_a_request_a_user_or_a_text(counted: Counted) -> None:
    marks = {"request_id": "mark-request", "user_id": "mark-user", "purpose": "mark-purpose"}
    counted.metrics.attempted(usage(workspace="mark-workspace", **marks))
    error = Error(code="invalid_request", message="mark-message")
    answer = response("mark-request", Status.REJECTED, error=error, content="mark-content", metadata={"a": "mark-m"})
    counted.metrics.answered(answer)
    assert b"mark-" not in generate_latest(counted.registry)


@given(st.lists(st.integers(0, 30)), st.integers(1, 10))
def test_once_knows_the_newest_names_and_forgets_no_younger_one_first(names: list[int], remembered: int) -> None:
    once, model = Once(remembered), list[int]()
    for name in names:
        assert once.is_new("attempt", name) == (name not in model)
        if name not in model:
            model = [*model, name][-remembered:]


@given(st.lists(st.text(max_size=3)), st.integers(0, 5))
def test_few_names_are_never_more_than_few(values: list[str], most: int) -> None:
    few = Few(most)
    assert len({few.name(value) for value in values} - {OTHER}) <= most


def test_the_workspaces_nearest_to_the_end_of_their_budget_are_named_and_the_others_are_a_sum() -> None:
    months = board(most=2)
    for name, spent, reserved in (("a", 1, 0), ("b", 2, 9), ("c", 10, 0), ("d", 3, 1)):
        months.hear(name, "2026-11", Account(spent=spent * GIGA, reserved=reserved * GIGA), 0)
    found = months.overview()
    assert [one.workspace_id for one in found.named] == ["b", "c"]
    assert (found.others_spent, found.others_reserved) == (Decimal(4), Decimal(1))
    assert (found.workspaces, found.over) == (4, 1)


def test_months_that_are_over_and_partitions_of_others_are_not_told_of() -> None:
    months = board(owned=(1,))
    months.hear("new", "2026-11", Account(spent=GIGA), 1)
    months.hear("new", "2026-10", Account(spent=5 * GIGA), 1)
    months.hear("old", "2026-10", Account(spent=GIGA), 1)
    months.hear("elsewhere", "2026-11", Account(spent=GIGA), 2)
    assert [(one.workspace_id, one.spent) for one in months.overview().named] == [("new", Decimal(1))]


def gauges(**sources: object) -> CollectorRegistry:
    nothing = Sources(list, dict, board().overview, dict, lambda: 0)
    registry = CollectorRegistry()
    registry.register(Gauges(replace(nothing, **sources)))  # type: ignore[arg-type]
    return registry


def test_a_lane_tells_what_waits_what_it_spent_and_how_its_breaker_stands() -> None:
    state = LaneState(
        lane="claude/0", provider="claude", mode=Mode.PAUSED, circuit="half_open", waiting=7, in_flight=2,
        rpm=LimitState(used=4, limit=50), rph=LimitState(used=9), tpm=LimitState(used=0), tph=LimitState(used=0),
        at=NOW,
    )  # fmt: skip
    read = gauges(lanes=lambda: [state]).get_sample_value
    lane = {"lane": "claude/0", "provider": "claude"}
    assert [read(f"ai_lane_{name}", lane) for name in ("waiting", "in_flight", "paused")] == [7, 2, 1]
    assert read("ai_lane_wait_seconds", lane) is None, "nobody knows when a paused lane goes on"
    assert read("ai_lane_used", {**lane, "limit": "rpm"}) == 4
    assert read("ai_lane_limit", {**lane, "limit": "rpm"}) == 50
    assert read("ai_lane_limit", {**lane, "limit": "rph"}) is None
    states = {name: read("ai_breaker_state", {**lane, "state": name}) for name in ("closed", "half_open", "open")}
    assert states == {"closed": 0, "half_open": 1, "open": 0}


def test_money_of_workspaces_is_told_with_the_others_under_a_name_that_no_workspace_can_have() -> None:
    months = board(most=1)
    months.hear("acme", "2026-11", Account(spent=12 * GIGA, reserved=GIGA), 0)
    months.hear("tiny", "2026-11", Account(spent=GIGA), 0)
    read = gauges(months=months.overview).get_sample_value
    assert read("ai_monthly_cost_usd", {"workspace": "acme"}) == 12
    assert read("ai_monthly_cost_usd", {"workspace": OTHERS}) == 1
    assert read("ai_monthly_budget_usd", {"workspace": "acme"}) == 10
    assert read("ai_monthly_budget_usd", {"workspace": OTHERS}) is None
    assert read("ai_reserved_usd", {"workspace": "acme"}) == 1
    assert read("ai_workspaces_over_budget") == 1


def test_providers_and_the_backlog_are_told_as_they_stand() -> None:
    down = Standing(False, "401", NOW, NOW)
    read = gauges(
        availability=lambda: {"claude": down},
        backlog=lambda: {("stages", "ai.requests"): 3, ("sinks", "ai.usage"): 4},
        ages=lambda: {"ai.requests": 0.25},
    ).get_sample_value
    assert read("ai_provider_available", {"provider": "claude"}) == 0
    assert read("ai_backlog_records", {"reader": "stages", "topic": "ai.requests"}) == 3
    assert read("ai_backlog_records", {"reader": "sinks", "topic": "ai.usage"}) == 4
    assert read("ai_backlog_age_ratio", {"topic": "ai.requests"}) == 0.25
    assert read("ai_worker_ready") == 0


def test_the_backlog_is_what_lies_between_the_commit_and_the_end_of_each_partition() -> None:
    first, second, other = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
    starts, ends = {other: 2}, {first: 10, second: 5, other: 7}
    assert behind({first: 4, second: 5, other: None}, starts, ends) == {"a": 6, "b": 5}
    assert behind({first: 12}, {}, ends) == {"a": 0}, "a commit may be newer than the end that was asked for before it"


async def test_whatever_the_sinks_want_of_a_ledger_that_is_away_is_counted_as_a_failure() -> None:
    registry = CollectorRegistry()
    ledger = MeteredLedger(load_settings(clickhouse_url="http://127.0.0.1:9"), registry)
    try:
        for work in (
            lambda: ledger.write([usage("acme")]),
            lambda: ledger.recount_attempts({("acme", NOW)}),
            lambda: ledger.recount_outcomes({("acme", NOW)}),
            lambda: ledger.spent({("acme", "2026-11")}),
        ):
            with pytest.raises(LedgerUnavailableError):
                await work()
    finally:
        await ledger.close()
    assert registry.get_sample_value("ai_sink_errors_total", {"reason": "unavailable"}) == 4


@pytest.mark.parametrize("apart", [None, -300.0, 0.25])
def test_the_distance_of_the_clocks_is_told_once_it_is_known(apart: float | None) -> None:
    assert gauges(apart=lambda: apart).get_sample_value("ai_clock_apart_seconds") == apart
