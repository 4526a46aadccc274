"""Whether every row of the workers' tables can be read, and is where its key belongs; and those that are not, removed.

A row that cannot be read stops its workspace: each of its requests goes to the dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient

from app.audit.topics import partitions_of
from app.kafka import Cluster, admin_client, cluster_of
from app.recovery.changelogs import DECODERS, Owner, latest, owning
from app.recovery.groups import refuse_at_work
from app.settings import Settings
from app.topics import build_topology
from streams.moving import Home, homes
from streams.records import Record


@dataclass(frozen=True)
class BadRow:
    """A row by its key (as far as that is text), its partition, and what is wrong with it."""

    key: bytes
    partition: int
    reason: str

    @property
    def name(self) -> str:
        return self.key.decode(errors="backslashreplace")


@dataclass
class TableCheck:
    """One table's changelog. `partitions` are rows by partition, the empty ones with 0."""

    table: str
    topic: str
    partitions: dict[int, int] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(self.partitions.values())


async def check_tables(settings: Settings, *, drop: bool = False) -> list[TableCheck]:
    """All tables; with `drop` the bad rows leave them. Raises KafkaUnavailableError, GroupAtWorkError with `drop`."""
    topology, cluster = build_topology(settings), cluster_of(settings)
    found = []
    async with admin_client(cluster) as admin, AsyncExitStack() as owned:
        owner: Owner | None = None
        if drop:
            await refuse_at_work(cluster, admin, topology.application_id)
            owner = await owned.enter_async_context(owning(cluster, admin, topology))
        for table in DECODERS:
            one = await _check(cluster, admin, table, topology.changelog(table), homes(topology))
            found.append(one)
            if owner is not None:
                await owner.write([Record(one.topic, bad.key, None, partition=bad.partition) for bad in one.bad])
    return found


async def _check(
    cluster: Cluster, admin: AIOKafkaAdminClient, table: str, topic: str, homes: Mapping[str, Home]
) -> TableCheck:
    places = (await partitions_of(admin, (topic,))).get(topic, [])
    check = TableCheck(table, topic, dict.fromkeys((tp.partition for tp in places), 0))
    if not places:
        return check
    for (key, partition), value in (await latest(cluster, admin, topic)).items():
        check.partitions[partition] += 1
        if reason := _fault(table, key, partition, value, homes.get(table)):
            check.bad.append(BadRow(key, partition, reason))
    return check


def _fault(table: str, key: bytes, partition: int, value: bytes, home: Home | None) -> str | None:
    try:
        name = key.decode()
    except UnicodeDecodeError:
        return "its key is no text"
    try:
        DECODERS[table](value)
    except Exception as error:  # noqa: BLE001 - whatever is in it, it is no row
        return f"it cannot be read ({type(error).__name__})"
    belongs = home(name) if home is not None else None
    return None if belongs in (None, partition) else f"it belongs to partition {belongs}"
