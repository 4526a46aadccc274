"""A table in a real store over a producer of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rocksdict import Options, Rdict

from streams.runtime.errors import AbandonedError
from streams.runtime.lives import Life, Lives
from streams.runtime.outbox import Outbox
from streams.runtime.tables import DurableTable

NOTE = "offset"


class Changelog:
    """Takes rows when it is told to. `end` is the offset of the next one."""

    def __init__(self) -> None:
        self.end = 0
        self.sent: list[tuple[bytes | None, bytes | None, asyncio.Future[Any]]] = []
        self.error: Exception | None = None

    async def send_row(self, topic: str, value: Any, key: Any, life: Life, headers: Any = ()) -> asyncio.Future[Any]:  # noqa: ARG002
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            raise self.error
        self.sent.append((key, value, sent))
        return sent

    def disown(self, partitions: Any) -> None: ...

    async def take(self, count: int | None = None) -> None:
        """Acknowledge so many of the rows that wait, or all."""
        waiting, self.sent = self.sent[:count], self.sent[len(self.sent[:count]) :]
        for _, _, sent in waiting:
            sent.set_result(SimpleNamespace(topic="changelog", partition=0, offset=self.end))
            self.end += 1
        await asyncio.sleep(0)

    async def refuse(self, error: Exception) -> None:
        waiting, self.sent = self.sent, []
        for _, _, sent in waiting:
            sent.set_exception(error)
        await asyncio.sleep(0)

    @property
    def keys(self) -> list[str]:
        return [(key or b"").decode() for key, _, _ in self.sent]


class Store:
    """Faust's store as the table sees it: one database, and the note of how far it is."""

    def __init__(self, path: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self.database = Rdict(str(path), options)
        self._dbs: dict[int, Any] = {0: self.database}
        self.noted: int | None = None
        self.is_full = False

    def set_persisted_offset(self, place: Any, offset: int) -> None:  # noqa: ARG002 - as Faust's
        self.noted = offset

    def _open_for_partition(self, partition: int) -> Any:  # noqa: ARG002 - as Faust's
        if self.is_full:
            raise OSError("no space left on device")
        return self.database


class FullDatabase:
    """Refuses every write."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def put(self, *_: Any) -> None:
        raise OSError("no space left on device")

    delete = put

    def close(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class Owned:
    """A table of texts of which this process owns partition 0."""

    def __init__(self, path: Path) -> None:
        self.changelog, self.store, self.lives = Changelog(), Store(path), Lives()
        outbox = Outbox(lambda: cast(Any, self.changelog))
        outbox._producer = cast(Any, self.changelog)
        faust_table = SimpleNamespace(
            name="texts", data=self.store, changelog_topic=SimpleNamespace(get_topic_name=lambda: "changelog")
        )
        app: Any = SimpleNamespace(Table=lambda *_, **__: faust_table, lives=self.lives)
        self.table: DurableTable[str] = DurableTable(
            app, outbox, "texts", partitions=1, encode=str.encode, decode=bytes.decode
        )

    async def begin(self) -> Life:
        """Own the partition, with the fence acknowledged."""
        life = self.lives.begin([0])[0]
        fencing = asyncio.ensure_future(self.table.fence(life, b"{}"))
        await asyncio.sleep(0)
        await self.changelog.take()
        await fencing
        return life

    def stored(self, key: str) -> str | None:
        value = self.store.database.get(key.encode())
        return None if value is None else cast(bytes, value).decode()


@contextmanager
def owned(path: Path) -> Iterator[Owned]:
    world = Owned(path)
    try:
        yield world
    finally:
        world.store.database.close()


__all__ = ["AbandonedError", "Changelog", "FullDatabase", "Life", "Owned", "owned"]
