"""Records on the standard output, while the connection to Kafka is open."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from app import kafka
from app.cli import tail, wire
from app.kafka import Cluster, KafkaUnavailableError, explained
from app.settings import load_settings


class Consumer:
    """One partition with one record, which the broker brings at so many looks; each takes a second."""

    def __init__(self, brings_at: int = 1) -> None:
        self._position = 0
        self._brings_at = brings_at
        self.looks = 0

    def assignment(self) -> set[str]:
        return {"place"}

    async def end_offsets(self, _: object) -> dict[str, int]:
        return {"place": 1}

    async def beginning_offsets(self, _: object) -> dict[str, int]:
        return {"place": 0}

    def seek(self, _: object, offset: int) -> None:
        self._position = offset

    async def position(self, _: object) -> int:
        return self._position

    def last_poll_timestamp(self, _: object) -> int | None:
        return self.looks if self._position else None

    async def getmany(self, **_: object) -> dict[str, list[Any]]:
        self.looks += 1
        if self.looks < self._brings_at:
            return {}
        self._position = 1
        record = SimpleNamespace(topic="t", partition=0, offset=0, timestamp=0, key=None, headers=(), value=b"{}")
        return {"place": [record]}


async def test_a_broker_that_is_slow_has_not_shown_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer: Any = Consumer(brings_at=12)
    monkeypatch.setattr(kafka, "time", SimpleNamespace(monotonic=lambda: consumer.looks))
    [record] = await tail._last(consumer, "t", 5)
    assert record.value == b"{}"
    silent: Any = Consumer(brings_at=10**9)
    monkeypatch.setattr(kafka, "time", SimpleNamespace(monotonic=lambda: silent.looks))
    with pytest.raises(KafkaUnavailableError, match="could not be read to its end"):
        await tail._last(silent, "t", 5)


async def test_a_reader_who_has_gone_is_not_taken_for_a_broker_that_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def consuming(cluster: Cluster, *_: str) -> AsyncIterator[Any]:
        async with explained(cluster):
            yield Consumer()

    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(wire, "consuming", consuming)
    monkeypatch.setattr(typer, "echo", broken)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    settings = load_settings(kafka_bootstrap_servers="127.0.0.1:1")
    with pytest.raises(typer.Exit):
        await tail._tail(settings, "responses", 5, follow=False, as_json=False)
