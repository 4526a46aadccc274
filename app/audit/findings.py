"""What an audit finds, counts and cannot judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

#: Examples that are kept of each kind.
EXAMPLES = 10


class Kind(StrEnum):
    """What is wrong. The value is for programs, SAYS for people."""

    REQUEST_WITHOUT_RESPONSE = "request_without_response"
    ATTEMPT_WITHOUT_USAGE = "attempt_without_usage"
    USAGE_WITHOUT_ROW = "usage_without_row"
    ROW_WITHOUT_USAGE = "row_without_usage"
    RESPONSE_WITHOUT_OUTCOME = "response_without_outcome"
    OUTCOME_WITHOUT_RESPONSE = "outcome_without_response"
    CONTRADICTION = "contradiction"
    ROW_DOUBLED = "row_doubled"
    OUTCOME_DOUBLED = "outcome_doubled"
    USAGE_DISAGREES = "usage_disagrees"
    ROW_DIFFERS = "row_differs"
    OUTCOME_DIFFERS = "outcome_differs"
    RESPONSE_SUM = "response_sum"
    RESPONSE_USAGE = "response_usage"
    MONTH_DIFFERS = "month_differs"
    BUDGET_DIFFERS = "budget_differs"
    RESERVATION_LEFT = "reservation_left"
    UNPRICED = "unpriced"
    RECORDS_GONE = "records_gone"


#: What it is, and what to do.
SAYS: dict[Kind, tuple[str, str]] = {
    Kind.REQUEST_WITHOUT_RESPONSE: (
        "Requests without a response, past their deadline",
        "look for them in ai.dead-letters and in the workers' logs; what is not there may be published again",
    ),
    Kind.ATTEMPT_WITHOUT_USAGE: (
        "Attempts that a response names and ai.usage does not have",
        "look for the report in ai.attempts: its usage is missing in every ledger and budget",
    ),
    Kind.USAGE_WITHOUT_ROW: (
        "Usage that is acknowledged and not in the ledger",
        "look in ai.dead-letters (ledger_rejected); else `spillway refill --since` before that time",
    ),
    Kind.ROW_WITHOUT_USAGE: (
        "Ledger rows without a usage record, of a time that ai.usage still holds",
        "somebody has written to the table by hand, or deleted records: compare with the provider's invoice",
    ),
    Kind.RESPONSE_WITHOUT_OUTCOME: (
        "Responses without a row in the table outcomes",
        "look in ai.dead-letters; else `spillway refill --since` before that time",
    ),
    Kind.OUTCOME_WITHOUT_RESPONSE: (
        "Rows of the table outcomes without a response, of a time that ai.responses still holds",
        "somebody has written to the table by hand, or deleted records",
    ),
    Kind.CONTRADICTION: (
        "Requests with different terminal responses",
        "this must never be: keep both records; a request id that was used again after AI_DEDUP_WINDOW looks the same",
    ),
    Kind.ROW_DOUBLED: (
        "Attempts with several rows in the ledger, counted more than once",
        "a request id that was used again after AI_DEDUP_WINDOW looks the same; else the attempt's start has changed",
    ),
    Kind.OUTCOME_DOUBLED: (
        "Requests with several rows in the table outcomes",
        "reports count these requests more than once",
    ),
    Kind.USAGE_DISAGREES: (
        "Attempts whose usage records disagree",
        "the ledger keeps the best-known and then the dearer one: compare with the provider's invoice",
    ),
    Kind.ROW_DIFFERS: (
        "Ledger rows that are not what the best usage record of their attempt says",
        "`spillway refill --since` before that time",
    ),
    Kind.OUTCOME_DIFFERS: (
        "Rows of the table outcomes that do not say what the response says",
        "`spillway refill --since` before that time",
    ),
    Kind.RESPONSE_SUM: (
        "Responses that cost something else than their attempts together",
        "what the requester was told is wrong; the ledger counts attempts",
    ),
    Kind.RESPONSE_USAGE: (
        "Attempts that cost one thing in the response and another on ai.usage",
        "what the requester was told is wrong; the ledger counts what ai.usage says",
    ),
    Kind.MONTH_DIFFERS: (
        "Months of a workspace with another sum in the ledger than on ai.usage",
        "the findings above say which attempts make the difference",
    ),
    Kind.BUDGET_DIFFERS: (
        "Budgets that have counted something else than the ledger",
        "they take what settlement has seen: look for the attempts named above, and for requests that are still open",
    ),
    Kind.RESERVATION_LEFT: (
        "Budgets that hold money though no request of the period is open",
        "a request from before the period with a later deadline explains it; else it is released at the next sweep",
    ),
    Kind.UNPRICED: (
        "Attempts without a price, which no budget sees",
        "state a price in AI_SETTINGS_FILE ([prices], 0 where it is free), then `spillway reprice`",
    ),
    Kind.RECORDS_GONE: (
        "Stretches of topics that were deleted before workers had read them",
        "nothing brings them back: docs/runbook.md says what was in which topic; keep a worker running, or raise the "
        "topic's retention.ms",
    ),
}


@dataclass(frozen=True)
class Example:
    """One case. `amount` is nano-dollars that are in question."""

    name: str
    detail: str = ""
    amount: int | None = None


@dataclass
class Findings:
    """All cases counted, the first ones as examples, and what was in question in nano-dollars."""

    counts: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[Example]] = field(default_factory=dict)
    amounts: Counter[Kind] = field(default_factory=Counter)

    def add(self, kind: Kind, name: str, detail: str = "", amount: int | None = None) -> None:
        self.counts[kind] += 1
        self.amounts[kind] += amount or 0
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES:
            kept.append(Example(name, detail, amount))

    @property
    def clean(self) -> bool:
        return not self.counts


@dataclass
class Figures:
    """What was counted on the way; none of it is a fault. Costs in nano-dollars."""

    counts: Counter[str] = field(default_factory=Counter)
    costs: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, number: int = 1, cost: int = 0) -> None:
        self.counts[name] += number
        self.costs[name] += cost
