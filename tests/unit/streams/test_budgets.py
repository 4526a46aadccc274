"""Which budget a workspace has, and which month a moment is in."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.budget import BudgetAction, BudgetChange
from schemas.codec import encode
from streams.budgets import Budget, BudgetBook

DEFAULT = Budget(Decimal(1000))


def told(book: BudgetBook, workspace: str, **fields: Any) -> bool:
    return book.hear(workspace.encode(), encode(BudgetChange(workspace_id=workspace, **fields)))


def test_a_workspace_without_a_budget_of_its_own_has_the_default() -> None:
    assert BudgetBook(DEFAULT).of("acme") == DEFAULT


def test_an_event_changes_what_it_names_and_nothing_else() -> None:
    book = BudgetBook(DEFAULT)
    assert told(book, "acme", amount=Decimal("12.5"))
    assert book.of("acme") == Budget(Decimal("12.500000000"))
    assert book.of("other") == DEFAULT
    assert told(book, "acme", action="refuse")
    assert book.of("acme") == Budget(Decimal(1000), action=BudgetAction.REFUSE), "the newest event counts as a whole"


def test_a_record_without_a_value_goes_back_to_the_settings() -> None:
    book = BudgetBook(DEFAULT)
    told(book, "acme", amount=5)
    assert book.hear(b"acme", None)
    assert (book.of("acme"), book.own()) == (DEFAULT, {})


@pytest.mark.parametrize(
    "value", [b"", b"{}", b'{"workspace_id": "acme", "amount": 0}', b'{"workspace_id": "acme", "time_zone": "Mars/X"}']
)
def test_what_is_no_budget_changes_nothing(value: bytes) -> None:
    book = BudgetBook(DEFAULT)
    assert not book.hear(b"acme", value)
    assert book.of("acme") == DEFAULT


def test_a_budget_under_the_key_of_another_workspace_changes_nothing() -> None:
    book = BudgetBook(DEFAULT)
    assert not book.hear(b"other", encode(BudgetChange(workspace_id="acme", amount=5)))
    assert (book.of("acme"), book.of("other")) == (DEFAULT, DEFAULT)


@pytest.mark.parametrize(
    ("zone", "moment", "month"),
    [
        ("UTC", datetime(2026, 11, 30, 23, 59, 59, 999_999, UTC), "2026-11"),
        ("UTC", datetime(2026, 12, 1, tzinfo=UTC), "2026-12"),
        ("Pacific/Auckland", datetime(2026, 11, 30, 10, 59, 59, tzinfo=UTC), "2026-11"),
        ("Pacific/Auckland", datetime(2026, 11, 30, 11, tzinfo=UTC), "2026-12"),
        ("America/Los_Angeles", datetime(2026, 12, 1, 7, 59, 59, tzinfo=UTC), "2026-11"),
        ("America/Los_Angeles", datetime(2026, 12, 1, 8, tzinfo=UTC), "2026-12"),
    ],
)
def test_the_month_turns_at_midnight_of_the_workspaces_own_clock(zone: str, moment: datetime, month: str) -> None:
    assert Budget(Decimal(1), time_zone=zone).month_of(moment) == month
