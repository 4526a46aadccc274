"""The compacted topics for the commands: what they say now, and how an operator's word gets onto them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from app.cli.errors import CommandError
from app.cli.wire import consuming, poll, producing
from app.kafka import Ending, cluster_of
from app.settings import Settings
from schemas.budget import BudgetChange
from schemas.codec import Headers, encode, event_headers
from schemas.control import LimitChange, ModeChange
from streams.topology import CONTROL

#: What stands in the place of a workspace in the CloudEvents source of events that are of none.
SOURCE = "operator"


async def newest(settings: Settings, topic: str) -> dict[str, bytes]:
    """The newest value of each key, without the keys that were deleted. Raises CommandError (no such topic),
    KafkaUnavailableError.

    A key may have an older value in another partition: the one where it was before there were more of them.
    """
    found: dict[str, bytes] = {}
    places: dict[str, tuple[int, int]] = {}
    async with consuming(cluster_of(settings), topic) as consumer:
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        # Not seek_to_beginning: aiokafka lets the answer of its own first reset, to the end, override that.
        for partition, start in (await consumer.beginning_offsets(partitions)).items():
            consumer.seek(partition, start)
        ending = Ending(consumer, topic)
        while left := [place for place, end in ends.items() if await consumer.position(place) < end]:
            if ending.is_here(left):
                break
            batch = await poll(consumer)
            if batch:
                ending.heard(left)
            for record in batch:
                key = (record.key or b"").decode(errors="replace")
                place, at = places.get(key, (record.partition, 0))
                if place != record.partition and at > record.timestamp:
                    continue
                places[key] = record.partition, record.timestamp
                # Deleted first: a key that comes back is then in the order of its newest record.
                found.pop(key, None)
                if record.value is not None:
                    found[key] = record.value
    return found


async def announce(settings: Settings, event: LimitChange | ModeChange | BudgetChange, topic: str = CONTROL) -> None:
    """Publish an event under its key; all replicas have it when this returns."""
    source = event.workspace_id if isinstance(event, BudgetChange) else SOURCE
    headers = event_headers(
        event_id=str(uuid.uuid4()), event_type=event.ce_type, workspace_id=source, time=datetime.now(UTC)
    )
    await _send(settings, topic, event.key, encode(event), headers)


async def withdraw(settings: Settings, key: str, topic: str = CONTROL) -> None:
    """Publish that a key holds nothing any more."""
    await _send(settings, topic, key, None, ())


async def _send(settings: Settings, topic: str, key: str, value: bytes | None, headers: Headers) -> None:
    async with producing(cluster_of(settings)) as producer:
        await producer.send_and_wait(topic, value, key=key.encode(), headers=list(headers))


def check_target(target: str, known: Iterable[str]) -> None:
    """Raises CommandError for what is no provider and no group of one: a mistyped name would steer nothing."""
    names = list(known)
    if target not in names:
        raise CommandError(f"There is no {target}; there are {', '.join(names)}.")
