"""How old the oldest record is that nobody has read yet, against what its topic keeps.

A backlog that is older than the topic's retention is deleted unread (streams/runtime/gone.py). One record of each
partition is read, at the committed offset, for its timestamp. That is an estimate: the broker deletes whole segments,
by the newest timestamp in each, and never the one that is written to, so a record may stay longer than the retention.
With CreateTime (Kafka's default) the timestamp is the sender's: a record that was sent with an old one may go sooner.
Retention by size (retention.bytes) is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.audit.topics import committed, partitions_of, reader
from app.kafka import Cluster, KafkaUnavailableError, admin_client, cluster_of
from app.settings import Settings
from app.topics import build_topology
from streams.runtime.gone import carries_work
from streams.topology import TopicSpec, ledger_group

log = logging.getLogger(__name__)

#: From this share of the retention on, somebody must see to it.
WARN_FROM = 0.5
#: Seconds between two looks of a worker at the timestamps.
INTERVAL = 30.0
#: Seconds in which what is there must have been read, and milliseconds of one look.
PATIENCE, _POLL_MS = 10.0, 200
#: Bytes that are fetched of a partition, at least its first batch.
_FETCH_BYTES = 1024

Places = Mapping[TopicPartition, int]


@dataclass(frozen=True)
class Age:
    """A topic's oldest unread record: its age in seconds, and the topic's retention in seconds (None: for ever)."""

    topic: str
    records: int
    seconds: float | None
    retention: float | None

    @property
    def share(self) -> float | None:
        """Of the retention; None where nobody knows, or nothing is ever deleted."""
        return self.seconds / self.retention if self.seconds is not None and self.retention else None

    @property
    def is_near(self) -> bool:
        return self.share is not None and self.share >= WARN_FROM


def first_unread(readers: Iterable[Mapping[TopicPartition, int | None]], starts: Places, ends: Places) -> Places:
    """Where each partition's oldest record is that one of its readers has not acknowledged. Pure."""
    found: dict[TopicPartition, int] = {}
    for own in readers:
        for place, offset in own.items():
            begun = max(offset or 0, starts.get(place, 0))
            if carries_work(place.topic) and begun < ends.get(place, 0):
                found[place] = min(found.get(place, begun), begun)
    return found


def ages(
    unread: Places, ends: Places, stamps: Mapping[TopicPartition, int], kept: Mapping[str, int | None], now: int
) -> list[Age]:
    """The ages by topic, the most urgent first. `stamps` and `now` are milliseconds since 1970, `kept` is in
    milliseconds. Pure.
    """
    found = []
    for topic in sorted({place.topic for place in unread}):
        own = [place for place in unread if place.topic == topic]
        oldest = min((stamps[place] for place in own if place in stamps), default=None)
        retention = kept.get(topic)
        found.append(
            Age(
                topic,
                records=sum(ends[place] - unread[place] for place in own),
                seconds=None if oldest is None else max(now - oldest, 0) / 1000,
                retention=None if retention is None else retention / 1000,
            )
        )
    return sorted(found, key=lambda age: -(age.share or 0.0))


async def timestamps(cluster: Cluster, unread: Places, patience: float = PATIENCE) -> dict[TopicPartition, int]:
    """The timestamp of the first record at or after each place, in milliseconds since 1970; what is not there in time
    is left out. Raises KafkaUnavailableError.
    """
    found: dict[TopicPartition, int] = {}
    if not unread:
        return found
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    more = {"auto_offset_reset": "earliest", "max_partition_fetch_bytes": _FETCH_BYTES}
    async with reader(cluster, **more) as consumer:
        consumer.assign(list(unread))
        for place, offset in unread.items():
            consumer.seek(place, offset)
        while (left := unread.keys() - found.keys()) and loop.time() < deadline:
            batches = await consumer.getmany(*left, timeout_ms=_POLL_MS)
            for place, records in batches.items():
                found.setdefault(place, records[0].timestamp)
                consumer.pause(place)
    return {place: stamp for place, stamp in found.items() if stamp > 0}


async def retentions(cluster: Cluster, specs: Iterable[TopicSpec], topics: Collection[str]) -> dict[str, int | None]:
    """How long topics keep a record, in milliseconds; None: for ever. Where the cluster does not say it, as they were
    made. Raises KafkaUnavailableError.
    """
    kept = {spec.name: spec.retention_ms for spec in specs if spec.name in topics}
    if not kept:
        return kept
    async with admin_client(cluster) as admin:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in kept])
    for code, _, _, name, entries in (resource for answer in answers for resource in answer.resources):
        value = next((entry[1] for entry in entries if entry[0] == "retention.ms"), None) if not code else None
        if value is not None:
            kept[name] = int(value) if int(value) >= 0 else None
    return kept


async def backlog_ages(settings: Settings) -> list[Age]:
    """How old the backlog of the stages and the sinks is, whoever works on it or not. Raises KafkaUnavailableError."""
    cluster, topology = cluster_of(settings), build_topology(settings)
    groups = (topology.application_id, ledger_group(topology.application_id))
    async with admin_client(cluster) as admin:
        places = [await committed(cluster, admin, group) for group in groups]
        known = await partitions_of(admin, tuple({topic for own in places for topic, _ in own}))
    own = [{TopicPartition(*place): offset for place, offset in each.items() if place[0] in known} for each in places]
    partitions = list({place for each in own for place in each})
    if not partitions:
        return []
    async with reader(cluster) as consumer:
        ends, starts = await consumer.end_offsets(partitions), await consumer.beginning_offsets(partitions)
    unread = first_unread(own, starts, ends)
    kept = await retentions(cluster, topology.topics(), {place.topic for place in unread})
    return ages(unread, ends, await timestamps(cluster, unread), kept, round(time.time() * 1000))


class BacklogAges:
    """The ages of what a worker has not acknowledged, for its metrics.

    `look` says what is unread, and where partitions end, as of now. A timestamp is read again when its partition has
    moved on, at most every `INTERVAL`; in between an age may be too high by that. `clock` is in seconds since 1970.
    """

    def __init__(
        self,
        cluster: Cluster,
        specs: Iterable[TopicSpec],
        look: Callable[[], Awaitable[tuple[Places, Places]]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._specs = tuple(specs)
        self._look = look
        self._clock = clock
        self._unread: Places = {}
        self._ends: Places = {}
        self._stamps: dict[TopicPartition, int] = {}
        #: The offset of which a timestamp is.
        self._stamped: dict[TopicPartition, int] = {}
        self._kept: Mapping[str, int | None] = {}

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        while True:
            await sleep(INTERVAL)
            try:
                await self.look()
            except (KafkaUnavailableError, TimeoutError) as error:
                log.debug("backlog_age_unknown: %s", error)
            except Exception as error:  # noqa: BLE001 - a figure that is missing is no reason to end
                log.warning("backlog_age_unknown: %s", type(error).__name__)

    async def look(self) -> None:
        unread, ends = await self._look()
        moved = {place: offset for place, offset in unread.items() if self._stamped.get(place) != offset}
        stamps = await timestamps(self._cluster, moved)
        kept = await retentions(self._cluster, self._specs, {place.topic for place in unread}) if unread else {}
        self._stamps = {place: at for place, at in (self._stamps | stamps).items() if place in unread}
        self._stamped |= {place: unread[place] for place in stamps}
        self._unread, self._ends, self._kept = unread, ends, kept

    def ratios(self) -> dict[str, float]:
        """By topic, as of the last look."""
        now = round(self._clock() * 1000)
        found = ages(self._unread, self._ends, self._stamps, self._kept, now)
        return {age.topic: age.share for age in found if age.share is not None}
