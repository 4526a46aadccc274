"""Budgets that refuse, answers that are kept and identical requests in flight, under every accident: the real
decisions, with a crash between any two steps.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.budget import BudgetAction
from schemas.response import Response, Status
from streams.accounts import nanos
from streams.budgets import Budget
from streams.dispatch.ports import Answer, ErrorClass, Failure
from streams.sharing import CachePolicy
from tests.model.world import COST, ESTIMATE, START, World, answer, request
from tests.support.values.examples import EXAMPLES

RESULTS: dict[str, Answer | Failure] = {
    "answer": answer(),
    "busy": Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=1.0),
    "cut": Failure(ErrorClass.RETRYABLE, "truncated", "cut off", may_be_billed=True),
    "bad_key": Failure(ErrorClass.FALL_BACK, "bad_key", "no"),
    "refused": Failure(ErrorClass.TERMINAL, "invalid_request", "no"),
}
#: Room for three requests, by what they may cost.
LIMIT = 3 * ESTIMATE
STRICT = Budget(LIMIT, action=BudgetAction.REFUSE)
PROMPTS = ("one", "two")


class MoneyLife(RuleBasedStateMachine):
    """Spent and reserved never pass the budget; in the end nothing is reserved, and spent is the ledger's sum."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[str] = []
        self.world = World(self._provider, budget=STRICT, cache=CachePolicy(ttl=60))
        self.prompts: list[str] = []

    def _provider(self, _: str) -> Answer | Failure:
        return RESULTS[self.results.pop() if self.results else "answer"]

    @rule(
        next_results=st.lists(st.sampled_from(sorted(RESULTS)), max_size=3),
        prompt=st.sampled_from([*PROMPTS, "another"]),
        within=st.sampled_from([None, 1, 300, 600]),
    )
    def publish(self, next_results: list[str], prompt: str, within: int | None) -> None:
        self.results += next_results
        number = len(self.prompts)
        self.prompts.append(prompt if prompt in PROMPTS else f"{prompt} {number}")
        deadline = None if within is None else self.world.now + timedelta(seconds=within)
        self.world.requests.append(request(number, prompt=self.prompts[-1], deadline=deadline))

    @precondition(lambda self: any(r.position < len(r.log) for r in self.world.readers))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        ready = [reader for reader in self.world.readers if reader.position < len(reader.log)]
        self.world.deliver(ready[data.draw(st.integers(0, len(ready) - 1))])

    @precondition(lambda self: self.world.tasks)
    @rule(data=st.data(), steps=st.integers(1, 4))
    def work(self, data: st.DataObject, steps: int) -> None:
        task = self.world.tasks[data.draw(st.integers(0, len(self.world.tasks) - 1))]
        for _ in range(steps):
            if task in self.world.tasks:
                self.world.advance(task)

    @precondition(lambda self: self.prompts)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.world.cancel(data.draw(st.integers(0, len(self.prompts) - 1)))

    @rule()
    def commit(self) -> None:
        self.world.commit()

    @rule(survive=st.integers(0, 4))
    def kill(self, survive: int) -> None:
        self.world.crash(survive)

    @rule(seconds=st.sampled_from([1, 59, 299, 600]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @invariant()
    def the_budget_is_never_passed(self) -> None:
        for account in self.world.accounts():
            assert account.spent >= 0
            assert account.reserved >= 0
            assert account.committed <= nanos(LIMIT)

    def teardown(self) -> None:
        self.results.clear()
        world = self.world
        world.run_dry()
        self.the_budget_is_never_passed()
        for number in range(len(self.prompts)):
            responses = world.responses.get(f"default/r-{number}", [])
            assert responses, f"request {number} was lost"
            assert all(one == responses[0] for one in responses), "two terminal answers contradict each other"
            self._is_sound(responses[0])
        ledger = world.ledger()
        accounts = world.accounts()
        assert all((account.reserved, account.open_requests) == (0, 0) for account in accounts), (
            "money is held for ever"
        )
        assert sum(account.spent for account in accounts) == sum(nanos(row.cost) for row in ledger.values())
        assert set(ledger) >= set(world.calls), "a call that was made is not in the ledger"
        assert set(world.calls.values()) <= {1}, "two calls under one attempt number"
        left = [key for key in world.table.rows if key.startswith(("@flight/", "@joined/", "@landed/"))]
        assert not left, "somebody waits for a flight that has ended"

    def _is_sound(self, response: Response) -> None:
        if response.cached:
            assert response.status is Status.SUCCEEDED
            assert (response.usage.cost, response.saved, response.attempts) == (Decimal(0), COST, ())
        elif response.status is Status.SUCCEEDED:
            assert response.saved is None
            assert response.attempts


MoneyLife.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
TestMoneyLife = MoneyLife.TestCase


def test_one_that_was_cancelled_while_it_waited_is_not_called_expired_after_a_crash() -> None:
    """The crash leaves nothing of its admission, which is heard again after its deadline."""
    world = World(lambda _: answer(), budget=STRICT, cache=CachePolicy(ttl=60))
    admission, settlement, *_ = world.readers
    due = world.now + timedelta(seconds=1)
    for number in range(2):
        world.requests.append(request(number, prompt="one", deadline=due))
        world.deliver(admission)
    world.cancel(1)
    world.deliver(settlement)
    world.crash(survive=0)
    world.deliver(admission)
    world.now += timedelta(seconds=1)
    world.run_dry()
    told = world.responses["default/r-1"]
    assert all(one == told[0] for one in told), "two terminal answers contradict each other"


class CalmFlights(RuleBasedStateMachine):
    """Without accidents identical requests are called once, as long as their answer is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(lambda _: answer(), cache=CachePolicy(ttl=60))
        # Within one month: nobody joins a leader of another one.
        self.world.now = START + timedelta(hours=1)
        self.sent: list[tuple[str, float]] = []

    @rule(prompt=st.sampled_from(PROMPTS), count=st.integers(1, 5))
    def publish(self, prompt: str, count: int) -> None:
        for _ in range(count):
            number = len(self.sent)
            self.sent.append((prompt, self.world.now.timestamp()))
            self.world.requests.append(request(number, prompt=prompt, deadline=START + timedelta(days=1)))

    @rule(turns=st.integers(1, 12))
    def work(self, turns: int) -> None:
        for _ in range(turns):
            for reader in self.world.readers:
                if reader.position < len(reader.log):
                    self.world.deliver(reader)
            for task in list(self.world.tasks):
                self.world.advance(task)

    @rule(seconds=st.sampled_from([1, 29, 60]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    def teardown(self) -> None:
        self.world.run_dry()
        assert len(self.world.responses) == len(self.sent)
        called = {call.split("/")[1] for call in self.world.calls}
        for prompt in PROMPTS:
            calls = sorted(
                answers[0].answered_at.timestamp()
                for name, answers in self.world.responses.items()
                if (identity := name.split("/")[1]) in called and self.sent[int(identity[2:])][0] == prompt
            )
            gaps = [later - earlier for earlier, later in pairwise(calls)]
            assert all(gap >= 60 for gap in gaps), "it was called again although its answer was kept"


CalmFlights.TestCase.settings = settings(max_examples=EXAMPLES // 5, stateful_step_count=30, deadline=None)
TestCalmFlights = CalmFlights.TestCase
