"""Budgets that refuse, on real processes: many at once let through what there is room for, whatever dies."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.load.money import PRICE, BudgetRound, priced, run_budget_round
from tests.support.provider.instant import Provider
from tests.support.stack.workers import lane_owner, start

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]

REQUESTS, ROOM_FOR = 500, 100


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    with Provider.running(tmp_path, delay_ms=300) as running:
        yield running


def assert_it_holds(done: BudgetRound) -> None:
    assert done.state is not None
    assert done.most <= done.limit, "spent and reserved passed the budget"
    assert done.called * PRICE <= done.limit, "more was called than there was money for"
    assert (done.state.reserved, done.state.open_requests) == (Decimal(0), 0)
    assert done.state.spent == done.ledger, "the account is not the ledger"
    assert sum(done.statuses.values()) == REQUESTS


async def test_of_500_requests_at_once_100_get_through_where_there_is_money_for_100(
    stack: DevStack, settings: Settings, provider: Provider, workers: list[Child], tmp_path: Path
) -> None:
    start(stack, workers, 1, provider.environment() | priced(tmp_path))
    done = await run_budget_round(settings, provider, requests=REQUESTS, room_for=ROOM_FOR)
    assert_it_holds(done)
    assert done.statuses == {"succeeded": ROOM_FOR, "rejected budget_exceeded": REQUESTS - ROOM_FOR}
    assert done.ledger == done.limit
    assert all("left of $100.00" in message and "may cost $1.00" in message for message in done.refusals)


@pytest.mark.prove
async def test_a_killed_worker_overspends_nothing_and_leaves_nothing_reserved(
    stack: DevStack, settings: Settings, provider: Provider, workers: list[Child], tmp_path: Path
) -> None:
    start(stack, workers, 2, provider.environment() | priced(tmp_path))
    done = await run_budget_round(
        settings,
        provider,
        requests=REQUESTS,
        room_for=ROOM_FOR,
        accident=lambda: lane_owner(workers).kill(),
    )
    assert_it_holds(done)
    assert done.statuses["succeeded"] + done.in_doubt <= ROOM_FOR, "what is in doubt is counted as spent"
