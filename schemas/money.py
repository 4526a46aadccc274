"""Exact money: US dollars as `Decimal` with nine digits after the point, never a float.

Nine digits are nano-dollars: one token of the cheapest model costs more than that, and ClickHouse keeps them
in `Decimal(18, 9)`. On the wire money is a JSON string, because a JSON number passes through floats in most readers.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer

NANO = Decimal("0.000000001")
ZERO = Decimal("0.000000000")


def usd(amount: Decimal | int | str) -> Decimal:
    """The amount in US dollars, rounded half to even to a nano-dollar.

    Raises TypeError for a float: its error would already be in the books. Raises ValueError for an amount too large to
    be counted in nano-dollars.
    """
    if isinstance(amount, float):
        raise TypeError("money is never a float; pass a Decimal, an int or a string")
    try:
        return Decimal(amount).quantize(NANO, rounding=ROUND_HALF_EVEN)
    except InvalidOperation:
        raise ValueError("not an amount that can be counted in nano-dollars") from None


def _to_wire(amount: Decimal) -> str:
    return f"{amount:f}"


#: A money field of a contract: any decimal comes in, nano-dollars go out as a string.
Usd = Annotated[
    Decimal,
    Field(max_digits=27, allow_inf_nan=False),
    AfterValidator(usd),
    PlainSerializer(_to_wire, return_type=str, when_used="json"),
]
