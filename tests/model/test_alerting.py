"""The alert stage's own handler with a crash between any two steps, on observations in any order, again and again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.alert import Alert, BudgetAlert, BudgetTouched, WorkspaceSpend, read_alert
from schemas.budget import BudgetChange
from schemas.codec import decode, encode, header
from streams.alert.agent import Alerting
from streams.alert.habit import Habit
from streams.alert.notes import Note, decode_note, encode_note
from streams.budgets import Budget, BudgetBook
from streams.records import Record
from streams.runtime.incoming import Incoming
from streams.runtime.outbox import Outbox
from streams.runtime.tables import DurableTable
from streams.topology import SPEND, Topology

TOPOLOGY = Topology("spillway", ("claude",))
BEGIN = datetime(2026, 11, 10, tzinfo=UTC)
WORKSPACES = ("acme", "umbrella")
MONTHS = ("2026-10", "2026-11")


class CrashError(Exception):
    """The worker died here."""


@dataclass
class Fuse:
    """Ends the worker after so many steps, or never."""

    left: int | None = None

    def step(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            raise CrashError
        self.left -= 1


class Table:
    """A table whose local store is ahead of its changelog, as Faust's is."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        self.local: dict[str, bytes] = {}
        self.changelog: dict[str, bytes] = {}
        self.writes = 0

    def get(self, key: str) -> Note | None:
        stored = self.local.get(key)
        return None if stored is None else decode_note(stored)

    async def put(self, key: str, value: Note) -> Awaitable[None]:
        self.fuse.step()
        self.local[key] = stored = encode_note(value)
        self.writes += 1

        async def with_the_broker() -> None:
            self.fuse.step()
            self.changelog[key] = stored

        return with_the_broker()


