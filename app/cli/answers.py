"""Waiting for terminal responses on `ai.responses`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer

from app.cli.wire import poll
from schemas.codec import UndecodableError, decode
from schemas.response import Response


class AnswerReader:
    """Reads responses from where the topic ended when it started, and hands on those that are waited for."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def start(self) -> None:
        """Fix the positions: an answer to what is published from now on is not missed."""
        await self._consumer.seek_to_end()

    async def collect(
        self, wanted: Iterable[str], *, patience: float, on_answer: Callable[[Response], None]
    ) -> frozenset[str]:
        """Hand on one response for each request id; returns the ids that got none.

        Gives up after `patience` seconds in which no wanted response came.
        """
        missing = set(wanted)
        clock = asyncio.get_running_loop().time
        last = clock()
        while missing and clock() - last < patience:
            for record in await poll(self._consumer):
                response = _read(record.value)
                if response is not None and response.request_id in missing:
                    missing.remove(response.request_id)
                    on_answer(response)
                    last = clock()
        return frozenset(missing)


def _read(value: bytes | None) -> Response | None:
    try:
        return decode(Response, value)
    except UndecodableError:
        return None
