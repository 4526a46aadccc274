"""Runs past requests through the real decisions in virtual time: budgets reserve and settle, lanes give turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

from app.simulate.history import History, Past, cost_of
from app.simulate.lanes import Clock, LaneRules, Lanes
from app.simulate.proposal import Proposal
from schemas.base import Month
from schemas.money import ZERO
from schemas.request import AdmittedRequest, CompletionRequest
from schemas.usage import Outcome, UsageEvent
from streams.accounts import Account, Movement, nanos
from streams.admit.money import Refused, reserve
from streams.commands import Place
from streams.dispatch.desk import Desk, Granted, Turn
from streams.dispatch.ports import Answer, ErrorClass, Failure
from streams.lifecycle import request_key


@dataclass
class Fate:
    """What became of a past request. `paid` are the costs of the attempts that were made, `waited` the seconds until
    the first call; None where there was none. `hold` is what is still reserved, in nano-dollars.
    """

    past: Past
    refused: bool = False
    expired: bool = False
    waited: float | None = None
    paid: list[Decimal] = field(default_factory=list)
    hold: int = 0

    @property
    def cost(self) -> Decimal:
        return sum(self.paid, ZERO)


@dataclass
class Accounts:
    """The months of the workspaces whose budgets are proposed."""

    opening: dict[tuple[str, Month], Decimal]
    _accounts: dict[tuple[str, Month], Account] = field(default_factory=dict)
    _offsets: count[int] = field(default_factory=count)

    def of(self, past: Past) -> Account:
        key = past.workspace, past.month
        if key not in self._accounts:
            self._accounts[key] = Account(spent=nanos(self.opening.get(key, ZERO)))
        return self._accounts[key]

    def admit(self, past: Past, hold: int, now: float) -> None:
        moved = Movement(reserved=hold, open_requests=1)
        self._accounts[past.workspace, past.month] = self.of(past).admit(moved, next(self._offsets), now)

    def settle(self, past: Past, movement: Movement, now: float) -> None:
        self._accounts[past.workspace, past.month] = self.of(past).settle(movement, next(self._offsets), now)


class Simulation:
    """One run. `past` is as it would have been under the proposal (app.simulate.pricing)."""

    def __init__(self, proposal: Proposal, rules: LaneRules, history: History, patience: float) -> None:
        self._proposal = proposal
        self._patience = patience
        self._clock = Clock()
        self._lanes = Lanes(rules, self._clock)
        self._accounts = Accounts(history.opening)

    def run(self, requests: Iterable[Past]) -> list[Fate]:
        """What becomes of each, in the order of their arrival."""
        fates = [Fate(past) for past in requests]
        for fate in fates:
            self._clock.at(fate.past.requested_at, self._then(self._arrive, fate))
        self._clock.run()
        return fates

    @staticmethod
    def _then(step: Callable[[Fate], None], fate: Fate) -> Callable[[], None]:
        return lambda: step(fate)

    def _arrive(self, fate: Fate) -> None:
        if self._admit(fate):
            self._next(fate, 0)

    def _admit(self, fate: Fate) -> bool:
        past = fate.past
        budget = self._proposal.budgets.get(past.workspace)
        if budget is None:
            return True
        cost = cost_of([past])
        route = (past.attempts[0].provider,)
        verdict = reserve(admitted(past, self._patience), route, budget, self._accounts.of(past), lambda *_: cost)
        if isinstance(verdict, Refused):
            fate.refused = True
            return False
        fate.hold = verdict.amount
        self._accounts.admit(past, verdict.amount, self._clock.now)
        return True

    def _next(self, fate: Fate, number: int) -> None:
        """The attempt of that number waits for its call; after the last one the request is closed."""
        past = fate.past
        if number == len(past.attempts):
            return self._close(fate)
        desk, pause = self._lanes.desk_for(past, number), past.pause_before(number)
        if desk is None:
            self._clock.at(self._clock.now + pause, lambda: self._call(fate, number))
        elif number == 0:
            self._queue(fate, number, desk)
        else:
            self._clock.at(self._clock.now + pause, lambda: self._queue(fate, number, desk))
        return None

    def _queue(self, fate: Fate, number: int, desk: Desk) -> None:
        past = fate.past
        place = Place(
            key=request_key(past.workspace, past.request_id),
            workspace=past.workspace,
            priority=past.priority,
            deadline=past.requested_at + self._patience,
            tokens=max(past.attempts[number].tokens.total_tokens, 1),
            attempt=number + 1,
            has_fallback=False,
        )
        desk.arrive(place, lambda turn: self._turn(fate, number, desk, turn))

    def _turn(self, fate: Fate, number: int, desk: Desk, turn: Turn) -> None:
        if not isinstance(turn, Granted):
            fate.expired = True
            return self._close(fate)
        ended = result(fate.past.attempts[number])
        return self._call(fate, number, lambda: desk.settle(turn.reservation, ended))

    def _call(self, fate: Fate, number: int, after: Callable[[], None] = lambda: None) -> None:
        if number == 0:
            fate.waited = self._clock.now - fate.past.requested_at

        def end() -> None:
            cost = fate.past.attempts[number].cost
            fate.paid.append(cost)
            self._pay(fate, nanos(cost))
            after()
            self._next(fate, number + 1)

        self._clock.at(self._clock.now + fate.past.attempts[number].latency, end)

    def _pay(self, fate: Fate, cost: int) -> None:
        """What an attempt has cost takes the place of what was reserved for it."""
        if self._has_account(fate):
            used = min(cost, fate.hold)
            fate.hold -= used
            self._accounts.settle(fate.past, Movement(spent=cost, reserved=-used), self._clock.now)

    def _close(self, fate: Fate) -> None:
        if self._has_account(fate):
            self._accounts.settle(fate.past, Movement(reserved=-fate.hold, open_requests=-1), self._clock.now)

    def _has_account(self, fate: Fate) -> bool:
        return fate.past.workspace in self._proposal.budgets


def admitted(past: Past, patience: float) -> AdmittedRequest:
    """The request as admission's decision about money takes it. What it asked is not in the ledger, nor needed."""
    first = past.attempts[0]
    return AdmittedRequest(
        request=CompletionRequest(prompt="not kept", model=first.model or None),
        request_id=past.request_id,
        workspace_id=past.workspace,
        admitted_at=first.requested_at.astimezone(UTC),
        deadline=datetime.fromtimestamp(past.requested_at, UTC) + timedelta(seconds=patience),
        month=past.month,
    )


def result(usage: UsageEvent) -> Answer | Failure:
    """How the call ended, as far as a lane must know. A failure of the past opens no circuit and pauses no lane: what
    the provider would have said at another moment nobody knows.
    """
    if usage.outcome is Outcome.SUCCEEDED:
        return Answer(None, usage.model, "stop", usage.tokens)
    billed = usage.outcome is Outcome.IN_DOUBT
    return Failure(ErrorClass.TERMINAL, "replayed", "as it was", may_be_billed=billed)
