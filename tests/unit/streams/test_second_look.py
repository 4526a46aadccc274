"""A budget that changes is judged again by the one worker that owns the workspace."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from schemas.alert import BudgetTouched
from schemas.budget import BudgetChange
from schemas.codec import decode, encode
from streams.alert.agent import SecondLook
from streams.budgets import Budget, BudgetBook
from streams.records import Record
from streams.topology import SPEND, Topology
from tests.support.clock.waiting import eventually

TOPOLOGY = Topology("spillway", ("claude",))
NOW = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)


class Stage:
    """A worker that owns some partitions of the observed spend."""

    def __init__(self, *own: int) -> None:
        self.records: list[Record] = []
        self.fails: list[Exception] = []
        self.book = BudgetBook(Budget(Decimal(100)))
        app: Any = SimpleNamespace(
            consumer=SimpleNamespace(assignment=lambda: {TP(SPEND, partition) for partition in own})
        )
        outbox: Any = self
        self.look = SecondLook(app=app, topology=TOPOLOGY, budgets=self.book, outbox=outbox, clock=lambda: NOW)

    async def publish(self, record: Record) -> None:
        if self.fails:
            raise self.fails.pop()
        self.records.append(record)

    async def after(self, *changed: str) -> list[BudgetTouched]:
        """What is asked for when these budgets have changed, and then the one of `last`."""
        running = asyncio.create_task(self.look.run())
        for workspace in (*changed, "last"):
            self.look.note(workspace)
        await eventually(lambda: self.records and self.records[-1].key == b"last")
        running.cancel()
        assert {record.topic for record in self.records} == {SPEND}
        return [decode(BudgetTouched, record.value) for record in self.records[:-1]]


async def test_the_month_is_that_of_the_workspaces_clock() -> None:
    stage = Stage(*range(6))
    stage.book.hear(b"vienna", encode(BudgetChange(workspace_id="vienna", time_zone="Europe/Vienna")))
    looks = await stage.after("acme", "vienna")
    assert [(look.workspace_id, look.month) for look in looks] == [
        ("acme", "2026-11"),
        ("vienna", "2026-12"),
    ]
    assert stage.records[0].partition == TOPOLOGY.workspace_partition("acme")


async def test_whoever_does_not_own_the_workspace_asks_for_nothing() -> None:
    mine = TOPOLOGY.workspace_partition("last")
    stage = Stage(mine)
    others = [f"w{number}" for number in range(20) if TOPOLOGY.workspace_partition(f"w{number}") != mine]
    assert others
    assert await stage.after(*others) == []


@pytest.mark.parametrize("name", ["no workspace's name", "a/b", ""])
async def test_a_key_that_is_no_workspace_stops_nothing(name: str) -> None:
    assert await Stage(*range(6)).after(name) == []


async def test_a_broker_that_is_away_stops_nothing() -> None:
    stage = Stage(*range(6))
    stage.fails.append(KafkaConnectionError())
    assert await stage.after("acme") == []
