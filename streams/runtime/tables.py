"""Tables whose writes can be awaited.

A Faust table write is local at once and in the changelog some time later; nothing tells when. Spillway's promises need
to know: an attempt's mark must be with the broker before the provider is called. So a write here goes to the local
store and, through the outbox, to the table's changelog, and returns what to wait for. Everything else is Faust's: the
table's place on a worker, its recovery from the changelog, its store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import Future, Lock
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

import faust
from faust import current_event
from faust.types import TP

from streams.records import Record
from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.lives import Life, Lives
from streams.runtime.outbox import Outbox, has_failed

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

FAUST_KEYS = b"__faust"

#: Seconds between two notes of how far the local store is. A late note only means reading some changelog again.
CHECKPOINT_INTERVAL = 1.0


class DurableTable(Generic[Value]):
    """A table of values by text keys, in the partition of the event being worked on.

    Reads and writes are in the partition of the event whose task asks, or in one that is named: it must be the
    worker's own.
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
        self._checkpoints: dict[int, float] = {}
        self._cursors: dict[int, bytes] = {}
        self._unreadable: set[bytes] = set()
        #: Partitions whose store has refused.
        self._broken: set[int] = set()
        self._order: defaultdict[int, Lock] = defaultdict(Lock)

    def get(self, key: str, partition: int | Life | None = None) -> Value | None:
        partition = self._of(partition)
        store = self._store(partition)
        with self._guarded(partition):
            stored = store.get(key.encode())
        return None if stored is None else self._decode(stored)

    def scan(self, prefix: str, partition: int | Life) -> list[tuple[str, Value]]:
        """All keys that begin so, with their values, in the order of their bytes."""
        return list(self.walk(prefix, partition))

    def walk(self, prefix: str, partition: int | Life, start: str = "") -> Iterator[tuple[str, Value]]:
        """The same one by one, from `start` on: what is not asked for is not read. What is written meanwhile may be
        missed.
        """
        for key, stored in self.walk_raw(prefix, partition, start):
            yield key, self._decode(stored)

    def walk_raw(self, prefix: str, partition: int | Life, start: str = "") -> Iterator[tuple[str, bytes]]:
        """The same with the rows as they are stored."""
        wanted, partition = prefix.encode(), self._of(partition)
        store = self._store(partition)
        with self._guarded(partition):
            entries = store.iter()
            entries.seek(max(wanted, start.encode()))
        while entries.valid() and entries.key().startswith(wanted):
            yield entries.key().decode(), entries.value()
            with self._guarded(partition):
                entries.next()

    async def put(self, key: str, value: Value | None, partition: int | Life | None = None) -> Future[Any]:
        """Write locally at once (None deletes); the result is done when the changelog has it.

        Nothing else runs before the local write: who reads, decides and then awaits this does so in one step.
        """
        return (await self.put_all({key: value}, partition))[0]

    async def put_all(self, rows: Mapping[str, Value | None], partition: int | Life | None = None) -> list[Future[Any]]:
        """Write several rows as `put` does, in this order here and in the changelog: after a crash some of the last
        ones may be missing, and never one before another that is there.
        """
        partition = self._of(partition)
        store = self._store(partition)
        writes = [(key.encode(), None if value is None else self._encode(value)) for key, value in rows.items()]
        with self._guarded(partition):
            for name, stored in writes:
                if stored is None:
                    store.delete(name)
                else:
                    store.put(name, stored)
        # The lock is free but for a full send buffer; then it keeps the changelog in the order of the local writes.
        async with self._order[partition]:
            sent = [
                await self._outbox.post_always(Record(self._changelog, name, stored, partition=partition))
                for name, stored in writes
            ]
        for one in sent:
            one.add_done_callback(self._arrived)
        return sent

    def _of(self, where: int | Life | None) -> int:
        if isinstance(where, Life):
            if not self._lives.is_current(where):
                raise AbandonedError(f"partition {where.partition} of {self._changelog} is another worker's now")
            return where.partition
        return _partition() if where is None else where

    @property
    def name(self) -> str:
        return str(self._table.name)

    def find(self, wanted: Callable[[str, Value], bool], limit: int) -> list[str]:
        """Keys of the current partition whose rows are wanted, out of the next `limit` ones.

        Each call goes on where the one before it ended, and begins anew after the last key. A row that cannot be read
        is passed over, and told of once.
        """
        partition = _partition()
        entries = self._store(partition).iter()
        entries.seek(self._cursors.pop(partition, b""))
        found: list[str] = []
        for _ in range(limit):
            if not entries.valid():
                return found
            key = entries.key()
            # Faust keeps its own note in the same store.
            if not key.startswith(FAUST_KEYS):
                row = self._readable(key, entries.value())
                if row is not None and wanted(*row):
                    found.append(row[0])
            entries.next()
        if entries.valid():
            self._cursors[partition] = entries.key()
        return found

    def has_more(self) -> bool:
        """Whether `find` stopped before the last key of the current partition."""
        return _partition() in self._cursors

    def _readable(self, key: bytes, stored: bytes) -> tuple[str, Value] | None:
        try:
            return key.decode(), self._decode(stored)
        except Exception as error:  # noqa: BLE001 - whatever is in it, it is no row
            if key not in self._unreadable:
                self._unreadable.add(key)
                words = self.name, _partition(), type(error).__name__
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

    def _arrived(self, sent: Future[Any]) -> None:
        """Note in the local store up to where it and the changelog agree, so that recovery need not start at zero."""
        if has_failed(sent):
            return
        place = sent.result()
        now = asyncio.get_running_loop().time()
        if now - self._checkpoints.get(place.partition, 0.0) < CHECKPOINT_INTERVAL:
            return
        self._checkpoints[place.partition] = now
        # Where it cannot be written the next write says so; without it recovery begins further back.
        with contextlib.suppress(AbandonedError, StoreError):
            self._store(place.partition)
            with self._guarded(place.partition):
                cast(Any, self._table.data).set_persisted_offset(TP(place.topic, place.partition), place.offset)


def _partition() -> int:
    event = current_event()
    if event is None:
        raise RuntimeError("a table can be used only while an event is being worked on")
    partition: int = event.message.partition
    return partition
