"""A table's rows: read at once, stored when the broker has them, and written by their owner alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka.errors import TopicAuthorizationFailedError
from hypothesis import given
from hypothesis import strategies as some

from streams.runtime import tables
from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.lives import Life, worked_on
from streams.runtime.tables import OWNER_KEY
from streams.runtime.unacknowledged import Agreement, Unacknowledged
from tests.unit.streams.owning import FullDatabase, Owned, owned


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owned]:
    monkeypatch.setattr(tables, "CHECKPOINT_INTERVAL", 0.0)
    with owned(tmp_path) as world:
        yield world


async def test_a_row_is_read_at_once_and_enters_the_store_when_the_broker_has_it(world: Owned) -> None:
    life = await world.begin()
    (sent,) = [await world.table.put("a", "new", life)]
    assert (world.table.get("a", life), world.stored("a")) == ("new", None)
    await world.changelog.take()
    assert sent.done()
    assert (world.table.get("a", life), world.stored("a")) == ("new", "new")


async def test_a_deletion_is_seen_at_once_and_enters_the_store_when_the_broker_has_it(world: Owned) -> None:
    life = await world.begin()
    await world.table.put("a", "old", life)
    await world.changelog.take()
    await world.table.put("a", None, life)
    assert (world.table.get("a", life), world.stored("a")) == (None, "old")
    assert world.table.scan("", life) == []
    await world.changelog.take()
    assert world.stored("a") is None


async def test_a_walk_sees_what_is_on_its_way_between_what_is_stored(world: Owned) -> None:
    life = await world.begin()
    await world.table.put_all({"k/a": "1", "k/c": "3", "l/a": "other"}, life)
    await world.changelog.take()
    await world.table.put_all({"k/b": "2", "k/c": "three", "k/d": "4"}, life)
    assert world.table.scan("k/", life) == [("k/a", "1"), ("k/b", "2"), ("k/c", "three"), ("k/d", "4")]
    assert list(world.table.walk("k/", life, "k/c")) == [("k/c", "three"), ("k/d", "4")]


async def test_what_was_on_its_way_when_the_partition_was_lost_was_never_written(world: Owned) -> None:
    life = await world.begin()
    await world.table.put("a", "late", life)
    world.lives.end()
    with pytest.raises(AbandonedError):
        world.table.get("a", 0)
    again = await world.begin()
    assert world.table.get("a", again) is None
    assert world.stored("a") is None, "acknowledged after the end: the store may be another life's by then"


async def test_an_earlier_life_writes_nothing_in_a_later_one(world: Owned) -> None:
    life = await world.begin()
    await world.begin()
    with pytest.raises(AbandonedError):
        await world.table.put("a", "late", life)
    assert world.changelog.sent == []


async def test_an_event_that_was_read_before_the_last_assignment_writes_nothing(world: Owned) -> None:
    world.lives.begin([0], generation=2)
    here = worked_on.set(SimpleNamespace(partition=0, generation_id=1))
    try:
        assert world.table.get("a") is None, "reading does no harm"
        with pytest.raises(AbandonedError):
            await world.table.put("a", "late", 0)
    finally:
        worked_on.reset(here)


async def test_the_note_of_how_far_the_store_is_goes_on_with_the_owner_s_own_rows(world: Owned) -> None:
    world.changelog.end = 40
    life = await world.begin()
    await world.table.put_all({"a": "1", "b": "2"}, life)
    await world.changelog.take()
    assert world.store.noted == 42


async def test_the_note_stays_where_it_is_when_another_writer_has_been_there(
    world: Owned, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Life] = []
    world.table.on_second_writer = told.append
    life = await world.begin()
    await world.table.put("a", "1", life)
    await world.changelog.take()
    noted, world.changelog.end = world.store.noted, world.changelog.end + 395
    for text in ("2", "3"):
        await world.table.put("a", text, life)
        await world.changelog.take()
    assert world.store.noted == noted
    assert told == [life]
    assert caplog.text.count("second_writer: changelog[0]@") == 1


async def test_what_the_broker_refused_is_known_here_and_goes_before_anything_else(world: Owned) -> None:
    life = await world.begin()
    await world.table.put("a", "refused", life)
    await world.changelog.refuse(TopicAuthorizationFailedError())
    assert world.table.get("a", life) == "refused", "what comes meanwhile is not decided without it"
    assert world.stored("a") is None
    later = asyncio.ensure_future(world.table.put("b", "later", life))
    await asyncio.sleep(0)
    assert world.changelog.keys == ["a"], "the later row waits for the earlier one"
    await world.changelog.take()
    await later
    assert world.changelog.keys == ["b"]


async def test_while_the_broker_goes_on_refusing_it_is_asked_now_and_then(world: Owned) -> None:
    life = await world.begin()
    await world.table.put("a", "refused", life)
    await world.changelog.refuse(TopicAuthorizationFailedError())
    second = asyncio.ensure_future(world.table.put("b", "later", life))
    await asyncio.sleep(0)
    await world.changelog.refuse(TopicAuthorizationFailedError())
    with pytest.raises(TopicAuthorizationFailedError):
        await second
    with pytest.raises(TopicAuthorizationFailedError):
        await world.table.put("c", "later still", life)
    assert world.changelog.sent == [], "the broker was not asked again for the third"
    assert [key for key, _ in world.table.walk("", life)] == ["a", "b", "c"]


async def test_a_store_without_room_keeps_nothing_from_the_broker_and_catches_up_later(world: Owned) -> None:
    life = await world.begin()
    world.store._dbs[0] = FullDatabase(world.store.database)
    world.store.is_full = True
    sent = await world.table.put("a", "1", life)
    await world.changelog.take()
    assert sent.done(), "the broker has it"
    assert (world.table.get("a", life), world.stored("a")) == ("1", None)
    with pytest.raises(StoreError):
        await world.table.put("b", "2", life)
    world.store.is_full = False
    await world.table.put("b", "2", life)
    assert world.stored("a") == "1"


async def test_the_owner_s_own_row_is_no_row_of_the_table(world: Owned) -> None:
    life = await world.begin()
    keeping = asyncio.ensure_future(world.table.keep(life, b'{"owner":"me"}'))
    await asyncio.sleep(0)
    await world.changelog.take()
    await keeping
    assert world.store.database.get(OWNER_KEY) == b'{"owner":"me"}'
    here = worked_on.set(SimpleNamespace(partition=0))
    try:
        assert world.table.find(lambda *_: True, 100) == []
    finally:
        worked_on.reset(here)


@given(
    some.lists(
        some.tuples(some.sampled_from([b"a", b"b", b"c"]), some.one_of(some.none(), some.binary(max_size=2))),
        max_size=12,
    ),
    some.data(),
)
def test_what_is_read_is_always_the_newest_value(
    writes: list[tuple[bytes, bytes | None]], data: some.DataObject
) -> None:
    """However many rows have been stored when one looks."""
    rows, store, newest = Unacknowledged(), dict[bytes, bytes | None](), dict[bytes, bytes | None]()
    waiting: list[tuple[bytes, int, bytes | None]] = []
    for key, value in writes:
        newest[key] = value
        waiting.append((key, rows.add(key, value), value))
        for _ in range(data.draw(some.integers(0, len(waiting)))):
            name, number, stored = waiting.pop(0)
            store[name] = stored
            rows.stored(name, number)
        for name, expected in newest.items():
            pending = rows.get(name)
            assert (store.get(name) if pending is None else pending.value) == expected
    for name, number, stored in waiting:
        store[name] = stored
        rows.stored(name, number)
    assert len(rows) == 0
    assert store == newest


def test_a_broker_that_has_had_the_row_before_says_no_offset_and_the_note_stays() -> None:
    agreement = Agreement(7)
    assert [agreement.acknowledged(offset) for offset in (8, -1, 9)] == [8, None, None]
    assert agreement.is_broken
