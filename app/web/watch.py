"""Kafka, followed: the compacted topics, the newest dead letters, and how much waits.

One consumer without a group: the page takes nothing from anybody and leaves no trace. While the broker is away, what
was known stays, with the reason why it is not newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from app.kafka import KafkaUnavailableError, admin_client, cluster_of
from app.settings import Settings
from app.topics import build_topology
from app.web.facts import Streams
from app.web.heard import LETTERS, Arrivals, Heard, Offsets, behind, by_lane, of_topics
from streams.budgets import BudgetBook
from streams.dispatch.control import ControlBoard
from streams.topology import (
    BUDGET_STATE,
    BUDGETS,
    CONTROL,
    DEAD_LETTERS,
    LANES,
    REDRIVES,
    REPORTS,
    REQUESTS,
    RESPONSES,
    USAGE,
    dispatch_topic,
    ledger_group,
)

log = logging.getLogger(__name__)

#: Topics that are read; of the dead letters the newest, of the others all.
READ = (LANES, BUDGETS, BUDGET_STATE, CONTROL, REDRIVES, DEAD_LETTERS)
#: Milliseconds of one look for news.
POLL_MS = 300
#: Seconds: between two looks at what waits, that one may take, and between two tries while the broker is away.
MEASURE_EVERY = 2.0
PATIENCE = 5.0
RETRY = 2.0
#: Seconds after which what was read counts as all there is: compaction leaves gaps that never arrive.
CATCH_UP = 3.0


class Watch:
    """Follows Kafka while the block runs. `known` is what it knows, at once and at any time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        topology = build_topology(settings)
        self.lanes = tuple(lane for name in topology.all_providers for lane in topology.lanes_of(name))
        self._steps = (REQUESTS, REPORTS, RESPONSES, USAGE, *map(dispatch_topic, topology.all_providers))
        self._arrivals = Arrivals()
        self.known = Streams(BudgetBook(settings.default_budget()))

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except KafkaUnavailableError as error:
                self._lost(str(error))
            except Exception:
                # The page must outlive what nobody has thought of.
                log.exception("page_watch_failed")
                self._lost("Kafka cannot be read; the page's log says why.")
            await asyncio.sleep(RETRY)

    def _lost(self, problem: str) -> None:
        if self.known.problem != problem:
            log.warning("page_without_kafka: %s", problem)
        self.known = replace(self.known, problem=problem)
        self._arrivals = Arrivals()

    async def _follow(self) -> None:
        """Read until the broker is away. Raises KafkaUnavailableError."""
        cluster = cluster_of(self._settings)
        async with admin_client(cluster) as admin, self._consumer() as consumer:
            topics = {found["topic"]: found["partitions"] for found in await admin.describe_topics()}
            for topic in (*READ, *self._steps):
                if topic not in topics:
                    raise KafkaUnavailableError(cluster.without(topic))
            places = {name: [TopicPartition(name, each["partition"]) for each in topics[name]] for name in topics}
            await self._read(admin, consumer, places)

    async def _read(
        self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, places: dict[str, list[TopicPartition]]
    ) -> None:
        clock = asyncio.get_running_loop().time
        heard = Heard(BudgetBook(self._settings.default_budget()), ControlBoard(self._settings.quota_limits()))
        ends = await self._begin(consumer, [place for name in READ for place in places[name]])
        begun, measured, caught_up = clock(), float("-inf"), False
        while True:
            for batch in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in batch:
                    heard.hear(record)
            caught_up = caught_up or clock() - begun > CATCH_UP or await _reached(consumer, ends)
            if caught_up and clock() - measured >= MEASURE_EVERY:
                async with asyncio.timeout(PATIENCE):
                    steps = [place for name in self._steps for place in places[name]]
                    self.known = self._together(heard, await self._measure(admin, consumer, steps))
                measured = clock()
            elif caught_up:
                self.known = self._together(heard, self.known)

    async def _begin(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> Offsets:
        """Stand at the start of each partition, or shortly before the end of the dead letters."""
        async with asyncio.timeout(PATIENCE):
            consumer.assign(places)
            starts, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            newest = ends[place] - LETTERS if place.topic == DEAD_LETTERS else 0
            consumer.seek(place, max(starts[place], newest))
        return dict(ends)

    async def _measure(
        self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, places: list[TopicPartition]
    ) -> Streams:
        """What waits, in a value that has nothing else."""
        group = self._settings.kafka_application_id
        ends = dict(await consumer.end_offsets(places))
        starts = dict(await consumer.beginning_offsets(places))
        waiting = behind(await _committed(admin, group), ends, starts)
        unwritten = behind(await _committed(admin, ledger_group(group)), ends, starts)
        arrived = sum(end for place, end in ends.items() if place.topic == REQUESTS)
        return replace(
            self.known,
            waiting={
                "admission": of_topics(waiting, REQUESTS),
                "settlement": of_topics(waiting, REPORTS),
                "the ledger": of_topics(unwritten, RESPONSES, USAGE),
            },
            lane_backlog=by_lane(waiting, self.lanes),
            arriving=self._arrivals.see(asyncio.get_running_loop().time(), arrived),
            at=datetime.now(UTC),
            problem=None,
        )

    def _together(self, heard: Heard, measured: Streams) -> Streams:
        modes = {lane.quota: heard.board.mode_for(lane) for lane in self.lanes}
        return replace(
            measured,
            book=heard.book,
            lanes=heard.lanes,
            modes=modes,
            states=heard.states,
            letters=heard.newest(),
            notes=heard.notes,
        )

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = cluster_of(self._settings).consumer()
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()


async def _reached(consumer: AIOKafkaConsumer, ends: Offsets) -> bool:
    return all([await consumer.position(place) >= end for place, end in ends.items()])


async def _committed(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    """How far a group has acknowledged; nothing where the cluster has had no group at all yet."""
    try:
        found = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:
        return {}
    return {place: told.offset for place, told in found.items() if told.offset >= 0}
