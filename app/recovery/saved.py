"""What operators have set, in a file and back: budgets, limits and modes of lanes, digests of API keys.

It is in Kafka alone, in compacted topics without a time limit. The file has one JSON object a line. No key and no
prompt is in it; but whoever may change it decides who comes in through the door: keep it where only operators write.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from app.audit.topics import partitions_of
from app.kafka import admin_client, cluster_of
from app.recovery.changelogs import latest, write
from app.settings import Settings
from schemas.api_key import ApiKey
from schemas.base import Event
from schemas.budget import BudgetChange
from schemas.codec import UndecodableError, decode, encode, event_headers
from schemas.control import LimitChange, ModeChange
from streams.records import Record
from streams.topology import API_KEYS, BUDGETS, CONTROL

#: What may stand on each topic.
EVENTS: Mapping[str, tuple[type[Event], ...]] = {
    BUDGETS: (BudgetChange,),
    CONTROL: (LimitChange, ModeChange),
    API_KEYS: (ApiKey,),
}
#: What stands in the place of a workspace in the CloudEvents source of events that are of none.
SOURCE = "operator"

Known = dict[str, dict[str, Event]]


class SavedError(Exception):
    """The file is none of ours, or a topic is missing. The message is one sentence."""


@dataclass(frozen=True)
class Loaded:
    """How many lines were written, how many were there already, and how many there are as something else."""

    written: int
    same: int
    other: int


async def save(settings: Settings) -> list[bytes]:
    """The lines of the file. Raises KafkaUnavailableError, SavedError."""
    return [
        orjson.dumps({"topic": topic, "key": key, "value": event.model_dump(mode="json", exclude_none=True)})
        for topic, events in (await _known(settings)).items()
        for key, event in sorted(events.items())
    ]


async def load(settings: Settings, lines: Iterable[bytes], *, overwrite: bool = False) -> Loaded:
    """Write what is not there; with `overwrite` also what is there as something else. Raises as `save` does."""
    found = [_parsed(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    known = await _known(settings)
    here = [(topic, key, event, known[topic].get(key)) for topic, key, event in found]
    same = sum(old == event for _, _, event, old in here)
    wanted = [(topic, key, event) for topic, key, event, old in here if old is None or (overwrite and old != event)]
    await write(cluster_of(settings), [_record(*one) for one in wanted])
    return Loaded(len(wanted), same, len(here) - same - len(wanted))


async def _known(settings: Settings) -> Known:
    cluster = cluster_of(settings)
    async with admin_client(cluster) as admin:
        there = await partitions_of(admin, tuple(EVENTS))
        if missing := [topic for topic in EVENTS if topic not in there]:
            raise SavedError(f"The topic {missing[0]} does not exist; run `spillway topics` first.")
        rows = {topic: await latest(cluster, admin, topic) for topic in EVENTS}
    found: Known = {topic: {} for topic in EVENTS}
    for topic, values in rows.items():
        for (key, _), value in values.items():
            if (event := _event(topic, value)) is not None:
                found[topic][key.decode(errors="replace")] = event
    return found


def _parsed(line: bytes, number: int) -> tuple[str, str, Event]:
    try:
        told = orjson.loads(line)
        topic, key, value = told["topic"], told["key"], orjson.dumps(told["value"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SavedError(f"Line {number} is none of `spillway save`.") from None
    event = _event(topic, value) if isinstance(topic, str) and topic in EVENTS and isinstance(key, str) else None
    if event is None:
        raise SavedError(f"Line {number} is no event of a topic that `spillway save` keeps.")
    return topic, key, event


def _event(topic: str, value: bytes) -> Event | None:
    for kind in EVENTS[topic]:
        try:
            return decode(kind, value)
        except UndecodableError:
            continue
    return None


def _record(topic: str, key: str, event: Event) -> Record:
    headers = event_headers(
        event_id=str(uuid.uuid4()), event_type=event.ce_type, workspace_id=SOURCE, time=datetime.now(UTC)
    )
    return Record(topic, key.encode(), encode(event), headers, 0)
