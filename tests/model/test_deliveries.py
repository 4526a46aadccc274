"""The commit rule against a plain model, in every order of delivery, acknowledgement, drain and rebalance."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.runtime.deliveries import Deliveries, PartitionDeliveries
from tests.support.values.examples import EXAMPLES


@dataclass(eq=False)
class FakeMessage:
    offset: int
    tp: str = "topic-0"


@dataclass
class Log:
    """A partition of the log: offsets with holes, as compaction, transactions that were aborted and markers leave them.

    What is handed over waits in a channel until an agent takes it; `handed` is the offset after the last of these.
    """

    offsets: list[int] = field(default_factory=list)
    position: int = 0
    finished: set[int] = field(default_factory=set)
    committed: int = 0
    handed: int = -1

    def read_from(self, offset: int) -> None:
        self.position = sum(known < offset for known in self.offsets)
        self.handed = -1

    @property
    def read_to(self) -> int:
        """The next offset that is not read yet: all holes before it are."""
        if self.position < len(self.offsets):
            return self.offsets[self.position]
        return self.offsets[-1] + 3


class CommitsOnlyWhatIsFinished(RuleBasedStateMachine):
    """Never commits over an offset whose work is not finished, and commits everything once all is finished."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.deliveries = Deliveries()
        self.channel: list[FakeMessage] = []
        self.open: list[FakeMessage] = []
        self.stale: list[FakeMessage] = []

    @initialize(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=40))
    def fill(self, gaps: list[int]) -> None:
        offset = -1
        for gap in gaps:
            offset += gap
            self.log.offsets.append(offset)

    @precondition(lambda self: self.log.position < len(self.log.offsets))
    @rule()
    def hand_over(self) -> None:
        message = FakeMessage(self.log.offsets[self.log.position])
        self.log.position += 1
        self.log.handed = message.offset + 1
        self.channel.append(message)

    @precondition(lambda self: self.channel)
    @rule()
    def deliver(self) -> None:
        message = self.channel.pop(0)
        self.deliveries.add(message)
        self.open.append(message)

    @rule()
    def note_how_far_it_is_read(self) -> None:
        self.deliveries.passed("topic-0", self.log.handed, self.log.read_to)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish_any(self, data: st.DataObject) -> None:
        message = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.log.finished.add(message.offset)
        assert self.deliveries.acknowledge(message)
        assert not self.deliveries.acknowledge(message), "a delivery ends once"

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def finish_after_the_partition_was_lost(self, data: st.DataObject) -> None:
        message = self.stale.pop(data.draw(st.integers(0, len(self.stale) - 1)))
        self.log.finished.add(message.offset)
        assert not self.deliveries.acknowledge(message)

    @rule()
    def commit(self) -> None:
        offset = self.deliveries.committable().get("topic-0")
        if offset is not None:
            self.log.committed = max(self.log.committed, offset)

    @rule()
    def rebalance(self) -> None:
        """A drain that ran out of time: what is left goes back, and is read again from the commit."""
        self.deliveries.abandon(self.open)
        self.commit()
        self.deliveries.forget(["topic-0"])
        self.stale += self.open
        self.open = []
        self.channel = []
        self.log.read_from(self.log.committed)

    @rule()
    def seek_back(self) -> None:
        """Faust may seek to the commit without a rebalance: offsets are then delivered a second time."""
        self.commit()
        self.channel = []
        self.deliveries.sought()
        self.log.read_from(self.log.committed)

    @precondition(lambda self: "topic-0" in self.deliveries.committable())
    @rule(data=st.data())
    def a_stage_pauses_and_reads_again(self, data: st.DataObject) -> None:
        """Some are given up; others are still worked on when what lies before them is delivered again."""
        given_up = [message for message in self.open if data.draw(st.booleans())]
        self.deliveries.abandon(given_up)
        self.stale += given_up
        self.open = [message for message in self.open if message not in given_up]
        self.channel = []
        offset = self.deliveries.read_again("topic-0")
        assert offset is not None
        self.log.read_from(offset)

    @invariant()
    def nothing_unfinished_is_committed_over(self) -> None:
        committable = self.deliveries.committable().get("topic-0", 0)
        for offset in self.log.offsets:
            if offset < max(committable, self.log.committed):
                assert offset in self.log.finished

    @invariant()
    def all_is_committable_when_nothing_is_open(self) -> None:
        delivered = self.log.offsets[: self.log.position]
        if not self.open and not self.channel and delivered and "topic-0" in self.deliveries.committable():
            assert self.deliveries.committable()["topic-0"] > delivered[-1]

    def teardown(self) -> None:
        """When everything is read and finished, everything is committable, holes at the end included."""
        if not self.log.offsets:
            return
        while self.log.position < len(self.log.offsets):
            self.hand_over()
        while self.channel:
            self.deliver()
        for message in self.open:
            self.deliveries.acknowledge(message)
        self.note_how_far_it_is_read()
        if not self.stale_open():
            assert self.deliveries.committable()["topic-0"] == self.log.read_to

    def stale_open(self) -> bool:
        """Whether deliveries were made again by a seek, and their first ones are still open or were given up."""
        return len(self.deliveries) > 0


CommitsOnlyWhatIsFinished.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestCommitsOnlyWhatIsFinished = CommitsOnlyWhatIsFinished.TestCase


def test_one_unfinished_event_at_the_head_is_not_committed_over() -> None:
    """The case that Faust gets wrong: everything but the first is acknowledged."""
    partition = PartitionDeliveries()
    for offset in (2585, 2586, 2587):
        partition.delivered(offset)
    partition.acknowledged(2586)
    partition.acknowledged(2587)
    assert partition.committable() == 2585


def test_nothing_is_committable_before_anything_was_delivered() -> None:
    assert PartitionDeliveries().committable() is None


def test_an_abandoned_delivery_is_not_waited_for_and_not_committed_over() -> None:
    deliveries, message = Deliveries(), FakeMessage(7)
    deliveries.add(message)
    assert deliveries.abandon([message]) == 1
    assert len(deliveries) == 0
    assert deliveries.committable() == {"topic-0": 7}


def test_what_is_read_again_is_not_committed_over_while_something_after_it_is_still_worked_on() -> None:
    deliveries = Deliveries()
    first, second = FakeMessage(5), FakeMessage(6)
    deliveries.add(first)
    deliveries.add(second)
    deliveries.abandon([first])
    assert deliveries.read_again("topic-0") == 5
    assert deliveries.committable() == {"topic-0": 5}
    deliveries.abandon([second])
    assert deliveries.committable() == {"topic-0": 5}
