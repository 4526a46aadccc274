"""What a round has left: raw topics, the providers' journal, the ledger's rows, and what was done to whom.

Everything is worked out from these anew. Nothing here asks the product what it decided, or how.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

from bench.chaos_parts.load import Load, Sent
from bench.chaos_parts.mix import Asked
from bench.chaos_parts.names import CHANGELOG, REPLIES, cost
from bench.chaos_parts.records import Record, behind, read_all
from bench.chaos_parts.stack import Limits, Stack

TOPICS = (
    "ai.requests",
    "ai.responses",
    "ai.usage",
    "ai.dead-letters",
    REPLIES,
    "ai.budget.state",
    "ai.budget.alerts",
    "ai.cancellations",
    CHANGELOG,
    "ai.attempts",
)
LEDGER = """\
SELECT workspace_id, request_id, attempt, toString(outcome) AS outcome, error_code, toString(cost) AS cost, budget_month
FROM ledger"""
#: Shown of what is wrong.
EXAMPLES = 6


@dataclass(frozen=True)
class Found:
    """What a check has found: `wrong` counts what must not be, by its word in the round's line; `figures` say more."""

    wrong: Mapping[str, int | str]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """How a call has ended. `how` is `ok` where the provider has answered all of it."""

    at: float
    how: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Call:
    """One call, as its provider saw it. Times are seconds since 1970."""

    number: int
    attempt: str
    provider: str
    worker: str
    at: float
    plan: str = "ok"
    end: End | None = None

    @property
    def answer(self) -> End | None:
        """Its end, if that was a whole answer: what costs money."""
        return self.end if self.end is not None and self.end.how == "ok" else None

    @property
    def price(self) -> Decimal:
        end = self.answer
        return cost(self.provider, end.prompt_tokens, end.completion_tokens) if end else Decimal(0)

    @property
    def tokens(self) -> int:
        return self.end.prompt_tokens + self.end.completion_tokens if self.end else 0

    @property
    def how(self) -> str | None:
        return self.end.how if self.end else None


@dataclass(frozen=True)
class Row:
    """One row of the ledger."""

    workspace: str
    attempt: str
    outcome: str
    error: str | None
    cost: Decimal
    month: str

    @property
    def account(self) -> tuple[str, str]:
        return self.workspace, self.month


@dataclass(frozen=True)
class Span:
    """A time in which something was done to a worker, or to the broker."""

    begin: float
    end: float
    kind: str

    def touches(self, begin: float, end: float) -> bool:
        return self.begin <= end and self.end >= begin


class Excuses:
    """What happened to whom and when, out of the events of a round: by it, what went wrong can be explained."""

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self._workers: dict[str, list[Span]] = defaultdict(list)
        self._broker: list[Span] = []
        for event in events:
            at, worker, seconds = event["t"], f"w{event.get('worker')}", event.get("seconds", 0.0)
            match event["event"]:
                case "kill" | "kill_early":
                    self._workers[worker].append(Span(at - 1.5, at + 1.0, "kill"))
                case "freeze":
                    self._workers[worker].append(Span(at - 1.5, at + seconds + 25, "freeze"))
                case "term":
                    self._workers[worker].append(Span(at - 0.5, at + 45, "term"))
                case "broker_kill":
                    self._broker.append(Span(at - 1.5, at + 8 + 40, "broker"))
                case "broker_freeze":
                    self._broker.append(Span(at - 1.5, at + seconds + 40, "broker"))

    def stood_still(self, worker: str, begin: float, end: float) -> bool:
        """Whether the worker stood still in that time, whatever else happened."""
        return any(span.kind == "freeze" and span.touches(begin, end) for span in self._workers.get(worker, ()))

    def why(self, worker: str, begin: float, end: float) -> str | None:
        """What happened to the worker in that time, or to the broker, or else to another worker."""
        others = [span for spans in self._workers.values() for span in spans]
        for spans, word in ((self._workers.get(worker, []), ""), (self._broker, ""), (others, "other-")):
            for span in spans:
                if span.touches(begin, end):
                    return word + span.kind
        return None


@dataclass
class Facts:
    """All of it, once. `rows` has each row of the ledger by its attempt: there should be one."""

    topics: Mapping[str, Sequence[Record]]
    asked: Mapping[str, Asked] = field(default_factory=dict)
    calls: Sequence[Call] = ()
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    hostile: Sequence[Sent] = ()
    behind: Mapping[str, int] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def topic(self, name: str) -> Sequence[Record]:
        return self.topics.get(name, ())

    @cached_property
    def present(self) -> dict[str, list[Record]]:
        """The records of each request that was asked, as the topic has them."""
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.topic("ai.requests"):
            try:
                body = record.json()
            except (ValueError, RecursionError):
                continue
            identity = body.get("request_id") if isinstance(body, dict) else None
            if isinstance(identity, str) and identity in self.asked:
                found[identity].append(record)
        return dict(found)

    @cached_property
    def responses(self) -> dict[str, list[tuple[Record, dict[str, Any]]]]:
        """The terminal responses of each request, with their bodies."""
        found: dict[str, list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
        for record in self.topic("ai.responses"):
            body = record.json()
            found[body["request_id"]].append((record, body))
        return dict(found)

    @cached_property
    def answers(self) -> dict[str, tuple[Record, dict[str, Any]]]:
        """The first response of each request that was asked."""
        return {name: self.responses[name][0] for name in self.asked if name in self.responses}

    @cached_property
    def attempts(self) -> dict[str, list[Call]]:
        """The calls of each attempt: there should be one."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            found[call.attempt].append(call)
        return dict(found)

    @cached_property
    def excuses(self) -> Excuses:
        return Excuses(self.events)

    @cached_property
    def ledger(self) -> dict[tuple[str, str], Decimal]:
        """What each workspace has spent in each month, by the ledger."""
        spent: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for rows in self.rows.values():
            spent[rows[0].account] += rows[0].cost
        return dict(spent)

    @property
    def billed(self) -> list[Call]:
        return [call for call in self.calls if call.answer]


async def gather(stack: Stack, load: Load) -> Facts:
    return Facts(
        topics=await read_all(stack.servers, TOPICS),
        asked=load.asked,
        calls=calls_of(stack.journal.read_text().splitlines()),
        rows=rows_of(await stack.ask_clickhouse(LEDGER)),
        events=stack.events,
        hostile=load.hostile,
        behind=await behind(stack.servers),
        limits=stack.limits,
    )


def calls_of(journal: Iterable[str]) -> list[Call]:
    """The calls of a journal, in order of their beginning."""
    calls: dict[int, Call] = {}
    for line in journal:
        told = json.loads(line)
        match told["event"]:
            case "start":
                calls[told["call"]] = Call(
                    told["call"], told["attempt"], told["provider"], told["worker"], told["t"], told["plan"]
                )
            case "end" | "cut":
                tokens = told.get("prompt_tokens", 0), told.get("completion_tokens", 0)
                calls[told["call"]].end = End(told["t"], told["how"], *tokens)
    return list(calls.values())


def rows_of(found: Iterable[Mapping[str, Any]]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in found:
        attempt = f"{row['request_id']}/{row['attempt']}"
        rows[attempt].append(
            Row(
                workspace=row["workspace_id"],
                attempt=attempt,
                outcome=row["outcome"],
                error=row["error_code"],
                cost=Decimal(row["cost"]),
                month=row["budget_month"],
            )
        )
    return dict(rows)


def split(attempt: str) -> tuple[str, int]:
    """`r-7/2` → (`r-7`, 2)."""
    request, number = attempt.rsplit("/", 1)
    return request, int(number)
