"""Which topics exist, as far as it can be said without asking Kafka."""

from __future__ import annotations

import asyncio

import pytest

from app.kafka import OLDEST_AGE, POSITIVE_AGE, Cluster, KafkaTopicDirectory, KafkaUnavailableError, _Listing
from streams.ports import DirectoryUnavailableError
from tests.support.clock.waiting import eventually


@pytest.mark.parametrize(
    "topic", ["a" * 250, "a" * 60_000, "", "shop replies", "shop/replies", "shop\nreplies", "café"]
)
async def test_a_name_that_no_topic_has_is_answered_at_once_and_not_remembered(topic: str) -> None:
    directory = KafkaTopicDirectory(Cluster("127.0.0.1:1"))
    assert not await directory.exists(topic)
    assert not directory._missing


class Listings(KafkaTopicDirectory):
    """A directory whose broker lists these topics, or does not answer."""

    def __init__(self) -> None:
        super().__init__(Cluster("127.0.0.1:1"), clock=lambda: self.now)
        self.now = 0.0
        self.topics: set[str] | None = {"replies"}
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def _list(self) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.topics is None:
            raise KafkaUnavailableError("Nobody answers.")
        self._listing = _Listing(frozenset(self.topics), self.now)


async def test_nobody_waits_for_a_listing_of_a_topic_that_was_there() -> None:
    directory = Listings()
    assert await directory.exists("replies")
    directory.now = POSITIVE_AGE + 1
    directory.gate.clear()
    assert await asyncio.wait_for(directory.exists("replies"), 1)
    await eventually(lambda: directory.asked == 2, what="it is asked for beside")
    directory.topics = {"other"}
    directory.gate.set()
    await eventually(lambda: directory._listing.names == {"other"})
    assert not await directory.exists("replies")


async def test_while_the_broker_is_away_a_topic_that_was_there_is_taken_to_be_for_a_while_and_not_for_ever() -> None:
    directory = Listings()
    assert await directory.exists("replies")
    directory.topics = None
    for directory.now in (POSITIVE_AGE + 1, OLDEST_AGE - 1):
        assert await directory.exists("replies")
        await asyncio.sleep(0)
    directory.now = OLDEST_AGE + 1
    with pytest.raises(DirectoryUnavailableError):
        await directory.exists("replies")
