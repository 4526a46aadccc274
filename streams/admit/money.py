"""What a request may cost, and whether its workspace's budget has room for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from schemas.request import AdmittedRequest, CommonRequest
from schemas.response import Error
from streams.accounts import Account, nanos
from streams.budgets import Budget
from streams.room import no_room

#: A provider's name, the request and the time → what the call may cost at most, in US dollars; None: nobody knows.
PriceGuess = Callable[[str, CommonRequest, datetime], Decimal | None]


def nobody_knows(_: str, __: CommonRequest, ___: datetime) -> Decimal | None:
    """The guess where there are no prices."""
    return None


@dataclass(frozen=True)
class Hold:
    """What is reserved for a request, in nano-dollars: the dearest of the providers that may answer it.

    `unpriced` names a provider whose price nobody knows.
    """

    amount: int
    unpriced: str | None = None


@dataclass(frozen=True)
class Refused:
    """The budget has no room. The error says what is left."""

    error: Error


def reserve(
    admitted: AdmittedRequest, route: tuple[str, ...], budget: Budget, account: Account, guess: PriceGuess
) -> Hold | Refused:
    """The reservation for a request, or why a budget that refuses does not make it.

    Spent and reserved together never pass such a budget. A price that is not known would be a hole in it: the request
    is refused as well. Elsewhere it goes on, with what the other providers would cost.
    """
    guesses = {name: guess(name, admitted.request, admitted.admitted_at) for name in route}
    known = [nanos(cost) for cost in guesses.values() if cost is not None]
    unpriced = next((name for name, cost in guesses.items() if cost is None), None)
    hold = Hold(max(known, default=0), unpriced)
    if not budget.refuses:
        return hold
    if unpriced is not None:
        return Refused(_unknown_price(admitted, unpriced))
    if account.committed + hold.amount > nanos(budget.amount):
        return Refused(no_room(admitted, budget, account, hold.amount))
    return hold


def _unknown_price(admitted: AdmittedRequest, provider: str) -> Error:
    model = f" for {admitted.request.model}" if admitted.request.model else ""
    return Error(
        code="price_unknown",
        message=f"Nobody knows what {provider} asks{model}, and the budget of workspace {admitted.workspace_id} "
        f"refuses what it cannot hold. State the price in the settings file, or prefer another provider.",
    )
