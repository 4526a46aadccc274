"""What was deleted before it was read: as the workers have told it, and where they have not come to it yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from app.audit.topics import Stretch, read
from schemas.dead_letter import RECORDS_GONE, DeadLetter, Gap, code_of
from streams.runtime.gone import carries_work

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from app.kafka import Cluster

Offsets = Mapping[tuple[str, int], int]


def untold(group: str, committed: Offsets, starts: Offsets) -> list[Gap]:
    """Where a group's next record is no longer there. Its workers are away, or are about to tell it. Pure."""
    return [
        Gap(group, topic, partition, offset, starts[topic, partition] - 1)
        for (topic, partition), offset in sorted(committed.items())
        if carries_work(topic) and starts.get((topic, partition), 0) > offset
    ]


def once(gaps: Iterable[Gap]) -> list[Gap]:
    """Each gap once, at its longest: a letter may be written twice, and more may be deleted in between. Pure."""
    longest: dict[str, Gap] = {}
    for gap in gaps:
        known = longest.get(gap.identity)
        if known is None or known.last < gap.last:
            longest[gap.identity] = gap
    return sorted(longest.values(), key=lambda gap: (gap.topic, gap.partition, gap.group, gap.first))


async def told(cluster: Cluster, letters: Stretch, start: int, end: int) -> AsyncIterator[Gap]:
    """The gaps of which there is a dead letter from a period (milliseconds since 1970), of all groups."""
    async for record in read(cluster, letters):
        if start <= record.timestamp < end and (gap := gap_of(record)) is not None:
            yield gap


def gap_of(record: ConsumerRecord) -> Gap | None:
    """The gap that a record of `ai.dead-letters` tells of; None for any other."""
    headers = tuple(record.headers)
    if code_of(headers) != RECORDS_GONE:
        return None
    try:
        return Gap.of(DeadLetter.from_record(record.key, record.value, headers))
    except ValueError:
        return None
