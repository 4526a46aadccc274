"""A topic of which every worker knows all: whatever a record does to its listener, the next ones are heard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from streams.runtime import broadcast
from streams.runtime.broadcast import Broadcast
from tests.support.clock.waiting import eventually

PLACE = TopicPartition("ai.cancellations", 0)


class Consumer:
    """A partition that has two records at the start, and gets two more in each look after that, up to six.

    `dies` are what the next looks raise, for all consumers; None: its task that fetches has ended, and nobody is told.
    """

    dies: ClassVar[list[Exception | None]] = []

    def __init__(self) -> None:
        self._position = 0
        self._is_dead: bool = False
        self._fetcher = SimpleNamespace(error_future=SimpleNamespace(done=lambda: self._is_dead))

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
        if self._position >= 2 and self.dies:
            error = self.dies.pop(0)
            if error is not None:
                raise error
            self._is_dead = True
        if self._is_dead:
            return {}
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

    reader = Broadcast(Consumer, PLACE.topic, listen)
    await reader.start()
    await eventually(lambda: len(heard) == 5)
    await reader.stop()
    assert [value for value in (b"0", b"1", b"2", b"3", b"4", b"5") if value != strange] == heard


@pytest.mark.parametrize("death", [KafkaConnectionError(), RuntimeError("a fault in the library"), None])
async def test_whatever_its_reader_dies_of_it_is_read_on_from_where_it_was(
    death: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broadcast, "RETRY", 0.001)
    monkeypatch.setattr(Consumer, "dies", [death, death])
    heard: list[bytes | None] = []
    reader = Broadcast(Consumer, PLACE.topic, lambda _, value: heard.append(value))
    await reader.start()
    await eventually(lambda: len(heard) == 6)
    await reader.stop()
    assert heard == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert caplog.text.count("broadcast_unread: ai.cancellations") == 2
