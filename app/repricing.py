"""What an attempt of the past costs under the price book of today, and the correction that says so. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from schemas.money import ZERO
from schemas.usage import RANK_BIT, Correction, CostSource, Outcome, Tokens, UsageEvent


class PriceBook(Protocol):
    """Implemented by app.prices.Prices."""

    def cost(self, provider: str, model: str, tokens: Tokens, at: datetime) -> Decimal | None:
        """US dollars for a call at that time; None if the price is not known."""
        ...

    def lacking(self, provider: str, model: str, tokens: Tokens, at: datetime) -> str | None:
        """What of these tokens has no price of its own, so that the cost is an estimate; None: nothing."""
        ...


@dataclass(frozen=True)
class Priced:
    """An attempt as the ledger has it now. `usage.correction` says what an earlier correction has said of it."""

    usage: UsageEvent
    version: int

    @property
    def rank(self) -> int:
        return self.version >> RANK_BIT


class Left(StrEnum):
    """Why an attempt keeps its cost."""

    UNCHANGED = "unchanged"
    #: The provider has said what it charges.
    REPORTED = "reported"
    #: A failed call is not billed.
    NOT_BILLED = "not_billed"
    #: Nobody knows how many tokens it used.
    NO_TOKENS = "no_tokens"
    NO_PRICE = "no_price"


@dataclass(frozen=True)
class Occasion:
    """What all corrections of one run have in common."""

    run: str
    at: datetime
    by: str
    reason: str


def reprice(attempt: Priced, prices: PriceBook, occasion: Occasion, *, reported: bool = False) -> UsageEvent | Left:
    """The attempt with its new cost and the correction, or why it stays as it is.

    `reported` also puts the price book above what providers have reported themselves.
    """
    usage = attempt.usage
    if usage.outcome is Outcome.FAILED:
        return Left.NOT_BILLED
    if usage.cost_source == "reported" and not reported:
        return Left.REPORTED
    if usage.outcome is Outcome.IN_DOUBT and not _says_what_it_used(usage.tokens):
        return Left.NO_TOKENS
    cost = prices.cost(usage.provider, usage.model, usage.tokens, usage.started_at)
    if cost is None:
        return Left.NO_PRICE
    source = _source(usage)
    if source == "computed" and prices.lacking(usage.provider, usage.model, usage.tokens, usage.started_at):
        source = "estimated"
    if cost == usage.cost and source == usage.cost_source:
        return Left.UNCHANGED
    return usage.model_copy(
        update={"cost": cost, "cost_source": source, "correction": _correction(attempt, occasion)},
    )


def _says_what_it_used(tokens: Tokens) -> bool:
    return bool(tokens.total_tokens or tokens.search_requests)


def _source(usage: UsageEvent) -> CostSource:
    """An estimate stays one: a new price makes no tokens more certain."""
    if usage.cost_source == "estimated" or usage.outcome is Outcome.IN_DOUBT:
        return "estimated"
    return "computed"


def _correction(attempt: Priced, occasion: Occasion) -> Correction:
    usage, earlier = attempt.usage, attempt.usage.correction
    # A clock that is behind the one of an earlier correction must not make this one the older of the two.
    at = occasion.at if earlier is None else max(occasion.at, earlier.at + timedelta(microseconds=1))
    return Correction(
        run=occasion.run,
        at=at,
        by=occasion.by,
        reason=occasion.reason,
        previous_cost=usage.cost,
        previous_source=usage.cost_source,
        previous_rank=attempt.rank,
        original_cost=usage.cost if earlier is None else earlier.original_cost,
    )


@dataclass
class Line:
    """Attempts of one provider and model. Costs in US dollars, before and after."""

    attempts: int = 0
    changed: int = 0
    old: Decimal = ZERO
    new: Decimal = ZERO

    def add(self, old: Decimal, new: Decimal, *, changed: bool) -> None:
        self.attempts += 1
        self.changed += changed
        self.old += old
        self.new += new


@dataclass
class Tally:
    """What a run comes to."""

    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    left: Counter[Left] = field(default_factory=Counter)
    left_cost: dict[Left, Decimal] = field(default_factory=dict)

    def add(self, attempt: Priced, verdict: UsageEvent | Left) -> None:
        usage = attempt.usage
        line = self.lines.setdefault((usage.provider, usage.model), Line())
        if isinstance(verdict, UsageEvent):
            return line.add(usage.cost, verdict.cost, changed=True)
        self.left[verdict] += 1
        self.left_cost[verdict] = self.left_cost.get(verdict, ZERO) + usage.cost
        return line.add(usage.cost, usage.cost, changed=False)

    @property
    def total(self) -> Line:
        found = Line()
        for line in self.lines.values():
            found.attempts += line.attempts
            found.changed += line.changed
            found.old += line.old
            found.new += line.new
        return found
