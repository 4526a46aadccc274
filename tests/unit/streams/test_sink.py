"""A topic into a table: nothing lost, nothing kept out by a bad row, nothing told before it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.codec import UndecodableError
from schemas.dead_letter import DeadLetter
from streams.account.batch import BatchPolicy
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError
from streams.account.sink import Sink
from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.runtime.outbox import Outbox
from streams.runtime.transport import DrainSignal
from streams.topology import DEAD_LETTERS
from tests.support.clock.waiting import eventually


def record(offset: int, value: bytes) -> Any:
    place = {"topic": "ai.usage", "partition": 2, "offset": offset, "timestamp": 5}
    return SimpleNamespace(**place, key=b"acme", value=value, headers=(("h", b"1"),))


def read(found: Any) -> str | None:
    if found.value == b"broken":
        raise UndecodableError("invalid_event", "It is no event.")
    if found.value == b"strange":
        raise ZeroDivisionError
    return None if found.value == b"empty" else found.value.decode()


@dataclass
class Ledger:
    """Refuses rows named `bad`; `away` is how many calls fail before it is there."""

    rows: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    settled: list[set[str]] = field(default_factory=list)
    away: int = 0

    async def write(self, rows: Sequence[str]) -> None:
        self._reached()
        self.sizes.append(len(rows))
        if "fault" in rows:
            raise RuntimeError("the row says: my secret")
        if "bad" in rows:
            raise LedgerRejectedError("It does not fit.")
        self.rows += rows

    async def settle(self, touched: Collection[str]) -> None:
        self._reached()
        self.settled.append(set(touched))

    def _reached(self) -> None:
        if self.away:
            self.away -= 1
            raise LedgerUnavailableError("ClickHouse is away.")


@dataclass
class World:
    ledger: Ledger = field(default_factory=Ledger)
    buried: list[Record] = field(default_factory=list)
    drain: DrainSignal = field(default_factory=DrainSignal)

    async def publish(self, *records: Record) -> None:
        self.buried += records

    def sink(self, retry: float = 0.001, rows: int = 100) -> Sink[str]:
        return Sink(
            topic="ai.usage",
            read=read,
            write=self.ledger.write,
            touches=lambda row: row[0],
            settle=self.ledger.settle,
            policy=BatchPolicy(rows=rows, retry=retry, max_retry=retry),
            outbox=cast(Outbox, self),
            drain=self.drain,
        )

    def letters(self) -> list[tuple[str, int]]:
        assert {found.topic for found in self.buried} <= {DEAD_LETTERS}
        found = [DeadLetter.from_record(letter.key, letter.value, letter.headers) for letter in self.buried]
        return [(letter.code, letter.origin.offset) for letter in found]


def records(*values: str) -> list[Any]:
    return [record(offset, value.encode()) for offset, value in enumerate(values)]


async def test_a_batch_is_written_at_once_and_in_order() -> None:
    world = World()
    await world.sink().take(records("a1", "a2", "b1"))
    assert (world.ledger.rows, world.ledger.sizes, world.buried) == (["a1", "a2", "b1"], [3], [])


async def test_what_was_touched_is_told_once_and_only_at_the_checkpoint() -> None:
    world = World()
    sink = world.sink()
    await sink.take(records("a1", "a2", "b1"))
    await sink.take(records("a3"))
    assert world.ledger.settled == []
    await sink.checkpoint()
    await sink.checkpoint()
    assert world.ledger.settled == [{"a", "b"}]


@pytest.mark.parametrize("bad", range(5))
async def test_one_bad_row_keeps_no_other_out(bad: int) -> None:
    world = World()
    values = [f"a{number}" for number in range(5)]
    values[bad] = "bad"
    await world.sink().take(records(*values))
    assert world.ledger.rows == [value for value in values if value != "bad"]
    assert world.letters() == [("ledger_rejected", bad)]
    assert world.buried[0].value == b"bad"


async def test_a_row_that_was_refused_touches_nothing() -> None:
    world = World()
    sink = world.sink()
    await sink.take(records("bad", "a1"))
    await sink.checkpoint()
    assert world.ledger.settled == [{"a"}]


async def test_a_record_that_cannot_be_read_is_buried_and_the_others_are_written() -> None:
    world = World()
    await world.sink().take(records("a1", "broken", "strange", "empty", "a2"))
    assert world.ledger.rows == ["a1", "a2"]
    assert world.letters() == [("invalid_event", 1), ("internal_error", 2)]


async def test_a_fault_in_writing_is_buried_without_its_words() -> None:
    world = World()
    await world.sink().take(records("a1", "fault"))
    assert world.ledger.rows == ["a1"]
    assert world.letters() == [("internal_error", 1)]
    assert not any(b"secret" in (value or b"") for _, value in world.buried[0].headers)


async def test_while_the_ledger_is_away_the_batch_waits_and_is_written_once() -> None:
    world = World(Ledger(away=3))
    sink = world.sink()
    await sink.take(records("a1", "a2"))
    world.ledger.away = 2
    await sink.checkpoint()
    assert (world.ledger.rows, world.ledger.settled) == (["a1", "a2"], [{"a"}])
    assert world.buried == []


async def test_a_drain_does_not_wait_for_a_ledger_that_is_away() -> None:
    world = World(Ledger(away=10**9))
    taking = asyncio.create_task(world.sink(retry=60.0).take(records("a1")))
    await eventually(lambda: world.ledger.away < 10**9, every=0.001)
    world.drain.begin()
    with pytest.raises(AbandonedError):
        await taking
    assert (world.ledger.rows, world.buried) == ([], [])


async def test_what_could_not_be_told_is_told_at_the_next_checkpoint() -> None:
    world = World()
    sink = world.sink()
    await sink.take(records("a1"))
    world.ledger.away = 10**9
    world.drain.begin()
    with pytest.raises(AbandonedError):
        await sink.checkpoint()
    world.ledger.away = 0
    world.drain.end()
    await sink.checkpoint()
    assert world.ledger.settled == [{"a"}]


async def test_a_batch_of_nothing_writes_nothing() -> None:
    world = World()
    sink = world.sink()
    await sink.take(records("empty"))
    await sink.checkpoint()
    assert (world.ledger.sizes, world.ledger.settled) == ([], [])


async def test_a_large_batch_is_written_in_parts_one_after_the_other() -> None:
    world = World()
    values = [f"a{number}" for number in range(25)]
    await world.sink(rows=10).take(records(*values))
    assert (world.ledger.rows, world.ledger.sizes) == (values, [10, 10, 5])


async def test_a_large_batch_of_which_a_part_could_not_be_written_is_not_done() -> None:
    world = World(Ledger(away=10**9))
    taking = asyncio.create_task(world.sink(retry=60.0, rows=1).take(records("a1", "a2")))
    await eventually(lambda: world.ledger.away < 10**9, every=0.001)
    world.drain.begin()
    with pytest.raises(AbandonedError):
        await taking
    assert world.ledger.rows == []
