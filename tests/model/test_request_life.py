"""A request's life under every accident: promises 1 to 4, with the real decisions and a crash between any two steps."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from schemas.response import Response, Status
from schemas.usage import Outcome
from streams.accounts import nanos
from streams.dispatch.ports import Answer, ErrorClass, Failure
from tests.model.world import PROVIDERS, World, answer, request
from tests.support.values.examples import EXAMPLES

RESULTS: dict[str, Answer | Failure] = {
    "answer": answer(),
    "busy": Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=1.0),
    "cut": Failure(ErrorClass.RETRYABLE, "truncated", "cut off", may_be_billed=True),
    "bad_key": Failure(ErrorClass.FALL_BACK, "bad_key", "no"),
    "refused": Failure(ErrorClass.TERMINAL, "invalid_request", "no"),
}


class RequestLife(RuleBasedStateMachine):
    """Nothing lost, one terminal answer, each call counted once, no call twice under one number."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[str] = []
        self.closed: set[str] = set()
        self.world = World(self._provider, self.closed.__contains__)
        self.sent = 0

    def _provider(self, name: str) -> Answer | Failure:  # noqa: ARG002 - as every provider
        return RESULTS[self.results.pop() if self.results else "answer"]

    @rule(next_results=st.lists(st.sampled_from(sorted(RESULTS)), max_size=3))
    def publish(self, next_results: list[str]) -> None:
        self.results += next_results
        self.world.requests.append(request(self.sent))
        self.sent += 1

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def publish_a_request_id_again(self, data: st.DataObject) -> None:
        self.world.requests.append(request(data.draw(st.integers(0, self.sent - 1))))

    @precondition(lambda self: any(r.position < len(r.log) for r in self.world.readers))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        ready = [reader for reader in self.world.readers if reader.position < len(reader.log)]
        self.world.deliver(ready[data.draw(st.integers(0, len(ready) - 1))])

    @precondition(lambda self: self.world.tasks or self.world.zombies)
    @rule(data=st.data(), steps=st.integers(1, 4))
    def work(self, data: st.DataObject, steps: int) -> None:
        running = [*self.world.tasks, *self.world.zombies]
        task = running[data.draw(st.integers(0, len(running) - 1))]
        for _ in range(steps):
            if task in self.world.tasks or task in self.world.zombies:
                self.world.advance(task)

    @rule()
    def commit(self) -> None:
        self.world.commit()

    @rule(survive=st.integers(0, 3))
    def kill(self, survive: int) -> None:
        self.world.crash(survive)

    @rule()
    def lose_partitions_while_calls_go_on(self) -> None:
        self.world.lose_partitions()

    @rule(name=st.sampled_from(PROVIDERS))
    def a_lane_begins_or_ends_to_send_requests_elsewhere(self, name: str) -> None:
        self.closed ^= {name}

    @rule(seconds=st.sampled_from([1, 299, 600]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    def teardown(self) -> None:
        self.results.clear()
        self.world.run_dry()
        world = self.world
        for number in range(self.sent):
            answers = world.responses.get(f"default/r-{number}", [])
            assert answers, f"request {number} was lost"
            assert all(answer == answers[0] for answer in answers), "two terminal answers contradict each other"
            assert not (answering(answers[0]) & world.doubted), "a late report after a doubt was the answer"
        ledger = world.ledger()
        assert set(ledger) >= set(world.calls), "a call that was made is not in the ledger"
        assert all(ledger[attempt].outcome is Outcome.IN_DOUBT for attempt in set(ledger) - set(world.calls))
        assert set(world.calls.values()) <= {1}, "two calls under one attempt number"
        in_doubt = [row for row in ledger.values() if row.error_code == "interrupted"]
        assert len(in_doubt) <= world.interrupted_calls, "more in doubt than calls were in flight"
        assert all(row.outcome is Outcome.IN_DOUBT and row.cost > 0 for row in in_doubt)
        spent = sum(nanos(row.cost) for row in ledger.values())
        assert sum(account.spent for account in world.accounts()) == spent, "the accounts are not the ledger"
        assert all((account.reserved, account.open_requests) == (0, 0) for account in world.accounts())


def answering(response: Response) -> set[str]:
    """The attempt that has brought the answer, if one has."""
    if response.status is not Status.SUCCEEDED or not response.attempts:
        return set()
    return {f"{response.workspace_id}/{response.request_id}/{response.attempts[-1].attempt}"}


RequestLife.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
TestRequestLife = RequestLife.TestCase


def test_a_request_that_expires_before_its_account_is_written_again_leaves_nothing_reserved() -> None:
    """A crash leaves the record of the second request, and not what it reserved in the account."""
    world = World(lambda _: answer())
    requests, *_ = world.readers
    for number in range(2):
        world.requests.append(request(number))
        world.deliver(requests)
    world.crash(survive=3)
    world.now += timedelta(seconds=601)
    world.run_dry()
    assert [(account.spent, account.reserved, account.open_requests) for account in world.accounts()] == [(0, 0, 0)]


def test_what_a_request_costs_that_was_first_heard_of_as_expired_is_in_its_account() -> None:
    """Two crashes leave two commands and no row: the older one expires, the younger one is called.

    So an older version could leave them, which did not wait for the rows of every request.
    """
    world = World(lambda _: answer())
    requests, reports, commands, _ = world.readers
    world.requests.append(request(0))
    for _ in range(2):
        world.deliver(requests)
        world.run_some(requests)
        world.table.rows.clear()
        world.crash()
        world.now += timedelta(seconds=300)
    assert len(commands.log) == 2
    world.now -= timedelta(seconds=300)
    world.now += timedelta(seconds=301)
    world.deliver(commands)
    world.run_some(commands)
    world.deliver(reports)
    world.run_dry()
    assert list(world.calls) == ["default/r-0/1"]
    assert sum(account.spent for account in world.accounts()) == nanos(world.ledger()["default/r-0/1"].cost) > 0
