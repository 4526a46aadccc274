"""Kafka from outside the streams: how its clients are made, and the directory of topics that exist.

aiokafka's metadata request for named topics lets a broker create them. Here all topics are always listed, which creates
nothing, whatever the broker is set to.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError

from app.kafka_refusals import refusal, why_closed
from streams.ports import DirectoryUnavailableError
from streams.runtime import reading as _reading  # noqa: F401 - every consumer reads by it

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger(__name__)

#: Seconds without a record after which a compacted topic counts as read, if the broker has answered in them; and those
#: after which a broker that brings nothing counts as away.
END_PATIENCE, STALLED = 2.0, 30.0
#: Seconds that a look at the cluster may take before the answer is "nobody knows".
PATIENCE = 3.0
#: Seconds after which a topic that was seen is looked for again, meanwhile taken to exist, and after which nobody takes
#: it to exist any more; and those for which one that was not seen is taken to be missing.
POSITIVE_AGE, OLDEST_AGE = 60.0, 900.0
NEGATIVE_AGE = 2.0
#: Names of missing topics that are kept at most; requests choose them.
MISSING_REMEMBERED = 10_000
#: What a topic may be called. Source: org.apache.kafka.common.internals.Topic.
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
#: Seconds between two tries of one who waits for Kafka.
ASK_AGAIN = 1.0
#: Seconds for one administrator's request.
ADMIN_TIMEOUT = 15.0


class KafkaUnavailableError(Exception):
    """Kafka cannot be reached, or refused. The message is one sentence. `passes_within` is for how many seconds that
    may be so before somebody must do something about it.
    """

    def __init__(self, message: str, passes_within: float = math.inf) -> None:
        super().__init__(message)
        self.passes_within = passes_within


@dataclass(frozen=True)
class Cluster:
    """Where Kafka is, and how its clients are let in: the one place where clients of aiokafka are made.

    `options` go to each of them; they may hold a password, so no representation shows them.
    """

    servers: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.servers

    def without(self, topic: str) -> str:
        """The message for a topic that is not there. Kafka shows nobody what they may not read or write."""
        hidden = ", or is hidden from this user (`spillway acls`)" if self.options else ""
        return f"The topic {topic} does not exist{hidden}; `spillway topics` creates those of Spillway."

    def consumer(self, **more: Any) -> AIOKafkaConsumer:
        """A consumer that commits nothing by itself and reads what is committed in a transaction, or in none. It is not
        started. Call it inside the event loop, as the others.
        """
        return AIOKafkaConsumer(
            bootstrap_servers=self.servers,
            enable_auto_commit=False,
            isolation_level="read_committed",
            **self.options,
            **more,
        )

    def producer(self, **more: Any) -> AIOKafkaProducer:
        """A producer that hears from all in-sync replicas, not started."""
        return AIOKafkaProducer(bootstrap_servers=self.servers, acks="all", **self.options, **more)

    def admin(self, seconds: float = ADMIN_TIMEOUT) -> AIOKafkaAdminClient:
        """An administrator's client, each of whose requests may take so many seconds."""
        timeout = int(seconds * 1000)
        return AIOKafkaAdminClient(bootstrap_servers=self.servers, request_timeout_ms=timeout, **self.options)


def cluster_of(settings: Settings) -> Cluster:
    """The deployment's Kafka."""
    return Cluster(settings.kafka_bootstrap_servers, settings.kafka_security.options)


@asynccontextmanager
async def explained(cluster: Cluster) -> AsyncIterator[None]:
    """Turn what a Kafka client raises into KafkaUnavailableError."""
    try:
        yield
    except (KafkaConnectionError, NodeNotReadyError, OSError):
        closed = await why_closed(cluster.servers, cluster.options)
        raise KafkaUnavailableError(closed.reason, closed.passes_within) from None
    except KafkaError as error:
        closed = refusal(cluster.servers, cluster.options, error)
        raise KafkaUnavailableError(closed.reason, closed.passes_within) from None


