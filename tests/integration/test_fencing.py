"""The real broker refuses what an earlier owner of a partition has still to write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from app.devstack.stack import DevStack
from streams.runtime.errors import AbandonedError
from streams.runtime.fencing import FencedProducer, compares_epochs
from streams.runtime.lives import Life
from streams.runtime.outbox import kafka_producer
from tests.support.stack.running import settings_of

pytestmark = pytest.mark.stack

#: What the topic of these tests takes in one batch.
SMALL = 100_000


@pytest.fixture
def bootstrap(stack: DevStack) -> str:
    return settings_of(stack).kafka_bootstrap_servers


@pytest.fixture
async def topic(bootstrap: str) -> str:
    name = f"rows-{uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs={"max.message.bytes": str(SMALL)})])
    await admin.close()
    return name


@asynccontextmanager
async def producing(bootstrap: str, refused: list[Life] | None = None) -> AsyncIterator[FencedProducer]:
    producer = kafka_producer(bootstrap)
    await producer.start()
    producer.on_refused = ([] if refused is None else refused).append
    try:
        yield producer
    finally:
        producer.disown([0, 1])
        await producer.stop()


async def owner(producer: FencedProducer, name: str, partition: int = 0, number: int = 1) -> Life:
    life = Life(partition, number)
    producer.own(life, *await producer.take_epoch(f"{name}-{partition}"))
    return life


async def put(producer: FencedProducer, topic: str, life: Life, value: bytes, key: bytes = b"k") -> None:
    async with asyncio.timeout(30):
        await (await producer.send_row(topic, value, key, life))


async def values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The values of partition 0, of which there are so many."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        assert end == count
        found: list[bytes] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                found += [record.value for record in (await consumer.getmany(place, timeout_ms=500)).get(place, [])]
        return found
    finally:
        await consumer.stop()


async def test_from_the_new_owner_s_first_row_on_the_earlier_one_is_refused(bootstrap: str, topic: str) -> None:
    name, refused = uuid4().hex, list[Life]()
    async with producing(bootstrap, refused) as first, producing(bootstrap) as second:
        earlier = await owner(first, name)
        await put(first, topic, earlier, b"1")
        later = await owner(second, name)
        await put(first, topic, earlier, b"2, before the new owner has written anything")
        await put(second, topic, later, b"3")
        with pytest.raises(AbandonedError):
            await put(first, topic, earlier, b"4, too late")
        assert refused == [earlier]
        with pytest.raises(AbandonedError):
            await put(first, topic, earlier, b"5, not even sent")
        await put(second, topic, later, b"6")
        found = await values(bootstrap, topic, 4)
        assert [value[:1] for value in found] == [b"1", b"2", b"3", b"6"]


async def test_an_owner_of_one_partition_is_not_touched_by_what_happens_in_another(bootstrap: str, topic: str) -> None:
    name, refused = uuid4().hex, list[Life]()
    async with producing(bootstrap, refused) as first, producing(bootstrap) as second:
        zero, one = await owner(first, name, 0), await owner(first, name, 1, number=2)
        await put(second, topic, await owner(second, name, 0), b"fence")
        with pytest.raises(AbandonedError):
            await put(first, topic, zero, b"late")
        await put(first, topic, one, b"mine")
        await (await first.send(topic, b"plain", b"k", 0))
        assert refused == [zero]


async def test_rows_that_wait_in_a_queue_do_not_outlive_their_life(bootstrap: str, topic: str) -> None:
    """They would go under the next life's epoch otherwise, if the same worker gets the partition back."""
    name = uuid4().hex
    async with producing(bootstrap) as producer:
        life = await owner(producer, name)
        epoch = await producer.take_epoch(f"{name}-0")
        waiting = [await producer.send_row(topic, b"old" * 200, b"%d" % number, life) for number in range(400)]
        producer.own(again := Life(0, 2), *epoch)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await put(producer, topic, again, b"new")
        with pytest.raises(AbandonedError):
            await put(producer, topic, life, b"old")
    assert {type(result) for result in results if isinstance(result, BaseException)} <= {AbandonedError}
    assert any(isinstance(result, AbandonedError) for result in results)


async def test_a_record_that_the_topic_does_not_take_is_refused_alone(bootstrap: str, topic: str) -> None:
    """The sequence has no gap after it: neither an owner's, nor the process's own."""
    async with producing(bootstrap, refused := list[Life]()) as producer:
        life = await owner(producer, uuid4().hex)
        await put(producer, topic, life, b"1")
        with pytest.raises(MessageSizeTooLargeError):
            await put(producer, topic, life, b"x" * 2 * SMALL)
        await put(producer, topic, life, b"2")
        async with asyncio.timeout(30):
            await (await producer.send(topic, b"3", b"k", 0))
            with pytest.raises(MessageSizeTooLargeError):
                await (await producer.send(topic, b"x" * 2 * SMALL, b"k", 0))
            await (await producer.send(topic, b"4", b"k", 0))
        assert refused == []
    assert await values(bootstrap, topic, 4) == [b"1", b"2", b"3", b"4"]


async def test_what_waits_behind_a_refused_row_is_refused_with_it(bootstrap: str, topic: str) -> None:
    async with producing(bootstrap) as producer:
        life = await owner(producer, uuid4().hex)
        await put(producer, topic, life, b"1")
        sent = [await producer.send_row(topic, value, b"k", life) for value in (b"x" * 2 * SMALL, b"y" * 2 * SMALL)]
        async with asyncio.timeout(30):
            results = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(result) for result in results] == [MessageSizeTooLargeError] * 2
        await put(producer, topic, life, b"2")
    assert await values(bootstrap, topic, 2) == [b"1", b"2"]


async def test_an_owner_that_renews_its_epoch_goes_on_and_refuses_who_has_the_one_before(
    bootstrap: str, topic: str
) -> None:
    name = uuid4().hex
    async with producing(bootstrap, refused := list[Life]()) as producer:
        life = await owner(producer, name)
        await put(producer, topic, life, b"1")
        producer.renew(life, *await producer.take_epoch(f"{name}-0"))
        await put(producer, topic, life, b"2")
        await put(producer, topic, life, b"3")
        assert refused == []


async def test_this_broker_compares_epochs(bootstrap: str, topic: str) -> None:
    async with producing(bootstrap) as producer:
        async with asyncio.timeout(30):
            assert await compares_epochs(producer, topic, uuid4().hex)
        await (await producer.send(topic, b"1", b"k", 0))
