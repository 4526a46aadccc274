"""The stored requests of a period, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime, timedelta

from aiokafka import ConsumerRecord, TopicPartition

from app.audit.facts import milliseconds
from app.audit.topics import committed, partitions_of, read, reader, survey
from app.clickhouse.client import ClickHouse
from app.clickhouse.period import Period
from app.kafka import Cluster, admin_client
from app.replay.choose import Stored
from streams.topology import REQUESTS, RESPONSES, USAGE, ledger_group

#: Records whose outcomes are asked for at once: their ids must fit into an address of one MiB.
ROUND = 500
#: A record's time is its producer's, whose clock may be ahead.
MARGIN = timedelta(days=1)

#: Of a request that was answered more than once (with a doubt between), the success counts. An attempt that succeeded
#: was paid for, even if its outcome is not there.
_STATUS = """
SELECT workspace_id, request_id, max(rank) FROM
(
    SELECT workspace_id, request_id,
           multiIf(status = 'succeeded', 4, status = 'failed', 3, status = 'expired', 2, 1) AS rank
    FROM outcomes FINAL
    WHERE (workspace_id, request_id) IN {keys:Array(Tuple(String, String))}
      AND answered_at >= {since:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT workspace_id, request_id, 4 AS rank
    FROM attempts FINAL
    WHERE (workspace_id, request_id) IN {keys:Array(Tuple(String, String))} AND outcome = 'succeeded'
      AND started_at >= {since:DateTime64(3, 'UTC')}
)
GROUP BY workspace_id, request_id
"""
_RANKS = {4: "succeeded", 3: "failed", 2: "expired", 1: "rejected"}


async def stored_requests(cluster: Cluster, period: Period) -> AsyncIterator[Stored]:
    """What `ai.requests` still holds of the period, in order within a partition. Raises KafkaUnavailableError."""
    async with admin_client(cluster) as admin:
        partitions = (await partitions_of(admin, (REQUESTS,))).get(REQUESTS)
    if not partitions:
        return
    async with reader(cluster) as consumer:
        now = milliseconds(datetime.now(UTC))
        stretch = await survey(consumer, partitions, milliseconds(period.start), milliseconds(period.end), now)
    async for record in read(cluster, stretch):
        yield _stored(record)


def _stored(record: ConsumerRecord) -> Stored:
    return Stored(
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        partition=record.partition,
        timestamp=record.timestamp / 1_000,
        identity=f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}",
    )


async def behind(cluster: Cluster, application_id: str, moment: float) -> int:
    """How many responses and usage records from before a moment (seconds since 1970) the ledger has not taken in yet.

    Of those that come after it admission still knows the ids. Raises KafkaUnavailableError.
    """
    async with admin_client(cluster) as admin:
        places = [tp for found in (await partitions_of(admin, (RESPONSES, USAGE))).values() for tp in found]
        done = await committed(cluster, admin, ledger_group(application_id))
    if not places:
        return 0
    async with reader(cluster) as consumer:
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        found = await consumer.offsets_for_times(dict.fromkeys(places, max(round(moment * 1000), 0)))
    until = {tp: ends[tp] if place is None else place.offset for tp, place in found.items()}
    return left_before(until, begins, done)


def left_before(
    until: Mapping[TopicPartition, int], begins: Mapping[TopicPartition, int], done: Mapping[tuple[str, int], int]
) -> int:
    """Records between where a group has come to, or what is left of a partition begins, and an offset of each. Pure."""
    return sum(max(end - max(done.get((tp.topic, tp.partition), 0), begins[tp]), 0) for tp, end in until.items())


async def statuses(
    database: ClickHouse, keys: Collection[tuple[str, str]], since: datetime
) -> dict[tuple[str, str], str]:
    """How requests ended, by workspace and request id. Raises ClickHouseError."""
    if not keys:
        return {}
    found = await database.query(_STATUS, {"keys": sorted(keys), "since": since - MARGIN})
    return {(workspace, request_id): _RANKS[rank] for workspace, request_id, rank in found.rows}
