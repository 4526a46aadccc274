"""A period in which all is well, as facts; and each fault that can be put into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from app.audit.books import Books, Share
from app.audit.compare import Judge, Scope, Verdict
from app.audit.facts import Answered, LedgerRow, OutcomeRow, Requested, Told, Used
from schemas.usage import RANK_BIT

START, END, NOW, PATIENCE = 1_000_000, 2_000_000, 2_500_000, 60_000
COMPUTED, DOUBT = 6, 1

Fact = Requested | Answered | Used | LedgerRow | OutcomeRow


def scope(**fields: object) -> Scope:
    given = {"start": START, "end": END, "now": NOW, "read_from": START - 1, "patience": PATIENCE, **fields}
    return Scope(**given)  # type: ignore[arg-type]


def requested(key: str = "w/r", **fields: object) -> Requested:
    return Requested(key, START, START + 1_000, home=True, refused=False, waits=False)._replace(**fields)  # type: ignore[arg-type]


def answered(key: str = "w/r", *costs: int, **fields: object) -> Answered:
    attempts = tuple(Told(number, cost, in_doubt=False) for number, cost in enumerate(costs, 1))
    fact = Answered(key, START + 500, START, 7, "succeeded", sum(costs), attempts, cached=False, waits=False)
    return fact._replace(**fields)  # type: ignore[arg-type]


def used(key: str = "w/r", attempt: int = 1, cost: int = 5, rank: int = COMPUTED, **fields: object) -> Used:
    version = (rank << RANK_BIT) + cost
    fact = Used(key, attempt, START + 100, "2026-11", version, cost, cost, corrected=False, waits=False)
    return fact._replace(**fields)  # type: ignore[arg-type]


def row(seen: Used, **fields: object) -> LedgerRow:
    flags = {"in_doubt": not seen.known, "unpriced": False, "fresh": False}
    return LedgerRow(*seen[:8], **flags)._replace(**fields)  # type: ignore[arg-type]


def outcome(answer: Answered, **fields: object) -> OutcomeRow:
    return OutcomeRow(answer.key, answer.at, answer.status, answer.cost, fresh=False)._replace(**fields)  # type: ignore[arg-type]


class Story(NamedTuple):
    """One request: what its attempts cost, whether each was first in doubt, and what came twice."""

    costs: tuple[int, ...]
    doubts: tuple[bool, ...]
    sent_on: bool
    repeated: bool
    again: bool


stories = st.builds(
    Story,
    st.lists(st.integers(0, 10**12), max_size=3).map(tuple),
    st.lists(st.booleans(), min_size=3, max_size=3).map(tuple),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@dataclass
class World:
    """Facts that agree, request by request."""

    facts: list[Fact] = field(default_factory=list)

    def live(self, key: str, story: Story) -> None:
        if story.sent_on:
            self.facts.append(requested(key, at=START + 1, home=False))
        self.facts += [requested(key)] * (2 if story.repeated else 1)
        answer = answered(key, *story.costs)
        self.facts += [answer] * (2 if story.again else 1)
        self.facts.append(outcome(answer))
        for number, (cost, doubt) in enumerate(zip(story.costs, story.doubts, strict=False), 1):
            if doubt:
                self.facts.append(used(key, number, cost + 3, DOUBT))
            known = used(key, number, cost)
            self.facts += [known] * (2 if story.again else 1)
            self.facts.append(row(known))


def books_of(facts: Iterable[Fact], share: Share | None = None) -> Books:
    books = Books(share or Share())
    for fact in facts:
        match fact:
            case Requested():
                books.request(fact)
            case Answered():
                books.answer(fact)
            case Used():
                books.usage(fact)
            case LedgerRow():
                books.ledger_row(fact)
            case OutcomeRow():
                books.outcome_row(fact)
    return books


def judged(facts: Iterable[Fact], *, shares: int = 1, **fields: object) -> Verdict:
    judge, facts = Judge(scope(**fields)), list(facts)
    for number in range(shares):
        judge.judge(books_of(facts, Share(number, shares)))
    judge.months()
    return judge.verdict
