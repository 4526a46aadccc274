"""The worker's producer: idempotent, and with an identity of its own for each partition that the worker owns.

A worker that stood still for a while, or was cut off, wakes with rows in its queue and on its connections, and writes
them over those of its successor. Nothing that the worker asks itself can prevent that: the answer may be out of date
when it arrives. So the broker decides. A partition's owner asks the transaction coordinator for a producer id and an
epoch under a name that all its owners share; from the first row of the new owner on, the partition's leader refuses
those of earlier epochs. No transaction is ever begun. Source of the rule: KIP-98 and KIP-360, producer fencing.

Everything else goes under one identity of the process, so that a batch that is sent again is not there twice.

aiokafka has one identity per producer. Two of its classes are extended here: the accumulator, which stamps a batch when
it is sent, and the sender, which decides whether to try again.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NodeNotReadyError,
    NotCoordinatorError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RequestTimedOutError,
    for_code,
)
from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.producer.transaction_manager import PidAndEpoch, TransactionManager
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition
from aiokafka.util import create_future

from streams.runtime.errors import AbandonedError
from streams.runtime.lives import Life

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes | None]]

#: What the coordinator is told that a transaction may take at most. None is ever begun.
TRANSACTION_TIMEOUT_MS = 60_000
#: Seconds between tries of a coordinator that is not ready.
COORDINATOR_RETRY = 0.05
#: What the coordinator says while it is being elected or has work left from before.
NOT_YET = (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NodeNotReadyError,
    NotCoordinatorError,
    RequestTimedOutError,
)
#: Milliseconds that the broker has to answer a batch; it is sent again after that.
ANSWER_TIMEOUT_MS = 30_000
#: The key of the records that find out whether the broker compares epochs.
PROBE = b"__faust_epochs"
#: What the broker says to an earlier owner, and to one of whose rows it misses some.
REFUSED = (ProducerFenced, OutOfOrderSequenceNumber)


class Identity(TransactionManager):  # type: ignore[misc] # aiokafka has no types
    """A producer id and epoch, with a sequence for each partition. Without a life it is the process's own."""

    def __init__(self, life: Life | None = None, on_refused: Callable[[Life], None] = lambda _: None) -> None:
        super().__init__(None, TRANSACTION_TIMEOUT_MS)
        self.life = life
        self.is_over = False
        self._on_refused = on_refused

    def take(self, producer_id: int, epoch: int) -> None:
        """From now on batches are sent under this id and epoch, each partition's from sequence 0 on."""
        self._sequence_numbers.clear()
        self._pid_and_epoch = PidAndEpoch(producer_id, epoch)

    def begin_anew(self) -> None:
        """Ask for another producer id before anything else is sent."""
        self._sequence_numbers.clear()
        self._pid_and_epoch = PidAndEpoch(-1, -1)
        self._pid_waiter = create_future()

    def failed(self, batch: Batch, error: BaseException) -> None:
        """A batch will not be tried again.

        What the broker has refused is not there, and the next batch has its sequence: a partition has one batch on its
        way at a time. Where it is not known whether the broker has it, only a new id is safe.
        """
        if self.is_over or batch.stamp != self._pid_and_epoch:
            return
        if not (isinstance(error, REFUSED) or getattr(error, "retriable", False)):
            self._sequence_numbers[batch.tp] = batch.sequence
        elif self.life is None:
            log.warning("producer_id_renewed: %s[%s]: %s", batch.tp.topic, batch.tp.partition, type(error).__name__)
            self.begin_anew()
        else:
            self.is_over = True
            self._on_refused(self.life)


class Batch(MessageBatch):  # type: ignore[misc] # aiokafka has no types
    """A batch that knows under whose identity it goes."""

    identity: Identity
    #: Takes what waits in a partition under an identity out of the queue.
    take_waiting: Callable[[TopicPartition, Identity], list[Batch]]
    stamp: PidAndEpoch | None = None
    sequence = 0

    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        super().set_producer_state(producer_id, producer_epoch, base_sequence)
        self.stamp, self.sequence = PidAndEpoch(producer_id, producer_epoch), base_sequence

    def expired(self) -> bool:
        """An owner's rows are never given up: the next ones would not be taken without them."""
        return self.identity.life is None and bool(super().expired())

    def failure(self, exception: BaseException) -> None:
        if self.stamp is not None:
            self.identity.failed(self, exception)
        if self.identity.life is not None and self.identity.is_over:
            exception = AbandonedError("the partition has been given up, or has another owner")
        # Later rows of an owner may presuppose this one.
        rest = self.take_waiting(self.tp, self.identity) if self.identity.life is not None else []
        super().failure(exception)
        for batch in rest:
            batch.failure(exception)
        # Nobody need wait for room in it.
        self._drain_waiter.exception()


