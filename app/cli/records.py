"""A Kafka record as text for people or as a line for programs. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from schemas import dead_letter
from streams.topology import BUDGET_ALERTS, Topology, dispatch_topic

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

#: Headers that hold a number in big-endian bytes; all others are text.
_NUMBERS = frozenset({dead_letter.PARTITION, dead_letter.OFFSET, dead_letter.TIMESTAMP})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def full_name(name: str, topology: Topology) -> str:
    """The topic that a short name stands for; a name that is none is taken as it is."""
    known = topology.own_names()
    special = {"alerts": BUDGET_ALERTS, **{provider: dispatch_topic(provider) for provider in topology.all_providers}}
    if name in known:
        return name
    if f"ai.{name}" in known:
        return f"ai.{name}"
    return special.get(name, name)


def as_line(record: ConsumerRecord) -> bytes:
    """One line of JSON. A value that is JSON is nested, other text is a string, other bytes are hexadecimal."""
    value = record.value
    return orjson.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": _time(record),
            "key": readable(record.key),
            "headers": [[name, _header(name, content)] for name, content in record.headers],
            "value": _json(value) if value is not None else None,
        }
    )


def as_text(record: ConsumerRecord) -> str:
    """Several lines: where and when, the headers, the value."""
    lines = [f"{_time(record)}  {record.topic}[{record.partition}] @{record.offset}  key {readable(record.key) or '–'}"]
    lines += [f"  {name}: {_header(name, content)}" for name, content in record.headers]
    lines += [f"  {line}" for line in _pretty(record.value).splitlines()]
    return _CONTROL.sub("", "\n".join(lines)) + "\n"


def readable(content: bytes | None) -> str | None:
    """Text as text, other bytes in hexadecimal after 0x."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"0x{content.hex()}"


def _time(record: ConsumerRecord) -> str:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds")


def _header(name: str, content: bytes | None) -> str | int | None:
    if name in _NUMBERS and content:
        return int.from_bytes(content, "big", signed=True)
    return readable(content)


def _json(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return readable(value)


def _pretty(value: bytes | None) -> str:
    if value is None:
        return "(no value: the key is deleted)"
    try:
        return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return readable(value) or "(empty)"