@asynccontextmanager
async def admin_client(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started administrator's client. Whatever Kafka raises in the block leaves it as KafkaUnavailableError."""
    async with explained(cluster):
        client = cluster.admin()
        try:
            await client.start()
            yield client
        finally:
            await client.close()


async def patiently(
    ask: Callable[[], Awaitable[None]], *, every: float = ASK_AGAIN, clock: Callable[[], float] = time.monotonic
) -> None:
    """Ask until Kafka answers. Raises what waiting does not end, as KafkaUnavailableError that does not pass.

    A worker that starts while the broker is away would else end, and be away itself when the broker is back.
    """
    since, told = clock(), ""
    while True:
        try:
            return await ask()
        except KafkaUnavailableError as error:
            if str(error) != told:
                since, told = clock(), str(error)
                if error.passes_within:
                    log.warning("kafka_away: %s The worker waits for it.", told)
            if clock() - since >= error.passes_within:
                raise KafkaUnavailableError(told, 0.0) from None
        await asyncio.sleep(every)


class Ending:
    """When a topic has been read to its end, where its last records may be gaps: what was compacted away never comes.

    A while without a record says so only if the broker has answered in it; one that is slow has said nothing, and what
    is left unread would be taken for what is not there.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._heard_at = time.monotonic()
        self._answered: dict[TopicPartition, int | None] = {}

    def heard(self, places: Collection[TopicPartition]) -> None:
        """Records have come; these partitions are not at their ends."""
        self._heard_at = time.monotonic()
        self._answered = {place: self._consumer.last_poll_timestamp(place) for place in places}

    def is_here(self, places: Collection[TopicPartition], *, compacted: bool = True) -> bool:
        """Whether nothing more will come of these. Raises KafkaUnavailableError where nobody can say for too long."""
        idle = time.monotonic() - self._heard_at
        if compacted and idle > END_PATIENCE and self._is_confirmed(places):
            return True
        if idle > STALLED:
            raise KafkaUnavailableError(f"The topic {self._topic} could not be read to its end.")
        return False

    def _is_confirmed(self, places: Collection[TopicPartition]) -> bool:
        """Whether the broker has answered for all of these since the last record, and brought nothing."""
        answered = {place: self._consumer.last_poll_timestamp(place) for place in places}
        return all(at is not None and at != self._answered.get(place) for place, at in answered.items())


@dataclass(frozen=True)
class _Listing:
    """The topics of the cluster at one moment (seconds of the clock)."""

    names: frozenset[str]
    taken: float


class KafkaTopicDirectory:
    """Implements streams.ports.TopicDirectory with one connection of its own, made when it is first needed.

    One listing answers for every topic. Of a topic that is in it nobody waits for the next one, which is asked for
    after a minute; one that was asked for and is not in it is missing for two seconds. At most one listing is under
    way, and all who need it wait for the same one.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._client: AIOKafkaAdminClient | None = None
        self._listing = _Listing(frozenset(), float("-inf"))
        self._missing: dict[str, float] = {}
        self._refresh: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, so that the first request need not wait. A broker that is away now is no error: it may come."""
        try:
            await self._refreshed()
        except DirectoryUnavailableError as error:
            log.warning("topic_directory_waits: %s", error)

    async def stop(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.wait({self._refresh})
        await self._disconnect()

    async def exists(self, topic: str) -> bool:
        """Whether the topic exists, within three seconds. Raises DirectoryUnavailableError when nobody can say."""
        if _TOPIC.fullmatch(topic) is None:
            # No topic has such a name. Requests choose it, and may make it long: it is not remembered.
            return False
        asked = self._clock()
        answer = self._remembered(topic)
        # A listing that was taken before the question says nothing of a topic that has only just been made.
        while answer is None:
            await self._refreshed()
            if topic in self._listing.names:
                answer = True
            elif self._listing.taken >= asked:
                answer = False
                self._remember_missing(topic)
        return answer

    def _remembered(self, topic: str) -> bool | None:
        now = self._clock()
        age = now - self._listing.taken
        if topic in self._listing.names and age < OLDEST_AGE:
            if age >= POSITIVE_AGE:
                self._refreshing()
            return True
        return False if now - self._missing.get(topic, float("-inf")) < NEGATIVE_AGE else None

    def _remember_missing(self, topic: str) -> None:
        if len(self._missing) >= MISSING_REMEMBERED:
            self._missing.clear()
        self._missing[topic] = self._clock()

    async def _refreshed(self) -> None:
        """Wait for a listing. It goes on when the waiting is over, and may answer whoever asks next."""
        refresh = self._refreshing()
        done, _ = await asyncio.wait({refresh}, timeout=PATIENCE)
        if not done:
            raise DirectoryUnavailableError(f"Kafka did not list its topics within {PATIENCE:g} seconds.")
        if refresh.cancelled():
            raise DirectoryUnavailableError("The directory of topics was stopped.")
        error = refresh.exception()
        if error is not None:
            raise DirectoryUnavailableError(str(error)) from None

    def _refreshing(self) -> asyncio.Task[None]:
        """The listing that is under way, or a new one."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._list())
            # Where nobody waits for it nobody hears that it failed.
            self._refresh.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return self._refresh

    async def _list(self) -> None:
        taken = self._clock()
        try:
            async with explained(self._cluster):
                client = await self._connected()
                names = await client.list_topics()
        except BaseException:
            # The client may hold addresses of brokers that are gone: the next look starts afresh.
            await self._disconnect()
            raise
        self._listing = _Listing(frozenset(names), taken)

    async def _connected(self) -> AIOKafkaAdminClient:
        if self._client is None:
            self._client = self._cluster.admin()
            await self._client.start()
        return self._client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
