"""Tables whose writes can be awaited.

A Faust table write is local at once and in the changelog some time later; nothing tells when. Spillway's promises need
to know: an attempt's mark must be with the broker before the provider is called. So a write here goes, through the
outbox, to the table's changelog, and into the local store when the broker has it; until then it is read from memory
(`unacknowledged.py`). Everything else is Faust's: the table's place on a worker, its recovery from the changelog, its
store.

A write belongs to one life of a partition (`lives.py`): the broker takes it only while this worker is the owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from asyncio import Future, Lock
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar, cast

import faust
from faust.types import TP

from streams.records import Record
from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.lives import Life, Lives, worked_on
from streams.runtime.outbox import Outbox, has_failed
from streams.runtime.unacknowledged import Agreement, Unacknowledged

log = logging.getLogger(__name__)

Value = TypeVar("Value")

#: RocksDB per partition: Faust's defaults (64 MB write buffers, 2 GB cache) are meant for one big database.
ROCKSDB = {
    "driver": "rocksdict",
    "write_buffer_size": 4 * 1024 * 1024,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 * 1024 * 1024,
    "max_open_files": 256,
}

#: What Faust and the owner of a partition keep beside the rows, in the same store and changelog.
OWN_KEYS = b"__faust"
#: The owner's own row. Its value is a JSON object.
OWNER_KEY = b"__faust_owner"

#: Seconds between two notes of how far the local store is. A late note only means reading some changelog again.
CHECKPOINT_INTERVAL = 1.0


class Arrived(NamedTuple):
    """A row that the broker has and the local store has not yet."""

    key: bytes
    number: int
    value: bytes | None
    offset: int


@dataclass
class Part:
    """One partition of a table, in one life."""

    life: Life
    agreement: Agreement
    rows: Unacknowledged = field(default_factory=Unacknowledged)
    arrived: deque[Arrived] = field(default_factory=deque)
    noted_at: float = 0.0
    is_told: bool = False


Where = int | Life | None


class DurableTable(Generic[Value]):
    """A table of values by text keys, in the partition of the event being worked on.

    Reads and writes are in the partition of the event whose task asks, in a partition that is named, or in one life of
    a partition. All raise AbandonedError where the partition is not this worker's, or not in the same life: an event
    of an earlier life writes nothing in a later one.
    """

    def __init__(
        self,
        app: faust.App,
        outbox: Outbox,
        name: str,
        *,
        partitions: int,
        encode: Callable[[Value], bytes],
        decode: Callable[[bytes], Value],
    ) -> None:
        self._outbox = outbox
        self._encode = encode
        self._decode = decode
        self._table = app.Table(name, partitions=partitions, key_type=bytes, value_type=bytes, options=dict(ROCKSDB))
        self._changelog: str = self._table.changelog_topic.get_topic_name()
        self._lives: Lives = cast(Any, app).lives
        self._lives.on_end(self._forget)
        self._parts: dict[int, Part] = {}
        self._cursors: dict[int, bytes] = {}
        self._unreadable: set[bytes] = set()
        #: Partitions whose store has refused.
        self._broken: set[int] = set()
        self._order: defaultdict[int, Lock] = defaultdict(Lock)
        #: Called with the life in which somebody else has written to the changelog.
        self.on_second_writer: Callable[[Life], None] = lambda _: None

    # Reading -------------------------------------------------------------------------------------------------------

    def life(self, where: Where = None) -> Life:
        """The life of the partition that is read."""
        if where is None:
            message = worked_on.get()
            if message is None:
                raise RuntimeError("a table can be used only while an event is being worked on")
            where = cast(int, message.partition)
        return self._lives.of(where)

    def _life_to_write_in(self, where: Where) -> Life:
        """What an event of an earlier life leads to is not written in a later one."""
        life, message = self.life(where), worked_on.get()
        of_event = message is not None and not isinstance(where, Life) and message.partition == life.partition
        if of_event and not self._lives.has(message):
            raise AbandonedError(f"partition {life.partition} has been given up since its event was read")
        return life

    def get(self, key: str, where: Where = None) -> Value | None:
        stored = self._stored(key.encode(), self.life(where))
        return None if stored is None else self._decode(stored)

    def _stored(self, key: bytes, life: Life) -> bytes | None:
        """The newest value of a row, whether or not the broker has it yet."""
        if (pending := self._part(life).rows.get(key)) is not None:
            return pending.value
        store = self._store(life.partition)
        with self._guarded(life.partition):
            return cast(bytes | None, store.get(key))

    def scan(self, prefix: str, where: Where) -> list[tuple[str, Value]]:
        """All keys that begin so, with their values, in the order of their bytes."""
        return list(self.walk(prefix, where))

    def walk(self, prefix: str, where: Where, start: str = "") -> Iterator[tuple[str, Value]]:
        """The same one by one, from `start` on: what is not asked for is not read. What is written meanwhile may be
        missed.
        """
        for key, stored in self.walk_raw(prefix, where, start):
            yield key, self._decode(stored)

    def walk_raw(self, prefix: str, where: Where, start: str = "") -> Iterator[tuple[str, bytes]]:
        """The same with the rows as they are stored."""
        life, wanted = self.life(where), prefix.encode()
        begin = max(wanted, start.encode())
        rows = self._part(life).rows
        on_their_way = ((key, b"") for key in rows.keys(wanted, begin))
        before: bytes | None = None
        for key, value in heapq.merge(self._entries(life.partition, wanted, begin), on_their_way, key=itemgetter(0)):
            if key == before:
                continue
            before = key
            # What was on its way at the beginning may be in the store by now.
            stored = value if value and rows.get(key) is None else self._stored(key, life)
            if stored is not None:
                yield key.decode(), stored

    def _entries(self, partition: int, prefix: bytes, begin: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows of the local store."""
        store = self._store(partition)
        with self._guarded(partition):
            entries = store.iter()
            entries.seek(begin)
        while entries.valid() and entries.key().startswith(prefix):
            yield entries.key(), entries.value()
            with self._guarded(partition):
                entries.next()

    # Writing -------------------------------------------------------------------------------------------------------

    async def put(self, key: str, value: Value | None, where: Where = None) -> Future[Any]:
        """Write a row (None deletes). It is read from here on; the result is done when the changelog has it.

        Nothing else runs before it can be read: who reads, decides and then awaits this does so in one step.
        """
        return (await self.put_all({key: value}, where))[0]

    async def put_all(self, rows: Mapping[str, Value | None], where: Where = None) -> list[Future[Any]]:
        """Write several rows as `put` does, in this order in the changelog: after a crash some of the last ones may be
        missing, and never one before another that is there.
        """
        life = self._life_to_write_in(where)
        writes = [(key.encode(), None if value is None else self._encode(value)) for key, value in rows.items()]
        return await self._write(writes, self._part(life))

    async def _write(self, writes: list[tuple[bytes, bytes | None]], part: Part) -> list[Future[Any]]:
        self._store_what_arrived(part)
        if part.arrived:
            raise StoreError(f"the table {self.name} cannot be written: its store refuses what Kafka has already")
        numbers = [part.rows.add(key, value) for key, value in writes]
        sent: list[Future[Any]] = []
        try:
            # The lock is free but for a full send buffer; then it keeps the changelog in the order of the writes.
            async with self._order[part.life.partition]:
                for (key, value), number in zip(writes, numbers, strict=True):
                    record = Record(self._changelog, key, value, partition=part.life.partition)
                    one = await self._outbox.post_row(record, part.life)
                    one.add_done_callback(partial(self._arrived, part, key, number, value))
                    sent.append(one)
        finally:
            for (key, _), number in list(zip(writes, numbers, strict=True))[len(sent) :]:
                part.rows.take_back(key, number)
        return sent

    def _arrived(self, part: Part, key: bytes, number: int, value: bytes | None, sent: Future[Any]) -> None:
        """The broker has taken a row, or has not."""
        if has_failed(sent):
            # It is still what this worker knows: events that come meanwhile must not be decided without it. Whoever
            # wrote it tries again, or takes it back.
            return None
        if not self._lives.is_current(part.life):
            return None  # The store may be another life's by now, and further.
        part.arrived.append(Arrived(key, number, value, sent.result().offset))
        return self._store_what_arrived(part)

    def _store_what_arrived(self, part: Part) -> None:
        """Put into the local store what the broker has, in order. What finds no room waits for the next try."""
        partition = part.life.partition
        with contextlib.suppress(AbandonedError, StoreError):
            while part.arrived:
                row = part.arrived[0]
                store = self._store(partition)
                with self._guarded(partition):
                    if row.value is None:
                        store.delete(row.key)
                    else:
                        store.put(row.key, row.value)
                part.arrived.popleft()
                part.rows.stored(row.key, row.number)
                self._note(part, row.offset)

    def _note(self, part: Part, offset: int) -> None:
        """Note in the local store up to where it and the changelog agree, so that recovery need not start at zero."""
        agreed = part.agreement.acknowledged(offset)
        if part.agreement.is_broken and not part.is_told:
            part.is_told = True
            log.error(
                "second_writer: %s[%s]@%s: rows of another writer lie before this one; the partition is read again",
                *(self._changelog, part.life.partition, offset),
            )
            self.on_second_writer(part.life)
        now = asyncio.get_running_loop().time()
        if agreed is None or now - part.noted_at < CHECKPOINT_INTERVAL:
            return
        part.noted_at = now
        with self._guarded(part.life.partition):
            place = TP(self._changelog, part.life.partition)
            cast(Any, self._table.data).set_persisted_offset(place, agreed)

    # Ownership -----------------------------------------------------------------------------------------------------

    async def fence(self, life: Life, note: bytes) -> None:
        """Write the owner's first row in a partition. When this returns the broker refuses those of earlier owners, and
        a restore that begins now reads all that it has ever taken from them.
        """
        sent = await self._outbox.post_row(Record(self._changelog, OWNER_KEY, note, partition=life.partition), life)
        place = await sent
        self._parts[life.partition] = Part(life, Agreement(place.offset))

    async def keep(self, life: Life, note: bytes) -> None:
        """Write the owner's row again: the broker forgets a producer that has been silent for a day."""
        for sent in await self._write([(OWNER_KEY, note)], self._part(self._lives.of(life))):
            await sent

    def _part(self, life: Life) -> Part:
        part = self._parts.get(life.partition)
        if part is None or part.life != life:
            part = self._parts[life.partition] = Part(life, Agreement(None))
        return part

    def _forget(self, partitions: frozenset[int]) -> None:
        """These are no longer this worker's. What the broker has not taken was never written."""
        for partition in partitions:
            self._parts.pop(partition, None)
            self._cursors.pop(partition, None)

    @property
    def name(self) -> str:
        return str(self._table.name)

    def find(self, wanted: Callable[[str, Value], bool], limit: int) -> list[str]:
        """Keys of the current partition whose rows are wanted, out of the next `limit` ones.

        Each call goes on where the one before it ended, and begins anew after the last key. A row that cannot be read
        is passed over, and told of once. One that the broker does not have yet is too young to be looked for.
        """
        life = self.life()
        partition, on_their_way = life.partition, self._part(life).rows
        entries = self._store(partition).iter()
        entries.seek(self._cursors.pop(partition, b""))
        found: list[str] = []
        for _ in range(limit):
            if not entries.valid():
                return found
            key = entries.key()
            # Faust and the owner keep their own notes in the same store.
            if not key.startswith(OWN_KEYS) and on_their_way.get(key) is None:
                row = self._readable(key, entries.value(), partition)
                if row is not None and wanted(*row):
                    found.append(row[0])
            entries.next()
        if entries.valid():
            self._cursors[partition] = entries.key()
        return found

    def has_more(self) -> bool:
        """Whether `find` stopped before the last key of the current partition."""
        return self.life().partition in self._cursors

    def _readable(self, key: bytes, stored: bytes, partition: int) -> tuple[str, Value] | None:
        try:
            return key.decode(), self._decode(stored)
        except Exception as error:  # noqa: BLE001 - whatever is in it, it is no row
            if key not in self._unreadable:
                self._unreadable.add(key)
                words = self.name, partition, type(error).__name__
                log.warning("row_unreadable: %s[%s]: %s; `spillway tables` names it", *words)
            return None

    @contextlib.contextmanager
    def _guarded(self, partition: int) -> Iterator[None]:
        """Turn what the store raises into StoreError."""
        try:
            yield
        except Exception as error:
            # The store's own errors are plain exceptions; their text has paths and no values.
            self._broken.add(partition)
            raise StoreError(f"the table {self.name} cannot be read or written: {error}") from error

    def _store(self, partition: int) -> Any:
        """The partition's own database, without Faust's codecs and key index around the bytes."""
        if partition in self._broken:
            self._open_again(partition)
        store = cast(Any, self._table.data)._dbs.get(partition)
        if store is None:
            raise AbandonedError(f"partition {partition} of {self._changelog} is another worker's now")
        return store

    def _open_again(self, partition: int) -> None:
        """RocksDB refuses everything after a write for which the disk had no room, also when there is room again."""
        data = cast(Any, self._table.data)
        broken = data._dbs.pop(partition, None)
        if broken is not None:
            with contextlib.suppress(Exception):
                # It closes, and complains once more.
                broken.close()
        with self._guarded(partition):
            data._dbs[partition] = data._open_for_partition(partition)
        self._broken.discard(partition)
        log.info("store_opened_again: %s[%s]", self.name, partition)