class Accumulator(MessageAccumulator):  # type: ignore[misc] # aiokafka has no types
    """Keeps an owner's rows apart from everything else."""

    own: Identity
    _txn_manager: Any

    def _append_batch(self, builder: Any, tp: TopicPartition, identity: Identity | None = None) -> Batch:
        batch = Batch(tp, builder, self._batch_ttl, self._linger_time)
        batch.identity, batch.take_waiting = identity or self.own, self._take_waiting
        self._batches[tp].append(batch)
        if not self._waiter_future.done():
            self._waiter_future.set_result(None)
        return batch

    def _pop_batch(self, tp: TopicPartition) -> Any:
        """Stamp it with its own identity. aiokafka stamps with that of the whole producer."""
        whole, self._txn_manager = self._txn_manager, self._batches[tp][0].identity
        try:
            return super()._pop_batch(tp)
        finally:
            self._txn_manager = whole

    def reenqueue(self, batch: Batch) -> None:
        super().reenqueue(batch)
        if batch.identity.is_over:
            self._fail_waiting(batch.tp, batch.identity)

    async def add_row(
        self, tp: TopicPartition, key: bytes, value: bytes | None, identity: Identity, headers: Headers = ()
    ) -> Future[Any]:
        """As `add_message`; the row goes under this identity or not at all."""
        while True:
            if self._closed or identity.is_over:
                raise AbandonedError(f"partition {tp.partition} has been given up")
            if self._exception is not None:
                raise self._exception
            waiting = self._batches.get(tp)
            batch = waiting[-1] if waiting else None
            if batch is None or batch.identity is not identity:
                batch = self._append_batch(self.create_builder(), tp, identity)
            sent: Future[Any] | None = batch.append(key, value, None, headers=list(headers))
            if sent is not None:
                return sent
            if not self._waiter_future.done():
                self._waiter_future.set_result(None)
            await batch.wait_drain(None)

    def give_up(self, identity: Identity) -> None:
        """What waits under this identity is not sent any more. What is on its way may still arrive."""
        identity.is_over = True
        for tp in list(self._batches):
            self._fail_waiting(tp, identity)

    def _fail_waiting(self, tp: TopicPartition, identity: Identity) -> None:
        for batch in self._take_waiting(tp, identity):
            batch.failure(AbandonedError("the partition has been given up"))

    def _take_waiting(self, tp: TopicPartition, identity: Identity) -> list[Batch]:
        waiting = self._batches.get(tp, ())
        taken = [batch for batch in waiting if batch.identity is identity]
        for batch in taken:
            waiting.remove(batch)
            if batch.retry_count:
                # It was on its way once: when it ends, aiokafka looks for it among those that are.
                self._pending_batches.add(batch)
        if tp in self._batches and not waiting:
            del self._batches[tp]
        return taken


class Handler(SendProduceReqHandler):  # type: ignore[misc] # aiokafka has no types
    """aiokafka's idempotent producer never gives up; here only an owner's rows are never given up."""

    def _can_retry(self, error: Any, batch: Batch) -> bool:
        return bool(error.retriable) and not batch.expired() and not batch.identity.is_over


class FencedSender(Sender):  # type: ignore[misc] # aiokafka has no types
    async def _send_produce_req(self, node_id: int, batches: Any) -> None:
        await Handler(self, batches).do(node_id)
        self._in_flight.remove(node_id)
        self._muted_partitions.difference_update(batches)


