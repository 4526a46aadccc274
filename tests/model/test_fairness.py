"""The fair queue against a plain model: nothing lost, everybody's turn, bounded memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.base import Priority
from streams.dispatch.fairness import CLASSES, FEW, PATIENCE, TURNS, FairQueue, Waiting
from tests.support.values.examples import EXAMPLES

START = 1_760_000_000.0
FOREVER = START + 1e9
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0}
#: Turns that others take before a class that is out of patience: TURNS - 1, one of the other lower class, and for the
#: middle one another of the lowest, whose own count may end at the moment at which the highest class has run out.
LONGEST_PASSED_OVER = {Priority.NORMAL: TURNS + 1, Priority.BATCH: TURNS}
Item = Waiting[int]


def waiting(
    workspace: str,
    priority: Priority = Priority.NORMAL,
    now: float = START,
    cost: float = 1.0,
    deadline: float = FOREVER,
) -> Item:
    return Waiting(workspace, priority, cost, deadline, now, 0)


@dataclass
class Rivals:
    """Two workspaces of one class, while both have something waiting: how far one was ahead of the other."""

    ahead: float = 0.0
    least: float = 0.0
    most: float = 0.0

    def served(self, share: float) -> None:
        self.ahead += share
        self.least, self.most = min(self.least, self.ahead), max(self.most, self.ahead)


@dataclass
class Class:
    """What the model knows of one class."""

    lines: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    largest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rivals: dict[tuple[str, str], Rivals] = field(default_factory=dict)
    #: What each workspace had out of its turn, and is behind others for, until nobody of the class waits.
    out_of_turn: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    #: Turns of others since it took one from a higher class, and since all of it was out of patience.
    since_its_turn: int = TURNS
    passed_over: int = 0

    @property
    def items(self) -> list[Item]:
        return [item for line in self.lines.values() for item in line]

    def meet(self) -> None:
        """Who is backlogged now; a pair begins anew when one of them was not."""
        present = sorted(workspace for workspace, line in self.lines.items() if line)
        self.rivals = {pair: self.rivals.get(pair, Rivals()) for pair in combinations(present, 2)}
        if not present:
            self.out_of_turn.clear()

    def serve(self, item: Item) -> None:
        share = item.cost / WEIGHTS[item.workspace]
        for (one, other), rivals in self.rivals.items():
            if item.workspace in (one, other):
                rivals.served(share if item.workspace == one else -share)
                bound = self.largest[one] / WEIGHTS[one] + self.largest[other] / WEIGHTS[other]
                bound += self.out_of_turn[one] + self.out_of_turn[other]
                assert rivals.most - rivals.least <= bound + 1e-9

    def take(self, item: Item) -> None:
        """One goes beside the one that waits: its workspace has had a share more, and others come first for it."""
        share = item.cost / WEIGHTS[item.workspace]
        self.out_of_turn[item.workspace] += share
        for pair, rivals in self.rivals.items():
            if item.workspace in pair:
                rivals.served(share if item.workspace == pair[0] else -share)


class Fair(RuleBasedStateMachine):
    """Every request leaves once, in its order, in its class's and its workspace's turn."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.queue: FairQueue[int] = FairQueue(WEIGHTS.__getitem__)
        self.classes = {name: Class() for name in CLASSES}
        self.pushed = 0

    def _all(self) -> list[Item]:
        return [item for cls in self.classes.values() for item in cls.items]

    def _forget(self, item: Item) -> None:
        cls = self.classes[item.priority]
        cls.lines[item.workspace].remove(item)
        cls.meet()

    @rule(
        workspace=st.sampled_from("abcd"),
        priority=st.sampled_from(CLASSES),
        costs=st.lists(st.sampled_from((0.1, 1.0, 3.0, 10.0)), min_size=1, max_size=6),
        patience=st.sampled_from((5.0, 50.0, 500.0, 1e6)),
    )
    def push(self, workspace: str, priority: Priority, costs: list[float], patience: float) -> None:
        cls = self.classes[priority]
        for cost in costs:
            item = Waiting(workspace, priority, cost, self.now + patience, self.now, self.pushed, self.pushed % 7)
            self.pushed += 1
            self.queue.push(item)
            cls.lines[workspace].append(item)
            cls.largest[workspace] = max(cls.largest[workspace], cost)
        cls.meet()

    @rule(turns=st.integers(1, 12), pause=st.sampled_from((0.0, 0.1, 3.0)))
    def pop(self, turns: int, pause: float) -> None:
        for _ in range(turns):
            if not len(self.queue):
                assert self.queue.peek(self.now) is None
                with pytest.raises(LookupError):
                    self.queue.pop(self.now)
                return
            self._pop_one()
            self.now += pause

    def _pop_one(self) -> None:
        shown = self.queue.peek(self.now)
        item = self.queue.pop(self.now)
        assert item is shown
        assert item.gone
        cls = self.classes[item.priority]
        assert cls.lines[item.workspace][0] is item, "in the order of arrival"
        self._check_class(item)
        cls.serve(item)
        self._forget(item)
        self._count(item.priority)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(data=st.data())
    def take_one_beside_the_first(self, data: st.DataObject) -> None:
        first = self.queue.peek(self.now)
        assert first is not None
        beside = self.queue.beside(first)
        cls = self.classes[first.priority]
        assert len(beside) == sum(bool(line) for line in cls.lines.values()) - 1, "one of each other workspace"
        assert all(cls.lines[item.workspace][0] is item for item in beside)
        if beside:
            item = data.draw(st.sampled_from(beside))
            self.queue.take(item)
            assert item.gone
            cls.take(item)
            self._forget(item)
            assert self.queue.peek(self.now) is first, "who waits keeps its turn"

    def _check_class(self, item: Item) -> None:
        """A lower class is next only when it is out of patience and others have had their turns."""
        rank = CLASSES.index(item.priority)
        cls = self.classes[item.priority]
        if any(self.classes[name].items for name in CLASSES[:rank]):
            assert self.now - item.arrived_at >= PATIENCE[item.priority]
            assert cls.since_its_turn >= TURNS - 1
            cls.since_its_turn = -1

    def _count(self, taken: Priority) -> None:
        for name, cls in self.classes.items():
            cls.since_its_turn += 1
            late = bool(cls.items) and all(self.now - item.arrived_at >= PATIENCE[name] for item in cls.items)
            cls.passed_over = cls.passed_over + 1 if late and name is not taken else 0
            assert cls.passed_over <= LONGEST_PASSED_OVER.get(name, cls.passed_over)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(data=st.data(), is_told_twice=st.booleans())
    def remove(self, data: st.DataObject, is_told_twice: bool) -> None:
        items = self._all()
        item = items[data.draw(st.integers(0, len(items) - 1))]
        self.queue.remove(item)
        self._forget(item)
        if is_told_twice:
            self.queue.remove(item)

    @rule(seconds=st.sampled_from((1.0, 5.0, 31.0, 125.0)))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        late = [item for item in self._all() if item.deadline <= self.now]
        due = list(self.queue.due(self.now))
        assert {id(item) for item in due} == {id(item) for item in late}
        assert len(due) == len(late)
        assert [item.deadline for item in due] == sorted(item.deadline for item in late)
        for item in due:
            self._forget(item)

    @invariant()
    def nothing_is_lost(self) -> None:
        items = self._all()
        assert len(self.queue) == len(items)
        assert self.queue.bytes == sum(item.size for item in items)
        assert self.queue.next_deadline() == min((item.deadline for item in items), default=None)

    @invariant()
    def who_has_few_requests_beside_a_long_line_is_light(self) -> None:
        lines = [(name, line) for name, cls in self.classes.items() for line in cls.lines.values() if line]
        for _, line in lines:
            one_is_long = sum(len(other) for _, other in lines) > FEW * len(lines)
            assert self.queue.is_light(line[0]) == (len(line) <= FEW and one_is_long)

    @rule()
    def list_all(self) -> None:
        assert [item.payload for item in self.queue.items()] == sorted(item.payload for item in self._all())

    def teardown(self) -> None:
        while len(self.queue):
            self._pop_one()
        assert not self._all()