class Wire:
    """The topic of alerts, and that of dead letters."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        self.records: list[Record] = []

    async def publish(self, *records: Record) -> None:
        for record in records:
            self.fuse.step()
            self.records.append(record)
        self.fuse.step()

    def alerts(self) -> list[Alert]:
        return [read_alert(record.value) for record in self.records]


class Stage:
    """A partition of observations, and whoever works on it."""

    def __init__(self) -> None:
        self.fuse = Fuse()
        self.table = Table(self.fuse)
        self.wire = Wire(self.fuse)
        self.book = BudgetBook(Budget(Decimal(100)))
        self.log: list[Incoming] = []
        self.committed = 0
        self.crashes = 0

    def observe(self, workspace: str, month: str, spent: int | Decimal, minutes: int) -> None:
        self._append(WorkspaceSpend(workspace_id=workspace, month=month, spent=Decimal(spent)), minutes)

    def touch(self, workspace: str, month: str, minutes: int) -> None:
        self._append(BudgetTouched(workspace_id=workspace, month=month), minutes)

    def _append(self, event: WorkspaceSpend | BudgetTouched, minutes: int) -> None:
        at = round(BEGIN.timestamp() * 1000) + minutes * 60_000
        headers = (("ce_type", event.ce_type.encode()),)
        self.log.append(Incoming(SPEND, 0, len(self.log), at, event.workspace_id.encode(), encode(event), headers))

    def work(self, steps: int | None = None) -> None:
        """Handle what is not committed; die after so many steps."""
        self.fuse.left = steps
        alerting = Alerting(
            topology=TOPOLOGY,
            budgets=self.book,
            table=cast(DurableTable[Note], self.table),
            outbox=cast(Outbox, self.wire),
        )
        try:
            while self.committed < len(self.log):
                asyncio.run(alerting.handle(self.log[self.committed]))
                self.committed += 1
        except CrashError:
            self.crashes += 1
        self.fuse.left = None


class EachThresholdOnce(RuleBasedStateMachine):
    """At least once on the wire and always in the same words; more than once only where a worker died."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.minutes = 0
        self.totals: defaultdict[tuple[str, str], int] = defaultdict(int)

    @rule(
        workspace=st.sampled_from(WORKSPACES),
        month=st.sampled_from(MONTHS),
        cost=st.integers(0, 60),
        later=st.integers(0, 90),
    )
    def spend(self, workspace: str, month: str, cost: int, later: int) -> None:
        self.minutes += later
        self.totals[workspace, month] += cost
        self.stage.observe(workspace, month, self.totals[workspace, month], self.minutes)

    @precondition(lambda self: self.stage.log)
    @rule(data=st.data())
    def an_earlier_figure_comes_again(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.stage.log))
        self.stage.log.append(
            Incoming(SPEND, 0, len(self.stage.log), known.timestamp, known.key, known.value, known.headers)
        )

    @rule(
        workspace=st.sampled_from(WORKSPACES),
        amount=st.integers(1, 400),
        thresholds=st.lists(st.sampled_from([10, 50, 80, 100, 150]), max_size=4),
    )
    def the_budget_changes(self, workspace: str, amount: int, thresholds: list[int]) -> None:
        change = BudgetChange(workspace_id=workspace, amount=Decimal(amount), thresholds=tuple(thresholds))
        assert self.stage.book.hear(workspace.encode(), encode(change))

    @rule(workspace=st.sampled_from(WORKSPACES), month=st.sampled_from(MONTHS))
    def a_second_look_is_asked_for(self, workspace: str, month: str) -> None:
        self.stage.touch(workspace, month, self.minutes)

    @rule(steps=st.integers(0, 12), moves=st.booleans())
    def a_worker_dies(self, steps: int, *, moves: bool) -> None:
        self.stage.work(steps)
        if moves:
            self.stage.table.local = dict(self.stage.table.changelog)

    @rule()
    def a_worker_works(self) -> None:
        first = self.stage.committed
        self.stage.work()
        for incoming in self.stage.log[first:]:
            if header(incoming.headers, "ce_type") == b"ai.spend":
                self._is_announced(decode(WorkspaceSpend, incoming.value))

    def _is_announced(self, spend: WorkspaceSpend) -> None:
        budget = self.stage.book.of(spend.workspace_id)
        said = {
            alert.threshold
            for alert in self.stage.wire.alerts()
            if isinstance(alert, BudgetAlert) and (alert.workspace_id, alert.month) == (spend.workspace_id, spend.month)
        }
        assert said >= {each for each in budget.thresholds if spend.spent * 100 >= budget.amount * each}

    @rule(data=st.data())
    def replaying_what_was_worked_on_announces_nothing(self, data: st.DataObject) -> None:
        self.stage.work()
        # Once more for a budget that has changed since: the second time there is nothing left to say.
        self.stage.committed = 0
        self.stage.work()
        before = len(self.stage.wire.records)
        self.stage.committed = data.draw(st.integers(0, len(self.stage.log)))
        self.stage.work()
        assert len(self.stage.wire.records) == before

    @invariant()
    def the_same_id_never_says_two_things(self) -> None:
        words: dict[bytes | None, Record] = {}
        for record in self.stage.wire.records:
            name = header(record.headers, "ce_id")
            assert words.setdefault(name, record) == record
        assert len(self.stage.wire.records) - len(words) <= self.stage.crashes * 5

    @invariant()
    def each_occurrence_follows_the_one_before(self) -> None:
        seen: defaultdict[tuple[str, str, int], list[int]] = defaultdict(list)
        for alert in self.stage.wire.alerts():
            if isinstance(alert, BudgetAlert):
                seen[alert.workspace_id, alert.month, alert.threshold].append(alert.occurrence)
        for occurrences in seen.values():
            assert sorted(set(occurrences)) == list(range(1, max(occurrences) + 1))
            assert occurrences == sorted(occurrences)


TestEachThresholdOnce = EachThresholdOnce.TestCase
TestEachThresholdOnce.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def jump(stage: Stage) -> None:
    stage.observe("acme", "2026-11", 45, 0)
    stage.observe("acme", "2026-11", 101, 1)


def test_one_request_that_jumps_from_45_to_101_percent_raises_four_events_and_a_replay_raises_none() -> None:
    stage = Stage()
    jump(stage)
    stage.work()
    kinds = [header(record.headers, "ce_type") for record in stage.wire.records]
    assert kinds == [b"ai.budget.alert"] * 3 + [b"ai.budget.exceeded"]
    assert [header(record.headers, "ce_id") for record in stage.wire.records] == [
        f"acme/2026-11/{threshold}".encode() for threshold in (50, 80, 90, 100)
    ]
    stage.committed = 0
    stage.work()
    assert len(stage.wire.records) == 4


