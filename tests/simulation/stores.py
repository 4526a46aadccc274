"""A worker's disk: the local stores of its tables, in the place of RocksDB and of Faust's table around it."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

#: Where Faust keeps its own note in a store.
ARRIVED = b"__faust\x00offset__"


class DiskFullError(Exception):
    """As RocksDB's errors: a plain exception."""


@dataclass
class Database:
    """One partition's store. After a write that found no room it refuses everything until it is opened again."""

    disk: Disk
    rows: dict[bytes, bytes] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    is_broken: bool = False

    def get(self, key: bytes) -> bytes | None:
        self._check()
        return self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._check()
        self._write()
        if key not in self.rows:
            insort(self.keys, key)
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self._check()
        self._write()
        if self.rows.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def iter(self) -> Cursor:
        self._check()
        return Cursor(self)

    def close(self) -> None: ...

    @property
    def arrived(self) -> int | None:
        """Up to which offset of its changelog the store is."""
        note = self.rows.get(ARRIVED)
        return None if note is None else int(note)

    def _check(self) -> None:
        if self.is_broken:
            raise DiskFullError("IO error: No space left on device, as before")

    def _write(self) -> None:
        if self.disk.is_full:
            self.is_broken = True
            raise DiskFullError("IO error: No space left on device")


class Cursor:
    """Sees what is written while it moves, or not: here it does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key: bytes | None = None

    def seek(self, key: bytes) -> None:
        at = bisect_left(self._database.keys, key)
        self._key = self._database.keys[at] if at < len(self._database.keys) else None

    def valid(self) -> bool:
        while self._key is not None and self._key not in self._database.rows:
            self.seek(self._key)
        return self._key is not None

    def key(self) -> bytes:
        assert self._key is not None
        return self._key

    def value(self) -> bytes:
        assert self._key is not None
        return self._database.rows[self._key]

    def next(self) -> None:
        assert self._key is not None
        self.seek(self._key + b"\x00")


@dataclass
class Disk:
    """What a worker finds again after a restart."""

    is_full: bool = False
    #: The name that the process before has left.
    process: str | None = None
    stores: dict[tuple[str, int], Database] = field(default_factory=dict)

    def open(self, table: str, partition: int) -> Database:
        if self.is_full:
            raise DiskFullError("IO error: No space left on device")
        store = self.stores.setdefault((table, partition), Database(self))
        store.is_broken = False
        return store


class Data:
    """What `DurableTable` asks of Faust's store."""

    def __init__(self, table: str, disk: Disk) -> None:
        self._table = table
        self._disk = disk
        self._dbs: dict[int, Database] = {}

    def _open_for_partition(self, partition: int) -> Database:
        return self._disk.open(self._table, partition)

    def set_persisted_offset(self, place: Any, offset: int) -> None:
        self._dbs[place.partition].put(ARRIVED, str(offset).encode())

    def open(self, partition: int) -> Database:
        store = self._dbs.get(partition)
        if store is None:
            store = self._dbs[partition] = self._open_for_partition(partition)
        return store

    def keep_only(self, partitions: set[int]) -> None:
        for partition in self._dbs.keys() - partitions:
            self._dbs.pop(partition).close()


class Table:
    """What `DurableTable` asks of Faust's table."""

    def __init__(self, name: str, changelog: str, disk: Disk) -> None:
        self.name = name
        self.changelog = changelog
        self.data = Data(name, disk)
        self.changelog_topic = SimpleNamespace(get_topic_name=lambda: changelog)
