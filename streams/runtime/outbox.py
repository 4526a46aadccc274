"""Sending, and knowing that it arrived: an event is acknowledged only after all that it caused is with the broker.

The producer is aiokafka's own and not Faust's: Faust's wraps each record in a message object, a future and a sensor
call, and keeps its table writes in a second queue; measured, that was a fifth of a worker's time. One producer for
outputs and changelogs alike also means one order of sending.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError

from schemas.dead_letter import code_of
from streams.metrics import NO_METRICS, Metrics
from streams.records import Record
from streams.runtime.fencing import FencedProducer
from streams.runtime.lives import Life
from streams.topology import DEAD_LETTERS, MAX_RECORD_BYTES
from streams.tracing import NO_TRACES, Traces

#: Milliseconds for which a record waits for a broker that is away before its event is tried again.
DELIVERY_TIMEOUT_MS = 120_000


class UndeliverableError(Exception):
    """No broker will ever take this record: trying again is of no use."""


class Told:
    """What an event has caused and the broker has acknowledged, while the event is tried again.

    One of its outputs may be refused for as long as a topic is away. The others would be published again at each try.
    """

    def __init__(self) -> None:
        self._posted: list[tuple[Record, Future[Any]]] = []
        self._arrived: dict[tuple[Any, ...], Future[Any]] = {}

    def begin(self) -> None:
        """Whatever is posted from here on, in this task and in those that it starts, is remembered."""
        _told.set(self)

    def try_again(self) -> None:
        """The event has failed, and is handled once more."""
        posted, self._posted = self._posted, []
        for record, sent in posted:
            if sent.done() and not has_failed(sent):
                self._arrived[_content(record)] = sent

    def find(self, record: Record) -> Future[Any] | None:
        return self._arrived.get(_content(record)) if self._arrived else None

    def add(self, record: Record, sent: Future[Any]) -> None:
        self._posted.append((record, sent))


_told: ContextVar[Told | None] = ContextVar("told", default=None)


def _content(record: Record) -> tuple[Any, ...]:
    """What makes two records the same: not their headers, which say when they were made."""
    return record.topic, record.partition, record.key, record.value


class Outbox:
    """Publishes records with acknowledgement from all in-sync replicas.

    `clock` stamps them; without one the machine's clock does.
    """

    def __init__(
        self,
        producer: Callable[[], FencedProducer],
        metrics: Metrics = NO_METRICS,
        traces: Traces = NO_TRACES,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._make = producer
        self._metrics = metrics
        self._traces = traces
        self._clock = clock
        self._producer: FencedProducer | None = None

    async def start(self) -> None:
        self._producer = self._make()
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is left, then close."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, *records: Record) -> None:
        """Return when the broker has acknowledged every record; raise where it will not."""
        await arrived([await self.post(record) for record in records])

    async def post(self, record: Record) -> Future[Any]:
        """Hand a record to the producer, in order; the result is done when the broker has acknowledged it.

        What an earlier try of the same event has brought there (`Told`) is not sent again. Raises UndeliverableError
        for a record that is too large, or whose partition does not exist.
        """
        told = _told.get()
        if told is None:
            return await self.post_always(record)
        sent = told.find(record)
        if sent is None:
            sent = await self.post_always(record)
            told.add(record, sent)
        return sent

    async def post_always(self, record: Record) -> Future[Any]:
        """The same, whatever was sent before: for rows of tables, of which the newest counts."""
        sending = self._traces.sending(record)
        if sending is None:
            return await self._hand_over(record)
        with sending:
            sent = await self._hand_over(sending.record)
            sending.until(sent)
        return sent

    async def post_row(self, record: Record, life: Life) -> Future[Any]:
        """A record that the broker takes only from the partition's owner in this life: a row of a table's changelog, or
        what only the owner may say of its rows.

        Raises AbandonedError, now or from the result, where the life has ended.
        """
        try:
            return await self.producer.send_row(record.topic, record.value, record.key, life, record.headers)
        except MessageSizeTooLargeError as error:
            raise UndeliverableError(type(error).__name__) from error

    def disown(self, partitions: Collection[int]) -> None:
        """Rows of these partitions that wait are not sent any more."""
        if self._producer is not None:
            self._producer.disown(partitions)

    @property
    def producer(self) -> FencedProducer:
        """Raises RuntimeError before the start."""
        if self._producer is None:
            raise RuntimeError("the outbox is not started")
        return self._producer

    async def _hand_over(self, record: Record) -> Future[Any]:
        if record.key is None and record.value is None:
            raise UndeliverableError(f"a record of {record.topic} needs a key or a value")
        stamp = None if self._clock is None else round(self._clock().timestamp() * 1000)
        try:
            sent: Future[Any] = await self.producer.send(
                record.topic, record.value, record.key, record.partition, stamp, list(record.headers)
            )
        except AssertionError as error:
            # aiokafka's word for a partition that the topic does not have.
            raise UndeliverableError(f"{record.topic} has no partition {record.partition}") from error
        except (MessageSizeTooLargeError, InvalidTopicError) as error:
            raise UndeliverableError(type(error).__name__) from error
        if record.topic == DEAD_LETTERS:
            code = code_of(record.headers)
            self._metrics.buried(code)
            self._traces.buried(code)
        return sent


def kafka_producer(bootstrap_servers: str, **security: Any) -> FencedProducer:
    """The producer of a worker. Call it inside the event loop."""
    return FencedProducer(
        bootstrap_servers=bootstrap_servers,
        # Batches form while the request before them is on its way; waiting longer would only add latency.
        linger_ms=0,
        max_batch_size=64 * 1024,
        max_request_size=2 * MAX_RECORD_BYTES,
        request_timeout_ms=DELIVERY_TIMEOUT_MS,
        **security,
    )


def has_failed(sent: Future[Any]) -> bool:
    """Whether the broker has not taken it, and will not. A failure that was asked for is not reported as unheard."""
    return sent.done() and (sent.cancelled() or sent.exception() is not None)


async def arrived(sent: Iterable[Awaitable[Any]]) -> None:
    """Wait for all, then raise the first error: a failed send must not leave others unobserved."""
    first: BaseException | None = None
    for result in sent:
        try:
            await result
        except Exception as error:  # noqa: BLE001 - raised below, when all have been heard
            first = first or error
    if first is not None:
        raise first
