"""Sending, and knowing that it arrived: an event is acknowledged only after all that it caused is with the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

import faust
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError
from faust.exceptions import ProducerSendError

from streams.records import Record


class UndeliverableError(Exception):
    """No broker will ever take this record: trying again is of no use."""


class Outbox:
    """Publishes records through the app's own producer (acks from all in-sync replicas)."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def publish(self, *records: Record) -> None:
        """Return when the broker has acknowledged every record; raise where it will not."""
        await arrived([await self.post(record) for record in records])

    async def post(self, record: Record) -> Awaitable[Any]:
        """Hand a record to the producer, in order; the result is done when the broker has acknowledged it.

        Raises UndeliverableError for a record that is too large, or whose partition does not exist.
        """
        try:
            sent: Awaitable[Any] = await self._app.producer.send(
                record.topic,
                record.key,
                record.value,
                record.partition,
                None,
                list(record.headers) or None,
            )
        except AssertionError as error:
            # aiokafka's word for a partition that the topic does not have.
            raise UndeliverableError(f"{record.topic} has no partition {record.partition}") from error
        except ProducerSendError as error:
            if isinstance(error.__cause__, MessageSizeTooLargeError | InvalidTopicError):
                raise UndeliverableError(f"{type(error.__cause__).__name__}") from error
            raise
        return sent


async def arrived(sent: Iterable[Awaitable[Any]]) -> None:
    """Wait for all, then raise the first error: a failed send must not leave others unobserved."""
    results = await asyncio.gather(*sent, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
