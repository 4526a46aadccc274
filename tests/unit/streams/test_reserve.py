"""What is reserved for a request, and what it is told when there is no room."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from schemas.budget import BudgetAction
from schemas.response import Status
from streams.accounts import Account, nanos
from streams.admit.decide import Answer, Decision, Forward, decide
from streams.admit.money import Hold, Refused, reserve
from streams.budgets import Budget
from streams.room import money
from tests.unit.streams.making import admitted
from tests.unit.streams.test_admit_decide import LATER, NOW, POLICY, completion
from tests.unit.streams.test_admit_decide import seen as view

REFUSING = Budget(Decimal(10), action=BudgetAction.REFUSE)
PRICES = {"claude": Decimal(2), "openai": Decimal("0.5")}


def guess(provider: str, *_: object) -> Decimal | None:
    return PRICES.get(provider)


def account(spent: str = "0", reserved: str = "0") -> Account:
    return Account(spent=nanos(Decimal(spent)), reserved=nanos(Decimal(reserved)))


def asked(budget: Budget = REFUSING, state: Account | None = None, *route: str) -> Hold | Refused:
    return reserve(admitted(), route or ("openai", "claude"), budget, state or account(), guess)


def test_the_dearest_provider_that_may_answer_is_reserved() -> None:
    assert asked() == Hold(nanos(Decimal(2)))


@pytest.mark.parametrize(
    ("spent", "reserved", "fits"), [("6", "2", True), ("6", "2.000000001", False), ("8", "0", True)]
)
def test_spent_reserved_and_asked_for_may_use_up_the_budget_to_the_last_nano_dollar(
    spent: str, reserved: str, fits: bool
) -> None:
    assert isinstance(asked(REFUSING, account(spent, reserved)), Hold) is fits


def test_who_is_refused_reads_what_is_left_and_whether_waiting_may_help() -> None:
    full = asked(REFUSING, account("9.5", "0"))
    assert isinstance(full, Refused)
    assert full.error.code == "budget_exceeded"
    assert full.error.message == (
        "The budget of workspace acme for 2026-01 has $0.50 left of $10.00 (spent $9.50, reserved $0.00), and this "
        "request may cost $2.00. The budget can be raised."
    )
    assert not full.error.retryable
    held = asked(REFUSING, account("1", "9"))
    assert isinstance(held, Refused)
    assert held.error.retryable
    assert held.error.message.endswith("Some of it is reserved and may come back.")


def test_a_budget_that_only_tells_lets_everything_through_and_counts_it() -> None:
    assert asked(Budget(Decimal(1)), account("5", "5")) == Hold(nanos(Decimal(2)))


def test_an_unknown_price_is_a_hole_in_no_budget_that_refuses() -> None:
    refused = asked(REFUSING, account(), "openai", "local")
    assert isinstance(refused, Refused)
    assert refused.error.code == "price_unknown"
    assert "local" in refused.error.message
    assert asked(Budget(Decimal(1)), account(), "openai", "local") == Hold(nanos(PRICES["openai"]), unpriced="local")


def decided(**fields: Any) -> Decision:
    return decide(completion(), view(7, budget=REFUSING, guess=guess, **fields), POLICY, NOW)


def test_a_refusal_is_told_again_as_it_was_however_much_room_there_is_by_then() -> None:
    first = decided(account=account("9"))
    assert isinstance(first, Answer)
    assert first.response.status is Status.REJECTED
    assert first.bury is None
    again = decide(completion(), view(7, first.record, budget=REFUSING, guess=guess), POLICY, LATER)
    assert again == first


def test_what_was_reserved_once_is_not_asked_for_again() -> None:
    first = decide(
        completion(preferred_providers=("openai",)), view(7, budget=REFUSING, guess=guess), openai_alone(), NOW
    )
    assert isinstance(first, Forward)
    assert first.record.reserved == nanos(PRICES["openai"])
    assert first.command.admitted.guarded
    again = decide(
        completion(preferred_providers=("openai",)),
        view(7, first.record, budget=REFUSING, guess=guess, account=account("10")),
        openai_alone(),
        LATER,
    )
    assert again == first


def openai_alone() -> Any:
    return type(POLICY)(("openai",), {"openai": frozenset({"completion"})}, 600.0)


@pytest.mark.parametrize(
    ("amount", "text"), [("0", "0.00"), ("1.5", "1.50"), ("0.000186", "0.000186"), ("100", "100.00")]
)
def test_money_is_written_for_people(amount: str, text: str) -> None:
    assert money(nanos(Decimal(amount))) == text
