"""What a request is told for which its workspace's budget has no room. Pure."""

from __future__ import annotations

from schemas.request import AdmittedRequest
from schemas.response import Error
from streams.accounts import Account, dollars, nanos
from streams.budgets import Budget


def no_room(admitted: AdmittedRequest, budget: Budget, account: Account, amount: int) -> Error:
    """What is left, what is asked for, and what would help."""
    left = max(nanos(budget.amount) - account.committed, 0)
    by_waiting = account.spent + amount <= nanos(budget.amount)
    help_ = "Some of it is reserved and may come back" if by_waiting else "The budget can be raised"
    return Error(
        code="budget_exceeded",
        message=f"The budget of workspace {admitted.workspace_id} for {admitted.budget_month} has "
        f"${money(left)} left of ${money(nanos(budget.amount))} (spent ${money(account.spent)}, reserved "
        f"${money(account.reserved)}), and this request may cost ${money(amount)}. {help_}.",
        retryable=by_waiting,
    )


def money(amount: int) -> str:
    """Nano-dollars for people: at least cents, and no digit that says nothing."""
    text = f"{dollars(amount):f}".rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<2}"
