"""The sweep: a table's stale keys leave it, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError
from faust.types import TP
from rocksdict import Options, Rdict

from streams.records import Record
from streams.runtime.lives import Lives, worked_on
from streams.runtime.outbox import UndeliverableError
from streams.runtime.tables import DurableTable
from streams.sweep.agent import tick
from streams.topology import TICKS
from tests.support.clock.waiting import eventually
from tests.support.reader.logs import said


@pytest.fixture
def table(tmp_path: Path) -> Iterator[DurableTable[int]]:
    """A table of numbers in a real store, as the task of an event in partition 0 sees it."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    store = Rdict(str(tmp_path), options)
    for number in range(10):
        store.put(f"w/r-{number}".encode(), str(number).encode())
    store.put(b"__faust\0offset__", b"17")
    here = worked_on.set(SimpleNamespace(partition=0))
    changelog = SimpleNamespace(get_topic_name=lambda: "changelog")
    faust_table = SimpleNamespace(name="numbers", data=SimpleNamespace(_dbs={0: store}), changelog_topic=changelog)
    lives = Lives()
    lives.begin([0])
    app: Any = SimpleNamespace(Table=lambda *_, **__: faust_table, lives=lives)
    outbox: Any = None
    yield DurableTable(app, outbox, "numbers", partitions=1, encode=lambda n: str(n).encode(), decode=int)
    worked_on.reset(here)
    store.close()


def test_a_sweep_finds_what_is_stale_and_never_fausts_own_note(table: DurableTable[int]) -> None:
    assert table.find(lambda _, number: number < 3, 100) == ["w/r-0", "w/r-1", "w/r-2"]


def test_a_sweep_looks_at_a_bounded_number_of_keys_and_goes_on_from_there(table: DurableTable[int]) -> None:
    seen: list[int] = []

    def note(_: str, number: int) -> bool:
        seen.append(number)
        return False

    for expected in (3, 7, 10):
        table.find(note, 4)
        assert len(seen) == expected, "the first key of the store is Faust's own"
    table.find(note, 4)
    assert seen[10:] == [0, 1, 2], "after the last key it begins anew"


def test_a_walk_begins_where_it_is_told_and_reads_no_further_than_it_is_asked(table: DurableTable[int]) -> None:
    assert [number for _, number in table.walk("w/r-", 0, "w/r-7")] == [7, 8, 9]
    assert [number for _, number in table.walk("w/r-", 0, "a")] == list(range(10)), "never before its prefix"
    assert list(table.walk("w/r-", 0, "w/s")) == []
    assert next(table.walk("w/", 0, "w/r-3")) == ("w/r-3", 3)


def test_a_row_that_cannot_be_read_stops_no_sweep_and_is_told_of_once(
    table: DurableTable[int], caplog: pytest.LogCaptureFixture
) -> None:
    for key in (b"w/r-1", b"\xff"):
        table._store(0).put(key, b"no number")
    for _ in range(3):
        assert table.find(lambda _, number: number < 3, 100) == ["w/r-0", "w/r-2"]
    assert [record.getMessage() for record in said(caplog, "streams.runtime.tables")] == [
        "row_unreadable: numbers[0]: ValueError; `spillway tables` names it",
        "row_unreadable: numbers[0]: UnicodeDecodeError; `spillway tables` names it",
    ]


@pytest.mark.parametrize(
    "error", [UnknownTopicOrPartitionError(), KafkaTimeoutError(), UndeliverableError("too large")]
)
async def test_a_tick_that_cannot_be_sent_is_followed_by_others(error: Exception) -> None:
    """A worker that had stood still for 40 s did not know its topics any more: its sweep ended for good."""
    sent: list[Record] = []
    refusals = [error]

    async def post(record: Record) -> None:
        if refusals:
            raise refusals.pop()
        sent.append(record)

    own = SimpleNamespace(assignment=lambda: {TP(TICKS, 0), TP(TICKS, 1), TP("other", 2)})
    app: Any = SimpleNamespace(rebalancing=False, should_stop=False, consumer=own)
    outbox: Any = SimpleNamespace(post=post)
    ticking = asyncio.create_task(tick(app, outbox, interval=0.01))
    try:
        await eventually(lambda: len(sent) >= 2, within=5.0, what="ticks")
    finally:
        ticking.cancel()
    assert {record.partition for record in sent[:2]} == {0, 1}
