"""Tables whose writes can be awaited.

A Faust table write is local at once and in the changelog some time later; nothing tells when. Spillway's promises need
to know: an attempt's mark must be with the broker before the provider is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import faust
from faust import current_event

Value = TypeVar("Value")

#: RocksDB per partition: Faust's defaults (64 MB write buffers, 2 GB cache) are meant for one big database.
ROCKSDB = {
    "driver": "rocksdict",
    "write_buffer_size": 4 * 1024 * 1024,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 * 1024 * 1024,
    "max_open_files": 256,
}


class DurableTable(Generic[Value]):
    """A table of values by text keys, in the partition of the event being worked on.

    Reads and writes are only possible inside the task of an event: its partition is the table's partition.
    """

    def __init__(
        self,
        app: faust.App,
        name: str,
        *,
        partitions: int,
        encode: Callable[[Value], bytes],
        decode: Callable[[bytes], Value],
    ) -> None:
        self._encode = encode
        self._decode = decode
        self._table = app.Table(
            name,
            partitions=partitions,
            key_type=bytes,
            value_type=bytes,
            options=dict(ROCKSDB),
        )

    @property
    def faust_table(self) -> Any:
        return self._table

    def get(self, key: str) -> Value | None:
        stored = self._table.data.get(key.encode())
        return None if stored is None else self._decode(stored)

    def put(self, key: str, value: Value | None) -> Awaitable[Any]:
        """Write locally at once (None deletes); the result is done when the changelog has it."""
        event = current_event()
        if event is None:
            raise RuntimeError("a table can be written only while an event is being worked on")
        name = key.encode()
        stored = None if value is None else self._encode(value)
        sent: Awaitable[Any] = self._table.send_changelog(event.message.partition, name, stored)
        if stored is None:
            self._table.data.pop(name, None)
        else:
            self._table.data[name] = stored
        return sent
