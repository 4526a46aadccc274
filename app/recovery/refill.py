"""The ledger once more, out of Kafka: the sinks' group goes back, and the workers write what they read again.

A row that is there already is the same row, so more than was lost may be read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.audit.topics import committed, partitions_of, reader
from app.kafka import admin_client, cluster_of
from app.recovery.groups import go_on_at, refuse_at_work
from app.settings import Settings
from streams.topology import BUDGET_ALERTS, REQUESTS, RESPONSES, USAGE, ledger_group


@dataclass(frozen=True)
class Refill:
    """A topic: what of it is read again, and since when Kafka has all of it (None: nothing is gone or there)."""

    topic: str
    records: int
    whole_since: datetime | None


async def refill(settings: Settings, since: datetime | None, *, dry_run: bool = False) -> list[Refill]:
    """Have the sinks read again what was published since a moment, or all that Kafka still has.

    Raises GroupAtWorkError, KafkaUnavailableError.
    """
    cluster, group = cluster_of(settings), ledger_group(settings.kafka_application_id)
    topics = (USAGE, RESPONSES, BUDGET_ALERTS, *((REQUESTS,) if settings.store_content else ()))
    async with admin_client(cluster) as admin:
        await refuse_at_work(cluster, admin, group)
        known = await partitions_of(admin, topics)
        done = await committed(cluster, admin, group)
    back: dict[TopicPartition, int] = {}
    found = []
    async with reader(cluster) as consumer:
        for topic, places in known.items():
            begins, again = await _begins(consumer, places, since)
            for tp in places:
                # Never forward: what was not read yet is not left out.
                back[tp] = min(begins[tp], done.get((tp.topic, tp.partition), 0))
                again[tp] -= back[tp]
            found.append(Refill(topic, sum(again.values()), await _whole_since(consumer, places)))
    if not dry_run:
        await go_on_at(cluster, group, back)
    return found


async def _begins(
    consumer: AIOKafkaConsumer, places: list[TopicPartition], since: datetime | None
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Where to begin in each partition, and where it ends."""
    ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
    if since is None:
        return await consumer.beginning_offsets(places), ends
    moment = max(round(since.timestamp() * 1000), 0)
    at = await consumer.offsets_for_times(dict.fromkeys(places, moment))
    return {tp: ends[tp] if found is None else found.offset for tp, found in at.items()}, ends


async def _whole_since(consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> datetime | None:
    """The oldest moment from which on nothing was removed; None where nothing ever was."""
    cut = [tp for tp, begin in (await consumer.beginning_offsets(places)).items() if begin > 0]
    first = await consumer.offsets_for_times(dict.fromkeys(cut, 0)) if cut else {}
    moments = [found.timestamp for found in first.values() if found is not None]
    return datetime.fromtimestamp(max(moments) / 1000, UTC) if moments else None
