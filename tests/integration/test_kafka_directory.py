"""The directory of topics against a real broker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import NewTopic

from app import kafka
from app.kafka import Cluster, KafkaTopicDirectory, admin_client, cluster_of
from app.settings import Settings
from app.topics import until_led
from streams.ports import DirectoryUnavailableError
from streams.topology import REQUESTS
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(150)]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def directory(settings: Settings, clock: Clock) -> AsyncIterator[KafkaTopicDirectory]:
    directory = KafkaTopicDirectory(cluster_of(settings), clock=clock)
    await directory.start()
    yield directory
    await directory.stop()


async def create(settings: Settings, name: str) -> None:
    """Return when the broker shows it, which it does a moment after it was made."""
    async with admin_client(cluster_of(settings)) as admin:
        await admin.create_topics([NewTopic(name, 1, 1)])
        await until_led(admin, [name])


async def names(settings: Settings) -> list[str]:
    async with admin_client(cluster_of(settings)) as admin:
        found: list[str] = await admin.list_topics()
        return found


async def test_it_knows_the_topics_and_asking_creates_none(directory: KafkaTopicDirectory, settings: Settings) -> None:
    missing = unique("missing")
    assert await directory.exists(REQUESTS)
    assert not await directory.exists(missing)
    assert not await directory.exists("no valid name/")
    assert missing not in await names(settings)


async def test_a_new_topic_is_seen_after_two_seconds(
    directory: KafkaTopicDirectory, settings: Settings, clock: Clock
) -> None:
    name = unique("late")
    assert not await directory.exists(name)
    await create(settings, name)
    clock.now += kafka.NEGATIVE_AGE - 0.1
    assert not await directory.exists(name)
    clock.now += 0.2
    assert await directory.exists(name)


async def test_a_topic_that_was_seen_is_remembered_for_a_while_without_the_broker(
    settings: Settings, clock: Clock
) -> None:
    directory = KafkaTopicDirectory(cluster_of(settings), clock=clock)
    assert await directory.exists(REQUESTS)
    directory._cluster = Cluster("127.0.0.1:1")
    await directory._disconnect()
    clock.now += kafka.POSITIVE_AGE - 1
    assert await directory.exists(REQUESTS)
    clock.now += 2
    assert await directory.exists(REQUESTS), "nobody waits for the next listing"
    clock.now += kafka.OLDEST_AGE
    with pytest.raises(DirectoryUnavailableError, match="does not answer"):
        await directory.exists(REQUESTS)
    await directory.stop()


async def test_it_starts_without_a_broker_and_finds_it_later(settings: Settings) -> None:
    directory = KafkaTopicDirectory(Cluster("127.0.0.1:1"))
    await directory.start()
    with pytest.raises(DirectoryUnavailableError):
        await directory.exists(REQUESTS)
    directory._cluster = cluster_of(settings)
    assert await directory.exists(REQUESTS)
    await directory.stop()


async def test_many_who_ask_at_once_cause_one_listing(
    directory: KafkaTopicDirectory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = 0
    original = directory._list

    async def counted() -> None:
        nonlocal listings
        listings += 1
        await original()

    monkeypatch.setattr(directory, "_list", counted)
    clock.now += kafka.POSITIVE_AGE
    answers = await asyncio.gather(*(directory.exists(REQUESTS) for _ in range(50)))
    assert all(answers)
    assert listings == 1


async def test_a_broker_that_accepts_and_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        directory = KafkaTopicDirectory(Cluster(f"127.0.0.1:{silent.getsockname()[1]}"))
        async with asyncio.timeout(kafka.ADMIN_TIMEOUT - 5):
            with pytest.raises(DirectoryUnavailableError, match="did not list its topics"):
                await directory.exists(REQUESTS)
            await directory.stop()