class FencedProducer(AIOKafkaProducer):  # type: ignore[misc] # aiokafka has no types
    """aiokafka's idempotent producer with `send_row`, for the changelogs of partitions that this process owns.

    `request_timeout_ms` is for how long a record is tried that is no owner's row.
    """

    _message_accumulator: Any
    _sender: Any

    def __init__(self, **options: Any) -> None:
        time_to_live = options.pop("request_timeout_ms")
        super().__init__(enable_idempotence=True, acks="all", request_timeout_ms=ANSWER_TIMEOUT_MS, **options)
        queue, sender = self._message_accumulator, self._sender
        own = self._txn_manager = Identity()
        self._message_accumulator = self._rows = Accumulator(
            self._metadata,
            queue._batch_size,
            queue._compression_type,
            time_to_live / 1000,
            txn_manager=own,
            loop=self._loop,
            linger_ms=queue._linger_time * 1000,
        )
        self._rows.own = own
        self._identities: dict[int, Identity] = {}
        self._sender = FencedSender(
            self.client,
            acks=-1,
            txn_manager=own,
            retry_backoff_ms=sender._retry_backoff * 1000,
            message_accumulator=self._rows,
            request_timeout_ms=self._request_timeout_ms,
        )
        #: Called with the life whose rows the broker has refused.
        self.on_refused: Callable[[Life], None] = lambda _: None

    async def take_epoch(self, name: str) -> tuple[int, int]:
        """A producer id and a new epoch under a name. Who had the name before is refused from the next row on.

        Asks until the coordinator answers: bound it in time. Raises KafkaError for what will not pass by itself.
        """
        while True:
            try:
                node = await self.client.coordinator_lookup(CoordinationType.TRANSACTION, name)
                if not await self.client.ready(node, group=ConnectionGroup.COORDINATION):
                    raise NodeNotReadyError
                request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=TRANSACTION_TIMEOUT_MS)
                answer = await self.client.send(node, request, group=ConnectionGroup.COORDINATION)
                error = for_code(answer.error_code)
                if answer.error_code:
                    raise error
            except NOT_YET:
                await asyncio.sleep(COORDINATOR_RETRY)
            else:
                return answer.producer_id, answer.producer_epoch

    def own(self, life: Life, producer_id: int, epoch: int) -> None:
        """Rows of this life go under this id and epoch from now on."""
        self._disown(life.partition)
        identity = Identity(life, self._refused)
        identity.take(producer_id, epoch)
        self._identities[life.partition] = identity

    def renew(self, life: Life, producer_id: int, epoch: int) -> None:
        """The same owner under a later epoch. What is on its way goes under the one before."""
        identity = self._identities.get(life.partition)
        if identity is not None and identity.life == life:
            identity.take(producer_id, epoch)

    def disown(self, partitions: Collection[int]) -> None:
        """Nothing of these is sent any more."""
        for partition in list(partitions):
            self._disown(partition)

    def _disown(self, partition: int) -> None:
        if (identity := self._identities.pop(partition, None)) is not None:
            self._rows.give_up(identity)

    def _refused(self, life: Life) -> None:
        self.on_refused(life)

    async def send_row(
        self, topic: str, value: bytes | None, key: bytes | None, life: Life, headers: Headers = ()
    ) -> Future[Any]:
        """Hand over a record of the life's partition. Raises AbandonedError, now or later, when the life has ended."""
        identity = self._identities.get(life.partition)
        if identity is None or identity.life != life:
            raise AbandonedError(f"partition {life.partition} of {topic} is another worker's now")
        key, value = self._serialize(key, value, list(headers))
        if topic not in self.client.cluster.topics():
            await self.client._wait_on_metadata(topic)
        place = TopicPartition(topic, life.partition)
        return await self._rows.add_row(place, key or b"", value, identity, headers)

    async def send_as(
        self, topic: str, value: bytes, key: bytes, partition: int, stamp: tuple[int, int]
    ) -> Future[Any]:
        """One record under any id and epoch, as the first of its partition: to find out what the broker does."""
        identity = Identity(Life(partition, 0))
        identity.take(*stamp)
        await self.client._wait_on_metadata(topic)
        return await self._rows.add_row(TopicPartition(topic, partition), key, value, identity)


async def compares_epochs(producer: FencedProducer, topic: str, name: str) -> bool:
    """Whether the broker refuses a record of an earlier epoch after one of a later epoch. Writes to partition 0."""
    earlier = await producer.take_epoch(name)
    later = await producer.take_epoch(name)
    try:
        for stamp in (later, earlier):
            await (await producer.send_as(topic, b"{}", PROBE, 0, stamp))
    except AbandonedError:
        # Also where somebody else asks at the same time.
        return True
    return False


def names_of(application_id: str, partitions: Iterable[int]) -> dict[int, str]:
    """The transactional ids under which the owners of partitions are known."""
    return {partition: f"{application_id}-owner-{partition}" for partition in partitions}
