"""A topic of which every worker knows all: whatever a record does to its listener, the next ones are heard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from streams.runtime.broadcast import Broadcast
from tests.support.clock.waiting import eventually

PLACE = TopicPartition("ai.cancellations", 0)


class Consumer:
    """A partition that has two records at the start, and gets two more in each look after that, up to six."""

    def __init__(self) -> None:
        self._position = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def topics(self) -> set[str]:
        return {PLACE.topic}

    def assign(self, _: object) -> None: ...

    def seek(self, _: object, offset: int) -> None:
        self._position = offset

    async def beginning_offsets(self, _: object) -> dict[TopicPartition, int]:
        return {PLACE: 0}

    async def end_offsets(self, _: object) -> dict[TopicPartition, int]:
        return {PLACE: 2}

    async def position(self, _: object) -> int:
        return self._position

    async def getmany(self, *_: object, **__: object) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        begin, self._position = self._position, min(self._position + 2, 6)
        found = [SimpleNamespace(offset=n, key=b"k", value=b"%d" % n) for n in range(begin, self._position)]
        return {PLACE: found} if found else {}


@pytest.mark.parametrize("strange", [b"0", b"3"])
async def test_a_record_that_its_listener_cannot_bear_keeps_no_later_one_from_it(strange: bytes) -> None:
    heard: list[bytes | None] = []

    def listen(_: bytes | None, value: bytes | None) -> None:
        if value == strange:
            raise ValueError("a row that cannot be read")
        heard.append(value)

    broadcast = Broadcast(Consumer, PLACE.topic, listen)
    await broadcast.start()
    await eventually(lambda: len(heard) == 5)
    await broadcast.stop()
    assert [value for value in (b"0", b"1", b"2", b"3", b"4", b"5") if value != strange] == heard
