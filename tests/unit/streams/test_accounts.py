"""An account moves once for each event, whatever is delivered again."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.accounts import UNTOUCHED, Account, Movement, account_key, dollars, nanos, of_key
from streams.rows import decode_row, encode_row

AMOUNTS = st.integers(0, 10**18)
MOVEMENTS = st.builds(Movement, AMOUNTS, AMOUNTS, st.integers(0, 9))


@given(st.lists(MOVEMENTS, max_size=8), st.data())
def test_events_that_are_delivered_again_in_order_move_nothing(movements: list[Movement], data: st.DataObject) -> None:
    once = again = UNTOUCHED
    for offset, movement in enumerate(movements):
        once = once.settle(movement, offset, 1.0)
    for offset, movement in enumerate(movements):
        again = again.settle(movement, offset, 1.0)
        for earlier in range(data.draw(st.integers(0, offset)), offset + 1):
            again = again.settle(movements[earlier], earlier, 1.0)
    assert again == once


def test_requests_and_reports_are_two_logs_with_offsets_of_their_own() -> None:
    account = UNTOUCHED.admit(Movement(reserved=5, open_requests=1), 7, 1.0)
    account = account.settle(Movement(spent=3, reserved=-5, open_requests=-1), 2, 2.0)
    assert account == Account(spent=3, admitted_to=7, settled_to=2, touched_at=2.0)
    assert account.admit(Movement(reserved=9), 7, 3.0) == account


@given(st.builds(Account, AMOUNTS, AMOUNTS, st.integers(0, 99), st.integers(-1), st.integers(-1), st.floats(0, 4e9)))
def test_an_account_survives_its_table(account: Account) -> None:
    bounded = Account(*(min(value, 2**63 - 1) for value in (account.spent, account.reserved, account.open_requests)))
    assert decode_row(encode_row(bounded)) == bounded


@given(st.decimals(0, 10**9, places=9))
def test_dollars_become_nano_dollars_and_come_back(amount: Decimal) -> None:
    assert dollars(nanos(amount)) == amount


@pytest.mark.parametrize(("workspace", "month"), [("acme", "2026-11"), ("a:b@c.d-e_f", "2027-01")])
def test_a_key_names_a_workspace_and_a_month(workspace: str, month: str) -> None:
    assert of_key(account_key(workspace, month)) == (workspace, month)