@pytest.mark.parametrize("steps", range(20))
def test_wherever_a_worker_dies_the_four_events_are_there_in_the_same_words(steps: int) -> None:
    stage = Stage()
    jump(stage)
    stage.work(steps)
    # By the time that somebody else takes over, the budget is another one.
    stage.book.hear(b"acme", encode(BudgetChange(workspace_id="acme", amount=Decimal(102))))
    stage.table.local = dict(stage.table.changelog)
    stage.work()
    words = {header(record.headers, "ce_id"): record.value for record in stage.wire.records}
    assert all(words[header(record.headers, "ce_id")] == record.value for record in stage.wire.records)
    assert words.keys() >= {f"acme/2026-11/{threshold}".encode() for threshold in (50, 80, 90)}


def test_a_lowered_budget_is_judged_at_once_by_what_was_spent_last() -> None:
    stage = Stage()
    stage.observe("acme", "2026-11", 40, 0)
    stage.observe("acme", "2026-11", 30, 1)
    stage.touch("acme", "2026-10", 2)
    stage.work()
    assert stage.wire.records == []
    stage.book.hear(b"acme", encode(BudgetChange(workspace_id="acme", amount=Decimal(50))))
    stage.touch("acme", "2026-11", 3)
    stage.touch("acme", "2026-11", 4)
    stage.work()
    said = [(alert.event_id, alert.spent) for alert in stage.wire.alerts()]
    assert said == [("acme/2026-11/50", Decimal(30))]


def test_a_remarkable_hour_is_announced_once_also_by_who_hears_of_it_again() -> None:
    stage = Stage()
    for hour, spent in enumerate((0, 1, 2, 3, 4, 5, 6, 26, 27)):
        stage.observe("acme", "2026-11", spent, hour * 60)
    stage.work()
    said = [alert.event_id for alert in stage.wire.alerts()]
    assert said == ["acme/2026-11-10T07/anomaly"]
    stage.committed = 0
    stage.work()
    assert len(stage.wire.records) == 1


def test_a_busy_workspace_does_not_write_every_figure() -> None:
    stage = Stage()
    for number in range(1_000):
        stage.observe("acme", "2026-11", Decimal(number) / 1_000, 0)
    stage.work()
    assert stage.table.writes < 300
    note = stage.table.get("acme/hours")
    assert isinstance(note, Habit)
    assert Decimal("0.9") < note.spent < 1


async def test_what_is_no_observation_goes_to_the_dead_letters() -> None:
    stage = Stage()
    alerting = Alerting(
        topology=TOPOLOGY, budgets=stage.book, table=cast(Any, stage.table), outbox=cast(Outbox, stage.wire)
    )
    await alerting.handle(Incoming(SPEND, 0, 0, 0, b"acme", b"nonsense", ()))
    assert [record.topic for record in stage.wire.records] == ["ai.dead-letters"]


async def test_observations_of_one_workspace_are_handled_one_after_the_other() -> None:
    stage = Stage()
    jump(stage)
    jump(stage)
    slow = cast(Callable[..., Awaitable[None]], stage.wire.publish)

    async def publish(*records: Record) -> None:
        await asyncio.sleep(0)
        await slow(*records)

    stage.wire.publish = publish  # type: ignore[method-assign]
    alerting = Alerting(
        topology=TOPOLOGY, budgets=stage.book, table=cast(Any, stage.table), outbox=cast(Outbox, stage.wire)
    )
    await asyncio.gather(*(alerting.handle(incoming) for incoming in stage.log))
    assert len(stage.wire.records) == 4


async def test_a_note_that_the_broker_has_not_taken_is_written_again_before_its_word() -> None:
    """The local table has it, and the worker may have lost the partition."""
    stage = Stage()
    jump(stage)
    alerting = Alerting(
        topology=TOPOLOGY, budgets=stage.book, table=cast(Any, stage.table), outbox=cast(Outbox, stage.wire)
    )
    put = stage.table.put

    async def refused(key: str, value: Note) -> Awaitable[None]:
        stage.table.local[key] = encode_note(value)

        async def no() -> None:
            raise KafkaConnectionError

        return no()

    stage.table.put = refused  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await alerting.handle(stage.log[1])
    assert stage.wire.records == []
    stage.table.put = put  # type: ignore[method-assign]
    await alerting.handle(stage.log[1])
    assert stage.wire.records
