"""The desk in every order of arrivals, answers, failures, pauses and time: each request is told its turn, once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.base import Priority
from schemas.control import Mode
from streams.dispatch.breaker import LONGEST_GAP, Circuit
from streams.dispatch.desk import Cancelled, Granted, PassOn, TooLate
from streams.dispatch.ports import Answer, ErrorClass, Failure
from streams.dispatch.quota import Limits
from tests.support.clock.virtual import FOR_EVER, VirtualDesk, answered
from tests.support.values.examples import EXAMPLES

RESULTS: dict[str, Answer | Failure] = {
    "answer": answered(50),
    "refused": Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=5.0),
    "down": Failure(ErrorClass.RETRYABLE, "connection", "nobody there"),
    "ill": Failure(ErrorClass.RETRYABLE, "unavailable", "it answers with 500"),
    "cut": Failure(ErrorClass.RETRYABLE, "truncated", "cut off", may_be_billed=True),
    "no such model": Failure(ErrorClass.FALL_BACK, "no_such_model", "no"),
}


class TurnsAtTheDesk(RuleBasedStateMachine):
    """Calls end when the machine says so, with whatever it draws."""

    @initialize(
        rpm=st.sampled_from([None, 1, 6, 60]), tpm=st.sampled_from([None, 300, 6_000]), concurrency=st.integers(1, 8)
    )
    def open(self, rpm: int | None, tpm: int | None, concurrency: int) -> None:
        self.world = VirtualDesk(Limits(rpm=rpm, tpm=tpm), latency=-1, concurrency=concurrency, look_ahead=10)
        #: When each request has failed last in a way that may be its own fault.
        self.failed_at: dict[str, float] = {}

    @rule(
        workspace=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        seconds=st.sampled_from([0.0, 1.0, 20.0, 70.0, None]),
        tokens=st.sampled_from([1, 100, 1_000]),
        has_fallback=st.booleans(),
    )
    def arrive(
        self, workspace: str, priority: Priority, seconds: float | None, tokens: int, has_fallback: bool
    ) -> None:
        deadline = FOR_EVER if seconds is None else self.world.now + seconds
        self.world.request(workspace, priority=priority, deadline=deadline, tokens=tokens, has_fallback=has_fallback)

    @rule(seconds=st.sampled_from([0.001, 0.5, 5.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run_until(self.world.now + seconds)

    @precondition(lambda self: self.world.in_flight)
    @rule(data=st.data(), name=st.sampled_from(sorted(RESULTS)))
    def a_call_ends(self, data: st.DataObject, name: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.world.in_flight)))
        if name in ("answer", "no such model"):
            self.world.finish(number, RESULTS[name])
        else:
            self.a_call_fails(number, name)

    @rule(workspaces=st.sampled_from(["abcab", "aaaaa"]))
    def the_provider_is_ill(self, workspaces: str) -> None:
        """All that are called fail, until the circuit opens or nobody can be called."""
        for workspace in workspaces:
            self.world.request(workspace)
            for number in sorted(self.world.in_flight):
                self.a_call_fails(number, "ill")

    def a_call_fails(self, number: int, name: str) -> None:
        story, _ = self.world.in_flight[number]
        if name in ("ill", "cut"):
            self.failed_at[story.place.key] = self.world.now
        self.world.finish(number, RESULTS[name])
        self.world.request_again(story, after=0.5)

    @precondition(lambda self: any(not story.turns for story in self.world.stories))
    @rule(data=st.data())
    def one_is_cancelled(self, data: st.DataObject) -> None:
        story = data.draw(st.sampled_from([story for story in self.world.stories if not story.turns]))
        self.world.cancel(story)
        assert story.turns == [Cancelled()]
        self.world.cancel(story)

    @precondition(lambda self: any(story.turns for story in self.world.stories))
    @rule(data=st.data())
    def one_is_cancelled_that_has_had_its_turn(self, data: st.DataObject) -> None:
        self.world.cancel(data.draw(st.sampled_from([story for story in self.world.stories if story.turns])))

    @rule(mode=st.sampled_from(Mode))
    def the_operator_decides(self, mode: Mode) -> None:
        self.world.desk.set_mode(mode)

    @rule(may=st.booleans())
    def the_lease_comes_and_goes(self, may: bool) -> None:
        self.world.may_call = may

    @invariant()
    def everyone_is_told_once(self) -> None:
        assert all(len(story.turns) <= 1 for story in self.world.stories)
        untold = sum(not story.turns for story in self.world.stories)
        assert untold == self.world.desk.waiting

    @invariant()
    def nobody_is_called_after_the_deadline_and_nobody_is_late_before_it(self) -> None:
        for story in self.world.stories:
            if story.called_at is not None:
                assert story.called_at < story.place.deadline
            if story.turns == [TooLate()]:
                assert self.world.now >= story.place.deadline

    @invariant()
    def only_who_can_go_elsewhere_is_sent_there(self) -> None:
        for story in self.world.stories:
            for turn in story.turns:
                if isinstance(turn, PassOn) and turn.reason != "circuit_open":
                    assert story.place.has_fallback

    @invariant()
    def one_probe_at_most_while_the_circuit_is_not_closed(self) -> None:
        probes = sum(held.probe for _, held in self.world.in_flight.values() if not held.ended)
        assert probes <= (self.world.lane.circuit(self.world.now) is not Circuit.CLOSED)

    @invariant()
    def no_request_is_the_probe_soon_after_it_has_failed(self) -> None:
        for story, held in self.world.in_flight.values():
            if held.probe:
                assert held.at >= self.failed_at.get(story.place.key, -LONGEST_GAP) + LONGEST_GAP

    @invariant()
    def who_has_had_a_turn_is_forgotten(self) -> None:
        desk = self.world.desk
        assert len(desk._movable) <= 2 * desk.waiting + 64

    @invariant()
    def reading_stops_at_the_look_ahead(self) -> None:
        assert self.world.reading or self.world.desk.waiting > 0

    def teardown(self) -> None:
        """Once the operator opens the lane and calls end well, everyone is told."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.may_call = True
        world.desk.set_mode(Mode.OPEN)
        for _ in range(2_000):
            if not world.in_flight and not world.desk.waiting:
                break
            for number in sorted(world.in_flight):
                world.finish(number, RESULTS["answer"])
            world.run_until(world.now + 61.0)
        assert all(story.turns for story in world.stories), "somebody waits for ever"
        assert world.reading
        assert world.lane.in_flight == 0
        assert all(isinstance(story.turns[0], (Granted, PassOn, TooLate, Cancelled)) for story in world.stories)


TurnsAtTheDesk.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestTurnsAtTheDesk = TurnsAtTheDesk.TestCase
