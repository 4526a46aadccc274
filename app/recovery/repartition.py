"""More partitions for a deployment that is stopped: the topics grow, and each row goes to where its key belongs now.

`ai.requests` grows last. Until then a worker of either number refuses to start, because one topic at least differs; a
run that was cut off is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from app.audit.topics import committed, partitions_of, reader
from app.kafka import Cluster, admin_client, cluster_of
from app.recovery.changelogs import Owner, latest, owning
from app.recovery.groups import refuse_at_work
from app.settings import Settings
from app.topics import build_topology, until_led
from streams.moving import Home, homes, is_open, moved
from streams.records import Record
from streams.topology import (
    REPORTS,
    REQUEST_TABLE,
    REQUESTS,
    Topology,
    dispatch_topic,
    ledger_group,
)

MOST = 1_024


class RepartitionError(Exception):
    """It cannot be done now, and nothing was changed. The message says why, and what to do."""


@dataclass
class Moves:
    """A table's rows by key and partition, and where those belong that lie elsewhere; None: nowhere any more."""

    topic: str
    rows: int = 0
    new: list[Record] = field(default_factory=list)
    old: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Repartition:
    """What was, or would be, done. `tables` are rows and moves by topic."""

    before: int
    after: int
    grown: tuple[str, ...]
    tables: Mapping[str, tuple[int, int]]


async def repartition(settings: Settings, after: int, *, dry_run: bool = False) -> Repartition:
    """Raises RepartitionError, GroupAtWorkError, KafkaUnavailableError."""
    before = build_topology(settings)
    now = build_topology(settings.model_copy(update={"partitions": after}))
    cluster = cluster_of(settings)
    if not before.partitions < after <= MOST:
        raise RepartitionError(
            f"There are {before.partitions} partitions; there can be more, up to {MOST}, never less."
        )
    async with admin_client(cluster) as admin:
        small = await _to_grow(admin, before, now)
        for group in (before.application_id, ledger_group(before.application_id)):
            await refuse_at_work(cluster, admin, group)
        await _refuse_unread(cluster, admin, before)
        if dry_run:
            tables = await _all_moves(cluster, admin, now)
        else:
            async with owning(cluster, admin, now) as owner:
                tables = await _all_moves(cluster, admin, now)
                await _grow(admin, [name for name in small if name != REQUESTS], after)
                # The new ones as well.
                await owner.take()
                await _move(owner, tables)
                await _grow(admin, [name for name in small if name == REQUESTS], after)
    counts = {table.topic: (table.rows, len(table.old)) for table in tables}
    return Repartition(before.partitions, after, tuple(small), counts)


def _tables(now: Topology) -> Iterable[tuple[str, str, Home]]:
    """Changelogs, their tables, and where a key belongs.

    `ai.budget.state` is not moved: the accounts' new owners tell them anew, and the newest statement counts.
    """
    for table, home in homes(now).items():
        yield now.changelog(table), table, home


# Checks ------------------------------------------------------------------------------------------------------------


async def _to_grow(admin: AIOKafkaAdminClient, before: Topology, now: Topology) -> list[str]:
    wanted = {spec.name: spec.partitions for spec in now.topics()}
    stated = {spec.name: spec.partitions for spec in before.topics()}
    known = await partitions_of(admin, tuple(wanted))
    if missing := sorted(wanted.keys() - known.keys()):
        raise RepartitionError(f"The topic {missing[0]} does not exist; run `spillway topics` first.")
    for name, places in known.items():
        if len(places) not in (stated[name], wanted[name]):
            raise RepartitionError(
                f"The topic {name} has {len(places)} partitions and not {stated[name]}: set AI_PARTITIONS to what the "
                "topics have now."
            )
    return [name for name, places in known.items() if len(places) != wanted[name]]


async def _refuse_unread(cluster: Cluster, admin: AIOKafkaAdminClient, topology: Topology) -> None:
    """What waits in these would be read by a partition that knows nothing of it.

    Requests and observed spend may wait: they are sent on to the partition where they belong.
    """
    names = (REPORTS, *map(dispatch_topic, topology.all_providers))
    places = [tp for found in (await partitions_of(admin, names)).values() for tp in found]
    done = await committed(cluster, admin, topology.application_id)
    async with reader(cluster) as consumer:
        ends, begins = await consumer.end_offsets(places), await consumer.beginning_offsets(places)
    for tp in places:
        waiting = ends[tp] - max(done.get((tp.topic, tp.partition), 0), begins[tp])
        if waiting > 0:
            raise RepartitionError(
                f"{waiting} records of {tp.topic} wait in partition {tp.partition}; start a worker, let it work them "
                "off (`spillway lanes`), and stop it in order."
            )


# Rows --------------------------------------------------------------------------------------------------------------


async def _all_moves(cluster: Cluster, admin: AIOKafkaAdminClient, now: Topology) -> list[Moves]:
    return [await _moves(cluster, admin, topic, table, home) for topic, table, home in _tables(now)]


async def _moves(cluster: Cluster, admin: AIOKafkaAdminClient, topic: str, table: str, home: Home) -> Moves:
    found = await latest(cluster, admin, topic)
    if table == REQUEST_TABLE and (left := sum(map(is_open, found.values()))):
        raise RepartitionError(
            f"{left} rows of {topic} are about requests without an answer; start a worker until they have theirs "
            "(at the latest a minute after their deadline), and stop it in order."
        )
    moves = Moves(topic, len(found))
    for (key, partition), value in found.items():
        target = home(key.decode())
        if target is None or target == partition:
            continue
        if (row := moved(table, value)) is not None:
            moves.new.append(Record(topic, key, row, partition=target))
        moves.old.append(Record(topic, key, None, partition=partition))
    return moves


async def _move(owner: Owner, tables: Iterable[Moves]) -> None:
    """Each row is in its new place before it leaves the old one."""
    for table in tables:
        await owner.write(table.new)
        await owner.write(table.old)


async def _grow(admin: AIOKafkaAdminClient, names: Iterable[str], after: int) -> None:
    """Return when the new partitions can be written to. Raises KafkaUnavailableError."""
    wanted = {name: NewPartitions(after) for name in names}
    if wanted:
        await admin.create_partitions(wanted)
        await until_led(admin, wanted, after)
