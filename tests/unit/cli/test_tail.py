"""Records on the standard output, while the connection to Kafka is open."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from app.cli import tail, wire
from app.kafka import Cluster, explained
from app.settings import load_settings


class Consumer:
    """One partition with one record."""

    def __init__(self) -> None:
        self._position = 0

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

    async def getmany(self, **_: object) -> dict[str, list[Any]]:
        self._position = 1
        record = SimpleNamespace(topic="t", partition=0, offset=0, timestamp=0, key=None, headers=(), value=b"{}")
        return {"place": [record]}


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
