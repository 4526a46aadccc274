"""How accounts stand is said when they change, and for all of a partition that was just given to this worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from aiokafka.errors import KafkaTimeoutError

from schemas.budget import BudgetState
from schemas.codec import decode
from streams.accounts import Account, account_key
from streams.budgets import Budget, BudgetBook
from streams.records import Record
from streams.rows import Row, encode_row
from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.lives import Life
from streams.runtime.transport import DrainSignal
from streams.statements import Statements
from streams.topology import BUDGET_STATE
from streams.workspaces import Workspaces

NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Table:
    """Two partitions' rows; the second is another worker's."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self.rows = rows
        self.error: Exception | None = None

    def get(self, key: str, partition: int) -> Row | None:
        self._own(partition)
        return self.rows.get(key)

    def scan(self, prefix: str, partition: int) -> list[tuple[str, Row]]:
        self._own(partition)
        return [(key, row) for key, row in sorted(self.rows.items()) if key.startswith(prefix)]

    def walk(self, prefix: str, partition: int, start: str = "") -> Iterator[tuple[str, Row]]:
        return (pair for pair in self.scan(prefix, partition) if pair[0] >= start)

    def walk_raw(self, prefix: str, partition: int, start: str = "") -> Iterator[tuple[str, bytes]]:
        return ((key, encode_row(row)) for key, row in self.walk(prefix, partition, start))

    async def put_all(self, rows: Mapping[str, Row | None], partition: int) -> list[Any]:
        self._own(partition)
        for key, row in rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        return []

    def life(self, partition: int) -> Life:
        self._own(partition)
        return Life(partition, 1)

    def _own(self, partition: int) -> None:
        if partition != 0:
            raise AbandonedError
        if self.error is not None:
            raise self.error


class Outbox:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.error: Exception | None = None

    async def post_row(self, record: Record, life: Life) -> asyncio.Future[None]:
        assert record.partition == life.partition
        said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            said.set_exception(self.error)
            return said
        self.records.append(record)
        said.set_result(None)
        return said


class World:
    def __init__(self, rows: dict[str, Row]) -> None:
        self.owned = [0, 1]
        self.drain, self.outbox, self.table = DrainSignal(), Outbox(), Table(rows)
        self.workspaces = Workspaces(cast(Any, self.table), self.drain)
        self.statements = Statements(
            workspaces=self.workspaces,
            budgets=BudgetBook(Budget(Decimal(100))),
            outbox=cast(Any, self.outbox),
            drain=self.drain,
            owned=lambda: self.owned,
            clock=lambda: NOW,
        )

    async def said(self) -> list[tuple[str, Decimal, Decimal]]:
        self.outbox.records.clear()
        await self.statements.tell()
        states = [decode(BudgetState, record.value) for record in self.outbox.records]
        assert {record.topic for record in self.outbox.records} <= {BUDGET_STATE}
        assert [record.key for record in self.outbox.records] == [state.key.encode() for state in states]
        return [(state.key, state.spent, state.reserved) for state in states]


def account(spent: int, reserved: int = 0) -> Account:
    return Account(spent=spent * 10**9, reserved=reserved * 10**9)


async def test_a_new_owner_tells_of_every_account_once() -> None:
    world = World({account_key("acme", "2026-11"): account(3), account_key("beta", "2026-10"): account(1)})
    told = [("acme/2026-11", Decimal(3), Decimal(0)), ("beta/2026-10", Decimal(1), Decimal(0))]
    assert await world.said() == told
    assert await world.said() == []
    world.drain.begin()
    world.drain.end()
    assert await world.said() == told, "partitions may have changed hands"


async def test_a_change_is_told_once_with_the_newest_figures() -> None:
    world = World({})
    assert await world.said() == []
    for reserved in (5, 2):
        await world.workspaces.write({account_key("acme", "2026-11"): account(3, reserved)}, 0)
    assert await world.said() == [("acme/2026-11", Decimal(3), Decimal(2))]
    assert await world.said() == []


async def test_a_statement_that_the_broker_does_not_take_is_made_again() -> None:
    world = World({account_key("acme", "2026-11"): account(3)})
    world.outbox.error = KafkaTimeoutError()
    assert await world.said() == []
    await asyncio.sleep(0)
    world.outbox.error = None
    assert await world.said() == [("acme/2026-11", Decimal(3), Decimal(0))]
    assert await world.said() == []


async def test_accounts_that_a_full_disk_did_not_let_a_new_owner_read_are_told_of_when_there_is_room() -> None:
    world = World({account_key("acme", "2026-11"): account(3)})
    world.table.error = StoreError("no space left")
    assert await world.said() == []
    world.table.error = None
    assert await world.said() == [("acme/2026-11", Decimal(3), Decimal(0))]
    assert await world.said() == []


async def test_what_could_not_be_told_of_a_partition_is_not_told_when_it_has_gone_to_another_worker() -> None:
    """Its old figures may still lie on the disk."""
    world = World({})
    assert await world.said() == []
    await world.workspaces.write({account_key("acme", "2026-11"): account(3)}, 0)
    world.table.error = StoreError("no space left")
    assert await world.said() == []
    world.owned = []
    world.table.error = None
    assert await world.said() == []
    world.drain.begin()
    world.drain.end()
    world.owned = [0, 1]
    assert await world.said() == [("acme/2026-11", Decimal(3), Decimal(0))], "all of it when it comes back"


async def test_the_last_word_on_partitions_that_go_elsewhere_is_said_before_they_go() -> None:
    world = World({})
    await world.workspaces.write({account_key("acme", "2026-11"): account(3)}, 0)
    world.drain.begin()
    await world.drain.drained()
    [state] = [decode(BudgetState, record.value) for record in world.outbox.records]
    assert (state.key, state.spent) == ("acme/2026-11", Decimal(3))


async def test_an_account_that_no_statement_can_tell_of_does_not_silence_the_others() -> None:
    strange = replace(account(3), open_requests=-1)
    world = World({account_key("acme", "2026-11"): strange, account_key("beta", "2026-11"): account(1)})
    assert await world.said() == [("beta/2026-11", Decimal(1), Decimal(0))]


async def test_a_partition_with_a_row_that_cannot_be_read_does_not_silence_the_others() -> None:
    world = World({account_key("acme", "2026-11"): account(3)})
    world.statements._owned = lambda: [2, 0]
    table = cast(Any, world.workspaces._table)
    scan = table.scan

    def scan_or_fail(prefix: str, partition: int) -> Any:
        if partition == 2:
            raise KeyError("$")
        return scan(prefix, partition)

    table.scan = scan_or_fail
    assert await world.said() == [("acme/2026-11", Decimal(3), Decimal(0))]
