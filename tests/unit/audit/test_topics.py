"""When a compacted topic counts as read: what was compacted away never arrives, and a slow broker is no end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from app import kafka
from app.audit import topics
from app.audit.topics import Stretch, read
from app.kafka import Cluster, KafkaUnavailableError

PLACE = TopicPartition("compacted", 0)


class Consumer:
    """A partition of four offsets. Each look takes a second; `answers` says when the broker has answered one, and with
    which offsets. The clock is the number of looks.
    """

    def __init__(self, answers: dict[int, tuple[int, ...]]) -> None:
        self._answers = answers
        self._position = 0
        self._answered: int | None = None
        self.looks = 0

    def assign(self, _: object) -> None: ...

    def seek(self, _: object, offset: int) -> None:
        self._position = offset

    async def position(self, _: object) -> int:
        return self._position

    def last_poll_timestamp(self, _: object) -> int | None:
        return self._answered

    async def getmany(self, *_: object, **__: object) -> dict[TopicPartition, list[Any]]:
        self.looks += 1
        found = self._answers.get(self.looks)
        if found is None:
            return {}
        self._answered = self.looks
        if not found:
            return {}
        self._position = found[-1] + 1
        return {PLACE: [SimpleNamespace(offset=offset, partition=0) for offset in found]}


@pytest.fixture
def offsets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The offsets that are read of a compacted topic, given the broker's answers."""

    async def found(answers: dict[int, tuple[int, ...]]) -> list[int]:
        consumer = Consumer(answers)

        @asynccontextmanager
        async def reader(_: Cluster) -> AsyncIterator[Any]:
            yield consumer

        monkeypatch.setattr(topics, "reader", reader)
        monkeypatch.setattr(kafka, "time", SimpleNamespace(monotonic=lambda: consumer.looks))
        stretch = Stretch("compacted", {0: 0}, {0: 4}, frozenset(), {0: 0})
        return [record.offset async for record in read(cast(Any, None), stretch, compacted=True)]

    return found


async def test_a_gap_at_the_end_that_the_broker_has_confirmed_is_the_end(offsets: Any) -> None:
    assert await offsets({1: (0, 1), 2: (), 3: (), 4: (), 5: ()}) == [0, 1]


async def test_a_broker_that_is_slow_is_waited_for(offsets: Any) -> None:
    assert await offsets({1: (0, 1), 12: (2, 3)}) == [0, 1, 2, 3]


async def test_one_that_is_slow_from_the_beginning_as_well(offsets: Any) -> None:
    assert await offsets({12: (0, 1, 2, 3)}) == [0, 1, 2, 3]


async def test_one_that_does_not_answer_any_more_is_away_and_what_was_read_is_not_all(offsets: Any) -> None:
    with pytest.raises(KafkaUnavailableError):
        await offsets({1: (0, 1)})
