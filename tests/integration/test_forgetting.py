"""A broker forgets a producer that has been silent for a day, and a name that asked for no epoch for a week. Whoever it
has forgotten it does not refuse: so an owner says again and again that it is one.

Here the day is six seconds long, and the week eight.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ProducerFenced

from app.devstack import kafka
from app.devstack.ports import HOST, choose
from streams.runtime.errors import AbandonedError
from streams.runtime.fencing import FencedProducer
from streams.runtime.lease import Lease
from streams.runtime.lives import Life, Lives
from streams.runtime.outbox import Outbox, kafka_producer
from streams.runtime.owners import Owners
from tests.support.clock.waiting import eventually

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(180)]

FORGETFUL = """\
producer.id.expiration.ms=6000
producer.id.expiration.check.interval.ms=500
transactional.id.expiration.ms=8000
transaction.remove.expired.transaction.cleanup.interval.ms=500
"""
#: Seconds between two rows of an owner, and between two epochs.
KEEPING, RENEWING = 1.5, 3.0
TOPIC = "rows"


@pytest.fixture
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("forgetful")
    port, controller = choose(0, "KAFKA"), choose(0, "CONTROLLER")
    broker = kafka.broker(folder, port, controller, folder / "kafka.log")
    properties = folder / "server.properties"
    properties.write_text(properties.read_text() + FORGETFUL)
    broker.start()
    broker.wait_ready(90)
    yield f"{HOST}:{port}"
    broker.stop()


class Rows:
    """A table of which only the owner's rows are of interest."""

    def __init__(self, producer: FencedProducer) -> None:
        self._producer = producer
        self.on_second_writer: Any = None

    async def fence(self, life: Life, note: bytes) -> None:
        await self.keep(life, note)

    async def keep(self, life: Life, note: bytes) -> None:
        await (await self._producer.send_row(TOPIC, note, b"owner", life))


@asynccontextmanager
async def owning(bootstrap: str, name: str) -> AsyncIterator[tuple[Owners, Lives, FencedProducer]]:
    """A worker that owns partition 0."""
    lease, lives = Lease(1_000_000.0, now=lambda: 0.0), Lives()
    lease.heard(0.0, 0)
    outbox = Outbox(lambda: kafka_producer(bootstrap))
    await outbox.start()
    owners = Owners(name, lives, lease, outbox, name)
    owners.keeps(cast(Any, Rows(outbox.producer)))
    try:
        await owners.take([0], 1)
        yield owners, lives, outbox.producer
    finally:
        owners.give_up()
        await outbox.stop()


async def writes(bootstrap: str, producer_id: int, epoch: int) -> bool:
    """Whether the broker takes a row under an id and an epoch of long ago."""
    producer = kafka_producer(bootstrap)
    await producer.start()
    life = Life(0, 1)
    try:
        producer.own(life, producer_id, epoch)
        async with asyncio.timeout(20):
            await (await producer.send_row(TOPIC, b"late", b"k", life))
    except (AbandonedError, ProducerFenced):
        return False
    finally:
        producer.disown([0])
        await producer.stop()
    return True


async def test_an_owner_that_says_so_again_and_again_is_not_forgotten(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    async with owning(bootstrap, "kept") as (owners, lives, producer):
        earlier = await producer.take_epoch("kept-owner-0")
        await owners.take([0], 2)
        keeping = asyncio.create_task(owners.keep(KEEPING, RENEWING))
        async with owning(bootstrap, "silent") as (silent, _, other):
            forgotten = await other.take_epoch("silent-owner-0")
            await silent.take([0], 2)
            assert not await writes(bootstrap, *forgotten)

            async def has_forgotten() -> bool:
                return await writes(bootstrap, *forgotten)

            # The control: this is what must not happen to the other.
            await eventually(has_forgotten, within=60, every=7.0, what="the broker forgets an owner that is silent")

            async def is_unknown() -> bool:
                return (await other.take_epoch("silent-owner-0"))[0] != forgotten[0]

            await eventually(is_unknown, within=60, every=9.0, what="the coordinator forgets a name")
        assert not await writes(bootstrap, *earlier)
        assert (await producer.take_epoch("kept-owner-0"))[0] == earlier[0]
        assert lives.current(0) is not None
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