Fair.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestFair = Fair.TestCase


def held(queue: FairQueue[int]) -> int:
    """All that the queue's lists and dicts hold, whether it still waits or not."""
    inner = sum(
        len(cls._queues) + len(cls._heap) + sum(len(line.waiting) for line in cls._queues.values())
        for cls in queue._classes.values()
    )
    return inner + len(queue._deadlines)


def test_many_who_left_without_their_turn_are_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.push(waiting("first"))
    for number in range(20_000):
        item = waiting(f"workspace-{number % 700}")
        queue.push(item)
        queue.remove(item)
        assert held(queue) < 1_000
    assert queue.pop(START).workspace == "first"


def test_many_who_expired_behind_a_long_deadline_are_forgotten() -> None:
    """A lane that calls nothing for hours, and new workspaces all the time."""
    queue: FairQueue[int] = FairQueue()
    queue.push(waiting("first"))
    for number in range(20_000):
        queue.push(waiting(f"workspace-{number}", deadline=START + number))
        assert len(list(queue.due(START + number))) == 1
        assert held(queue) < 1_000
    assert len(queue) == 1


def test_many_workspaces_with_one_request_each_are_forgotten_when_nobody_waits() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(3):
        for number in range(20_000):
            queue.push(waiting(f"workspace-{number}"))
        for _ in range(20_000):
            queue.pop(START)
        assert held(queue) < 300


