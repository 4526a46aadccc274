"""Money is exact, on the way in and on the way out."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.alert import WorkspaceSpend
from schemas.codec import UndecodableError, decode, encode
from schemas.money import NANO, ZERO, usd

AMOUNTS = st.decimals(min_value=-(10**9), max_value=10**9, places=9, allow_nan=False, allow_infinity=False)


def spend(amount: object) -> WorkspaceSpend:
    return WorkspaceSpend.model_validate({"workspace_id": "acme", "month": "2026-01", "spent": amount})


def test_a_float_is_refused() -> None:
    with pytest.raises(TypeError, match="never a float"):
        usd(0.1)  # type: ignore[arg-type]


def test_ten_dimes_are_a_dollar_exactly() -> None:
    assert sum([usd("0.1")] * 10, start=ZERO) == Decimal(1)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [
        ("0.0000000005", "0.000000000"),
        ("0.0000000015", "0.000000002"),
        ("0.0000000025", "0.000000002"),
        ("0.00000000250001", "0.000000003"),
        ("-0.0000000015", "-0.000000002"),
    ],
)
def test_less_than_a_nano_dollar_is_rounded_half_to_even(amount: str, rounded: str) -> None:
    assert f"{usd(amount):f}" == rounded


@given(AMOUNTS)
def test_an_amount_in_nano_dollars_is_not_changed(amount: Decimal) -> None:
    assert usd(amount) == amount
    assert usd(usd(amount)) == usd(amount)


@given(AMOUNTS)
def test_money_survives_the_wire_to_the_last_digit(amount: Decimal) -> None:
    sent = spend(amount)
    received = decode(WorkspaceSpend, encode(sent))
    assert received == sent
    assert received.spent.as_tuple() == usd(amount).as_tuple()


@given(st.lists(AMOUNTS, max_size=50))
def test_a_sum_of_nano_dollars_is_as_exact_as_integers(amounts: list[Decimal]) -> None:
    nanos = sum(int(usd(amount).scaleb(9)) for amount in amounts)
    assert sum((usd(amount) for amount in amounts), start=ZERO) == Decimal(nanos).scaleb(-9)


@pytest.mark.parametrize("amount", ["1", "0.000000001", "123456789.123456789", "0"])
def test_money_on_the_wire_is_a_string_without_an_exponent(amount: str) -> None:
    assert f'"spent":"{Decimal(amount):.9f}"'.encode() in encode(spend(amount))


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "sNaN", "a lot", None, True, "1e99999"])
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValidationError):
        spend(amount)


@pytest.mark.parametrize("amount", ["1e20", "1e26", "-1e26", "99999999999999999999"])
def test_an_amount_too_large_for_nano_dollars_is_refused_and_not_a_fault(amount: str) -> None:
    body = f'{{"workspace_id":"acme","month":"2026-01","spent":"{amount}"}}'
    with pytest.raises(UndecodableError):
        decode(WorkspaceSpend, body.encode())


def test_the_precision_that_somebody_else_set_does_not_round_money() -> None:
    with localcontext() as context:
        context.prec = 28
        assert usd("999999999.999999999") + NANO == Decimal(1_000_000_000)
