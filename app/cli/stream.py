"""Waiting for a streamed answer on `ai.replies`: pieces as they come, then the terminal response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer

from app.cli.wire import poll
from schemas.chunk import Chunk
from schemas.codec import UndecodableError, decode, header
from schemas.response import Response


class StreamReader:
    """Hands on the text of one request's chunks, in order, without what was sent twice.

    `on_restart` is called when an attempt has broken off and the next one begins the answer anew.
    """

    def __init__(
        self, request_id: str, on_text: Callable[[str], None], on_restart: Callable[[], None] = lambda: None
    ) -> None:
        self._key = request_id.encode()
        self._on_text = on_text
        self._on_restart = on_restart
        self._attempt = 0
        self._next = 0

    async def read(self, consumer: AIOKafkaConsumer, patience: float) -> Response | None:
        """Return the terminal response; None if nothing comes for `patience` seconds."""
        clock = asyncio.get_running_loop().time
        last = clock()
        while clock() - last < patience:
            for record in await poll(consumer):
                if record.key == self._key:
                    last = clock()
                    if (response := self.hear(record)) is not None:
                        return response
        return None

    def hear(self, record: Any) -> Response | None:
        """One record of the request; the response, if it is that."""
        try:
            if header(record.headers, "ce_type") != Chunk.ce_type.encode():
                return decode(Response, record.value)
            chunk = decode(Chunk, record.value)
        except UndecodableError:
            return None
        if chunk.attempt > self._attempt:
            if self._next:
                self._on_restart()
            self._attempt, self._next = chunk.attempt, 0
        if chunk.attempt == self._attempt and chunk.index == self._next:
            self._next += 1
            self._on_text(chunk.content)
        return None
