"""The alert stage's agent: reads the spend that the sink observed, announces thresholds and remarkable hours once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from aiokafka.errors import KafkaError
from faust.types import TP
from pydantic import ValidationError

from schemas.alert import Alert, BudgetTouched, WorkspaceSpend
from schemas.codec import UndecodableError, decode, encode, event_headers, header
from streams.alert import decide, habit
from streams.alert.notes import Note, habit_key, month_key
from streams.budgets import Budget, BudgetBook
from streams.records import Record
from streams.runtime.agents import EventLoop
from streams.runtime.app import SpillwayApp
from streams.runtime.incoming import Incoming
from streams.runtime.letters import bury
from streams.runtime.outbox import Outbox, UndeliverableError, arrived
from streams.runtime.tables import DurableTable
from streams.topology import BUDGET_ALERTS, SPEND, Topology

log = logging.getLogger(__name__)

#: Workspaces whose observations are handled at the same time.
CONCURRENCY = 64


class Alerting:
    """Handles one observation of a workspace's spend."""

    def __init__(self, *, topology: Topology, budgets: BudgetBook, table: DurableTable[Note], outbox: Outbox) -> None:
        self._topology = topology
        self._budgets = budgets
        self._table = table
        self._outbox = outbox
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def handle(self, incoming: Incoming) -> None:
        try:
            event = _read(incoming)
        except UndecodableError as error:
            return await bury(self._outbox, incoming, error.code, str(error))
        home = self._topology.workspace_partition(event.workspace_id)
        if home != incoming.partition:
            # From before there were more partitions: what was announced of the workspace is known there.
            return await self._outbox.publish(Record(SPEND, incoming.key, incoming.value, incoming.headers, home))
        # The moment is the record's own: whenever it is handled again, it says the same.
        now = datetime.fromtimestamp(incoming.timestamp / 1000, UTC)
        budget = self._budgets.of(event.workspace_id)
        # One at a time: two observations of a workspace must not both find a threshold unannounced.
        async with self._turns.setdefault(event.workspace_id, asyncio.Lock()):
            await self._watch_month(event, budget, now)
            if isinstance(event, WorkspaceSpend):
                await self._watch_hour(event, budget, now)
        return None

    async def _watch_month(self, event: WorkspaceSpend | BudgetTouched, budget: Budget, now: datetime) -> None:
        key = month_key(event.workspace_id, event.month)
        known = self._table.get(key)
        before = known if isinstance(known, decide.MonthNote) else decide.MonthNote()
        spent = event.spent if isinstance(event, WorkspaceSpend) else before.last
        spend = WorkspaceSpend(workspace_id=event.workspace_id, month=event.month, spent=spent)
        note = decide.observe(before, spend, budget, now)
        await self._say(key, note, changed=decide.is_worth_a_write(before, note, budget))

    async def _watch_hour(self, spend: WorkspaceSpend, budget: Budget, now: datetime) -> None:
        key = habit_key(spend.workspace_id)
        known = self._table.get(key)
        before = known if isinstance(known, habit.Habit) else habit.Habit()
        note = habit.observe(before, spend, budget, now)
        await self._say(key, note, changed=habit.is_worth_a_write(before, note))

    async def _say(self, key: str, note: Note, *, changed: bool) -> None:
        """First the note of what is to be said, then the word, then the note that it was said.

        A crash in between repeats the word as it was noted, with the same id. The broker has each before the next. A
        note that is found with something unsent is written again: the broker may have refused it.
        """
        if changed or note.unsent:
            await arrived([await self._table.put(key, note)])
        if note.unsent:
            await self._outbox.publish(*(self._record(alert) for alert in note.unsent))
            for alert in note.unsent:
                log.warning("budget_alert: %s: %s", alert.kind, alert.event_id)
            await arrived([await self._table.put(key, note.sent())])

    def _record(self, alert: Alert) -> Record:
        headers = event_headers(
            event_id=alert.event_id,
            event_type=alert.kind,
            workspace_id=alert.workspace_id,
            time=alert.observed_at,
        )
        home = self._topology.workspace_partition(alert.workspace_id)
        return Record(BUDGET_ALERTS, alert.workspace_id.encode(), encode(alert), headers, home)


def _read(incoming: Incoming) -> WorkspaceSpend | BudgetTouched:
    """Raises UndecodableError."""
    if header(incoming.headers, "ce_type") == BudgetTouched.ce_type.encode():
        return decode(BudgetTouched, incoming.value)
    return decode(WorkspaceSpend, incoming.value)


class SecondLook:
    """Has a workspace's newest spend judged again when its budget changes.

    Otherwise a budget that is lowered below the spend, and refuses from then on, would never be announced: nothing is
    spent any more. Only the worker that owns the workspace asks for it, in the workspace's own partition. It may be
    lost with the worker; the next spend says the same.
    """

    def __init__(
        self,
        *,
        app: SpillwayApp,
        topology: Topology,
        budgets: BudgetBook,
        outbox: Outbox,
        clock: Callable[[], datetime],
    ) -> None:
        self._app = app
        self._topology = topology
        self._budgets = budgets
        self._outbox = outbox
        self._clock = clock
        self._changed: asyncio.Queue[str] = asyncio.Queue()

    def note(self, workspace_id: str) -> None:
        """The budget of this workspace has changed."""
        self._changed.put_nowait(workspace_id)

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            workspace_id = await self._changed.get()
            try:
                await self._ask(workspace_id)
            except (KafkaError, UndeliverableError, ValidationError) as error:
                log.warning("second_look_failed: %s", type(error).__name__)

    async def _ask(self, workspace_id: str) -> None:
        home = self._topology.workspace_partition(workspace_id)
        if TP(SPEND, home) not in self._app.consumer.assignment():
            return
        now = self._clock()
        look = BudgetTouched(workspace_id=workspace_id, month=self._budgets.of(workspace_id).month_of(now))
        headers = event_headers(event_id=str(uuid4()), event_type=look.ce_type, workspace_id=workspace_id, time=now)
        await self._outbox.publish(Record(SPEND, workspace_id.encode(), encode(look), headers, home))


def register(app: SpillwayApp, alerting: Alerting, outbox: Outbox) -> None:
    """Subscribe the alert stage to the observed spend."""
    loop = EventLoop(alerting.handle, limit=CONCURRENCY, outbox=outbox, drain=app.drain)
    loop.joins(app, "alert", SPEND)
    topic = app.topic(SPEND, key_type=bytes, value_type=bytes)

    async def alert(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="alert")(alert)
