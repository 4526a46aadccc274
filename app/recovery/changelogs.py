"""The workers' tables from outside, while no worker runs: all rows out of a changelog, and rows written into it.

A worker's local copy follows: it reads what the changelog got since it last looked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from app.audit.topics import partitions_of, read, reader, survey
from app.kafka import Cluster
from streams import rows
from streams.alert.notes import decode_note
from streams.dispatch import memory
from streams.dispatch.decide import decode_mark
from streams.records import Record
from streams.runtime.outbox import Outbox, arrived, kafka_producer
from streams.runtime.tables import OWN_KEYS
from streams.topology import ALERT_TABLE, LANE_TABLE, MARK_TABLE, REQUEST_TABLE

#: What a row's bytes mean, by table.
DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    REQUEST_TABLE: rows.decode_row,
    MARK_TABLE: decode_mark,
    LANE_TABLE: memory.decode_row,
    ALERT_TABLE: decode_note,
}

#: Records that are on their way to the broker together.
TOGETHER = 1_000

#: By key and partition: a key may be left in a partition where it does not belong.
Rows = dict[tuple[bytes, int], bytes]


async def latest(cluster: Cluster, admin: AIOKafkaAdminClient, topic: str) -> Rows:
    """The last value of each key, of those that have one and are rows. All of them are in memory. Raises
    KafkaUnavailableError.
    """
    places = (await partitions_of(admin, (topic,)))[topic]
    async with reader(cluster) as consumer:
        stretch = await survey(consumer, places, 0, None, 0)
    found: Rows = {}
    async for record in read(cluster, stretch, compacted=True):
        if record.key is None or record.key.startswith(OWN_KEYS):
            continue
        if record.value is None:
            found.pop((record.key, record.partition), None)
        else:
            found[record.key, record.partition] = record.value
    return found


async def write(cluster: Cluster, records: Sequence[Record]) -> None:
    """Return when all of them are with the broker; they are in this order in their partitions."""
    outbox = Outbox(lambda: kafka_producer(cluster.servers, **cluster.options))
    await outbox.start()
    try:
        for begin in range(0, len(records), TOGETHER):
            await arrived([await outbox.post(record) for record in records[begin : begin + TOGETHER]])
    finally:
        await outbox.stop()
