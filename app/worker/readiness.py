"""Whether a worker has its partitions and their tables, and which they are."""

from __future__ import annotations

from typing import Any, cast

from aiokafka import TopicPartition

from streams.runtime.app import SpillwayApp
from streams.topology import (
    Lane,
    Topology,
    dispatch_topic,
)


def is_ready(app: SpillwayApp) -> bool:
    """Whether a worker has its partitions and their tables."""
    return missing(app) is None


def missing(app: SpillwayApp) -> str | None:
    """What keeps a worker from working; None where nothing does."""
    if app.should_stop:
        return "the worker is stopping"
    if app.rebalancing:
        return "partitions are being assigned"
    if app.in_recovery:
        return "tables are being restored"
    consumer = app.consumer
    if not (cast(Any, consumer).flow_active and app.flow_control.is_active()):
        return "reading has not begun"
    return None if consumer.assignment() else "the worker has no partitions"


def owned_partitions(app: SpillwayApp, topic: str) -> list[int]:
    """The partitions of a topic that this worker reads, once it has their tables."""
    if not is_ready(app):
        return []
    return [tp.partition for tp in app.consumer.assignment() if tp.topic == topic]


def owned_lanes(app: SpillwayApp, topology: Topology) -> list[Lane]:
    """The lanes whose partitions this worker reads, once it has their tables."""
    own = {provider: set(owned_partitions(app, dispatch_topic(provider))) for provider in topology.all_providers}
    return [lane for name, found in own.items() for lane in topology.lanes_of(name) if lane.partition in found]


async def committed(app: SpillwayApp) -> dict[TopicPartition, int | None]:
    """Up to where this worker has acknowledged its inputs; the tables' changelogs are nobody's backlog."""
    if not is_ready(app):
        return {}
    known = cast(Any, app.consumer)._committed_offset
    places = (tp for tp in app.consumer.assignment() if not tp.topic.endswith("-changelog"))
    return {TopicPartition(tp.topic, tp.partition): known.get(tp) for tp in places}
