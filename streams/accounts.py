"""What a workspace's month has spent and reserved: a balance that changes with requests and attempts. Pure.

Money is in nano-dollars here, as integers. Two logs change an account: that of the requests (a reservation is made) and
that of the reports (attempts cost something, a reservation ends). Both are read in order in the workspace's partition,
so an account carries the offset of each that it applied last. What is delivered again is at or below it, and changes
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from schemas.base import Month
from schemas.money import NANO, usd

#: `admitted_to` and `settled_to` of an account to which nothing was applied yet.
NOTHING = -1


def nanos(amount: Decimal) -> int:
    """US dollars as nano-dollars."""
    return int(usd(amount).scaleb(9))


def dollars(amount: int) -> Decimal:
    """Nano-dollars as US dollars."""
    return usd(amount * NANO)


@dataclass(frozen=True, slots=True)
class Movement:
    """What one event changes, in nano-dollars and in requests that hold a reservation."""

    spent: int = 0
    reserved: int = 0
    open_requests: int = 0

    def __add__(self, other: Movement) -> Movement:
        return Movement(
            self.spent + other.spent, self.reserved + other.reserved, self.open_requests + other.open_requests
        )

    def __bool__(self) -> bool:
        return self != NO_MOVEMENT


NO_MOVEMENT = Movement()


@dataclass(frozen=True, slots=True)
class Account:
    """One workspace's month. `touched_at` is in seconds since 1970."""

    spent: int = 0
    reserved: int = 0
    open_requests: int = 0
    admitted_to: int = NOTHING
    settled_to: int = NOTHING
    touched_at: float = 0.0

    def admit(self, movement: Movement, offset: int, now: float) -> Account:
        """Apply what the request at this offset changes, unless that was done."""
        if offset <= self.admitted_to:
            return self
        return replace(self._moved(movement, now), admitted_to=offset)

    def settle(self, movement: Movement, offset: int, now: float) -> Account:
        """Apply what the report at this offset changes, unless that was done."""
        if offset <= self.settled_to:
            return self
        return replace(self._moved(movement, now), settled_to=offset)

    def is_unbooked(self, movement: Movement, offset: int) -> bool:
        """Whether the movement of an admission was not applied, though its request has ended: the report that ended it
        was applied, or will be when it is delivered again. One to which nothing was ever applied was restored.
        """
        return (
            bool(movement) and self.admitted_to < offset and (self.admitted_to, self.settled_to) != (NOTHING, NOTHING)
        )

    def _moved(self, movement: Movement, now: float) -> Account:
        return replace(
            self,
            spent=self.spent + movement.spent,
            reserved=self.reserved + movement.reserved,
            open_requests=self.open_requests + movement.open_requests,
            touched_at=now,
        )

    @property
    def committed(self) -> int:
        """What is spent, and what may still be."""
        return self.spent + self.reserved


UNTOUCHED = Account()


def account_body(account: Account) -> dict[str, Any]:
    return {
        "$": [account.spent, account.reserved, account.open_requests],
        "o": [account.admitted_to, account.settled_to],
        "t": account.touched_at,
    }


def read_account(body: dict[str, Any]) -> Account:
    spent, reserved, open_requests = body["$"][:3]
    admitted_to, settled_to = body["o"][:2]
    return Account(spent, reserved, open_requests, admitted_to, settled_to, body["t"])


ACCOUNTS = "@account/"


def account_key(workspace_id: str, month: Month) -> str:
    """Where an account is in the table of its workspace. No workspace id begins with an @."""
    return f"{ACCOUNTS}{workspace_id}/{month}"


def of_key(key: str) -> tuple[str, Month]:
    """The workspace and month of an account's key."""
    workspace_id, month = key.removeprefix(ACCOUNTS).rsplit("/", 1)
    return workspace_id, month