def test_many_workspaces_that_pass_by_a_busy_one_are_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(20_000):
        queue.push(waiting("busy"))
        queue.push(waiting(f"workspace-{number}"))
        queue.pop(START)
        queue.pop(START)
        assert held(queue) < 1_000


def test_what_is_removed_behind_a_long_line_is_forgotten_while_the_line_is_served() -> None:
    queue: FairQueue[int] = FairQueue()
    items = [waiting("a") for _ in range(10_000)]
    for item in items:
        queue.push(item)
    for item in items[4_000:]:
        queue.remove(item)
    for _ in range(3_990):
        queue.pop(START)
    assert held(queue) < 300


@pytest.mark.parametrize("removed", [1, 65, 66, 200])
def test_a_workspace_whose_line_was_cleared_gets_no_second_share(removed: int) -> None:
    queue: FairQueue[int] = FairQueue()
    items = [waiting("a") for _ in range(removed)]
    for item in items:
        queue.push(item)
    for item in items:
        queue.remove(item)
    for _ in range(20):
        queue.push(waiting("a"))
        queue.push(waiting("b"))
    served = [queue.pop(START).workspace for _ in range(20)]
    assert abs(served.count("a") - served.count("b")) <= 1


def test_a_workspace_that_was_idle_does_not_catch_up() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(100):
        queue.push(waiting("busy"))
    for _ in range(50):
        queue.pop(START)
    for _ in range(50):
        queue.push(waiting("late"))
    served = [queue.pop(START).workspace for _ in range(20)]
    assert abs(served.count("busy") - served.count("late")) <= 1


def test_a_workspace_that_comes_back_does_not_catch_up_either() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.push(waiting("back"))
    for _ in range(100):
        queue.push(waiting("busy"))
    for _ in range(51):
        queue.pop(START)
    for _ in range(50):
        queue.push(waiting("back"))
    served = [queue.pop(START).workspace for _ in range(20)]
    assert abs(served.count("busy") - served.count("back")) <= 1


def test_a_class_that_is_patient_again_takes_no_turn_from_a_higher_one() -> None:
    """The one that was out of patience has left, just before its turn."""
    queue: FairQueue[int] = FairQueue()
    old, now = waiting("a"), START + PATIENCE[Priority.NORMAL]
    queue.push(old)
    for _ in range(2 * TURNS):
        queue.push(waiting("b", Priority.INTERACTIVE))
    for _ in range(TURNS - 1):
        assert queue.pop(now).priority is Priority.INTERACTIVE
    queue.remove(old)
    queue.push(waiting("a", now=now))
    assert queue.pop(now).priority is Priority.INTERACTIVE


def test_after_a_pause_all_begin_as_equals() -> None:
    """What a workspace got while nobody else was there is not held against it."""
    queue: FairQueue[int] = FairQueue()
    for _ in range(50):
        queue.push(waiting("alone", cost=100.0))
        queue.pop(START)
    for _ in range(10):
        queue.push(waiting("new"))
        queue.push(waiting("alone"))
    served = [queue.pop(START).workspace for _ in range(10)]
    assert served.count("alone") == 5


@pytest.mark.parametrize("taken_first", [True, False])
def test_all_begin_as_equals_also_where_others_left_without_their_turn(taken_first: bool) -> None:
    """What one had out of its turn is not held against it, though nobody has asked for the next one in between."""
    queue: FairQueue[int] = FairQueue()
    late, early = waiting("late"), waiting("early", cost=100.0)
    queue.push(late)
    queue.push(early)
    if taken_first:
        queue.take(early)
    queue.remove(late)
    if not taken_first:
        queue.take(early)
    for _ in range(10):
        queue.push(waiting("early"))
        queue.push(waiting("late"))
    served = [queue.pop(START).workspace for _ in range(10)]
    assert served.count("early") == 5


def test_a_newcomer_waits_for_at_most_one_request_of_every_other_workspace() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(5):
        for _ in range(1_000):
            queue.push(waiting(f"busy-{number}"))
    for _ in range(777):
        queue.pop(START)
    queue.push(waiting("newcomer"))
    assert "newcomer" in [queue.pop(START).workspace for _ in range(6)]


def test_the_lowest_class_may_pass_the_middle_one_twice_and_then_it_is_its_turn() -> None:
    """Both are out of patience, and the highest has nothing left at the moment at which both would be next."""
    queue: FairQueue[int] = FairQueue()
    now = START + PATIENCE[Priority.BATCH]
    for priority, how_many in ((Priority.INTERACTIVE, 2 * (TURNS - 1)), (Priority.NORMAL, 2), (Priority.BATCH, 3)):
        for _ in range(how_many):
            queue.push(waiting("a", priority))
    order = "".join(queue.pop(now).priority[0] for _ in range(len(queue)))
    assert order == "i" * 9 + "nb" + "i" * 9 + "bnb"


@settings(max_examples=100, deadline=None)
@given(
    lower=st.lists(st.sampled_from((Priority.NORMAL, Priority.BATCH)), min_size=1, max_size=20),
    higher_per_turn=st.integers(1, 3),
    pause=st.sampled_from((0.1, 1.0, 10.0)),
)
def test_nothing_waits_for_ever_behind_a_class_that_never_ends(
    lower: list[Priority], higher_per_turn: int, pause: float
) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, priority in enumerate(lower):
        queue.push(waiting(f"workspace-{number % 3}", priority))
    now, left = START, len(lower)
    turns = int(PATIENCE[Priority.BATCH] / pause) + (TURNS + 1) * (len(lower) + 2)
    for _ in range(turns):
        for _ in range(higher_per_turn):
            queue.push(waiting("higher", Priority.INTERACTIVE, now))
        left -= queue.pop(now).priority is not Priority.INTERACTIVE
        now += pause
    assert left == 0


def test_all_leave_in_the_order_of_their_deadlines_when_a_lane_is_given_up() -> None:
    queue: FairQueue[int] = FairQueue()
    items = [waiting(name, deadline=START + at) for name, at in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
    for item in items:
        queue.push(item)
    assert [item.workspace for item in queue.clear()] == ["b", "c", "a"]
    assert len(queue) == 0
    assert queue.peek(START) is None


def test_those_ahead_are_all_of_higher_classes_and_fair_shares_of_ones_own() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(7):
        queue.push(waiting("a", Priority.INTERACTIVE))
    for _ in range(50):
        queue.push(waiting("a"))
    queue.push(waiting("b"))
    assert queue.ahead_of("c", Priority.NORMAL) == 7 + 2
    assert queue.ahead_of("b", Priority.NORMAL) == 7 + 4
    assert queue.ahead_of("a", Priority.NORMAL) == 7 + 51
    assert queue.ahead_of("c", Priority.INTERACTIVE) == 1
    assert queue.ahead_of("c", Priority.BATCH) == 7 + 51
