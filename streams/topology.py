"""The map: every topic, key, partition count and table of Spillway. Read this first.

Names are what is on the wire. They are stated, never derived from where code lives, so a moved file renames nothing.

All topics that are joined by a table have the same number of partitions (`Topology.partitions`): the assignor
gives equal partition numbers of such topics to the same worker, so a table's partition and its input always meet.
A workspace lives in one partition; a lane lives in one partition of its provider's dispatch topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, Literal
from zlib import crc32

REQUESTS = "ai.requests"
REPORTS = "ai.attempts"
RESPONSES = "ai.responses"
REPLIES = "ai.replies"
USAGE = "ai.usage"
SPEND = "ai.spend"
BUDGET_ALERTS = "ai.budget.alerts"
BUDGET_STATE = "ai.budget.state"
BUDGETS = "ai.budgets"
DEAD_LETTERS = "ai.dead-letters"
REDRIVES = "ai.dead-letters.redriven"
TICKS = "ai.ticks"
CANCELLATIONS = "ai.cancellations"
API_KEYS = "ai.api-keys"
CONTROL = "ai.control"
LANES = "ai.lanes"
OWNERS = "ai.owners"
DISPATCH_PREFIX = "ai.dispatch."

#: The Faust tables, and what their keys are.
REQUEST_TABLE = "requests"  # workspace/request id → RequestRecord, partitioned by workspace
MARK_TABLE = "marks"  # provider/workspace/request id → AttemptMark, partitioned by lane
LANE_TABLE = "lanes"  # lane|slot of its hour → Spent, lane|condition → Condition, partitioned by lane
ALERT_TABLE = "alerts"  # workspace/month → MonthNote, workspace/hours → Habit, partitioned by workspace

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

#: Room for a request of the largest accepted size together with what the stages add to it.
MAX_RECORD_BYTES = 4 * 1024 * 1024
#: A dead letter is larger than its original by the headers that tell its story.
MAX_DEAD_LETTER_BYTES = MAX_RECORD_BYTES + 256 * 1024


@dataclass(frozen=True)
class TopicSpec:
    """One topic as it must exist. `retention_ms` is None for a compacted topic without a time limit; `timestamps` says
    whose clock stamps its records, where it is not left to the broker's settings.
    """

    name: str
    partitions: int
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"
    retention_ms: int | None = 7 * DAY_MS
    max_bytes: int = MAX_RECORD_BYTES
    audience: Literal["public", "internal"] = "public"
    purpose: str = ""
    timestamps: Literal["CreateTime", "LogAppendTime"] | None = None

    def config(self) -> dict[str, str]:
        """The topic's settings in Kafka's own names."""
        values = {"cleanup.policy": self.cleanup, "max.message.bytes": str(self.max_bytes)}
        if self.retention_ms is not None:
            values["retention.ms"] = str(self.retention_ms)
        if "compact" in self.cleanup:
            # Tables are rebuilt from these: small segments keep what is read at recovery small.
            values["segment.ms"] = str(HOUR_MS if self.retention_ms is None else min(HOUR_MS, self.retention_ms // 6))
            values["min.cleanable.dirty.ratio"] = "0.1"
        if self.timestamps is not None:
            values["message.timestamp.type"] = self.timestamps
        return values


@dataclass(frozen=True)
class LaneGroup:
    """Models of a provider that share a quota: those whose names match a pattern (`claude-opus-*`).

    A provider's last group has no name and takes all other models. `shards` is the number of its lanes.
    """

    name: str = ""
    models: tuple[str, ...] = ("*",)
    shards: int = 1

    def takes(self, model: str) -> bool:
        return "*" in self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


ONE_LANE = (LaneGroup(),)


@dataclass(frozen=True)
class Topology:
    """All topics of one deployment.

    `application_id` is Kafka's consumer group and the prefix of the changelogs; `lanes` says which lanes a provider
    has, where it is more than one. `providers` are the built-in ones, `named` those that the deployment has added.
    """

    application_id: str
    providers: tuple[str, ...]
    partitions: int = 6
    lanes: Mapping[str, tuple[LaneGroup, ...]] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    #: The lanes of each provider that was asked for: each request asks several times.
    _lanes: dict[str, tuple[Lane, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def all_providers(self) -> tuple[str, ...]:
        return (*self.providers, *self.named)

    def topics(self) -> tuple[TopicSpec, ...]:
        return (*self._public(), *self._broadcast(), *self._internal(), *self._changelogs())

    def own_names(self) -> frozenset[str]:
        """Topics that no reply may be sent to: a reply there would be read as Spillway's own record."""
        return frozenset(spec.name for spec in self.topics()) - {REPLIES}

    def _topic(self, name: str, purpose: str, **values: object) -> TopicSpec:
        return TopicSpec(name, self.partitions, purpose=purpose, **values)  # type: ignore[arg-type]

    def _public(self) -> tuple[TopicSpec, ...]:
        return (
            self._topic(REQUESTS, "AI requests; key: workspace"),
            self._topic(RESPONSES, "one terminal response per request; key: workspace"),
            self._topic(REPLIES, "replies for those without a topic of their own; key: request", retention_ms=DAY_MS),
            self._topic(USAGE, "one record per provider attempt; key: workspace", retention_ms=30 * DAY_MS),
            self._topic(
                BUDGET_ALERTS, "crossed budget thresholds, remarkable hours; key: workspace", retention_ms=90 * DAY_MS
            ),
            self._topic(
                BUDGET_STATE,
                "what each workspace has spent and reserved; key: workspace/month",
                cleanup="compact",
                retention_ms=None,
            ),
            self._topic(
                DEAD_LETTERS,
                "what could not be processed, byte for byte",
                retention_ms=30 * DAY_MS,
                max_bytes=MAX_DEAD_LETTER_BYTES,
            ),
        )

    def _broadcast(self) -> tuple[TopicSpec, ...]:
        """One partition each: every worker reads all of them."""
        values: dict[str, Any] = {"cleanup": "compact", "retention_ms": None, "max_bytes": 64 * 1024}
        return (
            TopicSpec(
                CONTROL, 1, audience="public", purpose="limits and modes that operators set; key: what is set", **values
            ),
            TopicSpec(BUDGETS, 1, audience="public", purpose="budgets of workspaces; key: workspace", **values),
            TopicSpec(
                REDRIVES,
                1,
                audience="internal",
                purpose="which dead letters were sent again; key: place",
                # Longer than the letters themselves are kept.
                **{**values, "cleanup": "compact,delete", "retention_ms": 60 * DAY_MS},
            ),
            TopicSpec(LANES, 1, purpose="how each lane stands; key: lane", **values),
            TopicSpec(
                OWNERS,
                1,
                audience="internal",
                purpose="which workers live, and what time it is at the broker; key: worker",
                **{**values, "cleanup": "compact,delete", "retention_ms": HOUR_MS},
                timestamps="LogAppendTime",
            ),
            TopicSpec(
                API_KEYS, 1, audience="internal", purpose="digests of keys to the HTTP door; key: key id", **values
            ),
            TopicSpec(
                CANCELLATIONS,
                1,
                audience="public",
                purpose="requests whose answer nobody wants any more; key: workspace",
                retention_ms=DAY_MS,
            ),
        )

    def _internal(self) -> tuple[TopicSpec, ...]:
        dispatch = (
            self._topic(dispatch_topic(name), f"requests waiting for {name}; key: lane", audience="internal")
            for name in self.all_providers
        )
        return (
            *dispatch,
            self._topic(REPORTS, "what became of each attempt; key: workspace", audience="internal"),
            self._topic(
                SPEND,
                "month-to-date cost after each ledger batch; key: workspace",
                audience="internal",
                retention_ms=DAY_MS,
            ),
            self._topic(TICKS, "timers, one per partition", audience="internal", retention_ms=HOUR_MS),
        )

    def _changelogs(self) -> tuple[TopicSpec, ...]:
        return tuple(
            self._topic(
                self.changelog(table),
                f"changelog of the table {table}",
                audience="internal",
                cleanup="compact",
                retention_ms=None,
            )
            for table in (REQUEST_TABLE, MARK_TABLE, LANE_TABLE, ALERT_TABLE)
        )

    def changelog(self, table: str) -> str:
        return f"{self.application_id}-{table}-changelog"

    def workspace_partition(self, workspace_id: str) -> int:
        """The partition in which everything of a workspace is decided."""
        return partition_of(workspace_id.encode(), self.partitions)

    def lane(self, provider: str, model: str, workspace_id: str, request_id: str) -> Lane:
        """The lane that answers a request: always the same one for the same provider, model and request."""
        before = 0
        for group in self.lanes.get(provider, ONE_LANE):
            if group.takes(model):
                shard = crc32(f"{workspace_id}/{request_id}".encode()) % group.shards
                return self.lanes_of(provider)[before + shard]
            before += group.shards
        return self._lane(provider, LaneGroup(), 0, before)

    def lanes_of(self, provider: str) -> tuple[Lane, ...]:
        """All lanes of a provider, group by group."""
        if (known := self._lanes.get(provider)) is not None:
            return known
        found: list[Lane] = []
        for group in self.lanes.get(provider, ONE_LANE):
            before = len(found)
            found += [self._lane(provider, group, shard, before) for shard in range(group.shards)]
        return self._lanes.setdefault(provider, tuple(found))

    def _first_partition(self, provider: str) -> int:
        """Lanes of different providers start at different partitions, so that they spread over workers.

        Where a named provider's start says its name alone: another one beside it, or one less, moves nobody's lane.
        """
        if provider in self.named:
            return crc32(provider.encode()) % self.partitions
        return self.providers.index(provider) * self.partitions // max(len(self.providers), 1)

    def _lane(self, provider: str, group: LaneGroup, shard: int, before: int) -> Lane:
        first = self._first_partition(provider)
        return Lane(provider, group.name, shard, group.shards, (first + before + shard) % self.partitions)


@dataclass(frozen=True)
class Lane:
    """The unit that owns a quota: one shard of a provider or of one of its groups, in one partition of its topic."""

    provider: str
    group: str
    shard: int
    shards: int
    partition: int

    @cached_property
    def quota(self) -> str:
        """Whose quota it has a part of: `claude`, `claude:opus`."""
        return f"{self.provider}:{self.group}" if self.group else self.provider

    @cached_property
    def name(self) -> str:
        return f"{self.quota}/{self.shard}"


def ledger_group(application_id: str) -> str:
    """The consumer group of the sinks: they read beside Faust (docs/decisions/0007-sinks-beside-faust.md)."""
    return f"{application_id}-ledger"


def webhook_group(application_id: str) -> str:
    """The consumer group of those who post alerts: each alert is posted by one worker."""
    return f"{application_id}-webhook"


def dispatch_topic(provider: str) -> str:
    return DISPATCH_PREFIX + provider


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Kafka's own choice for a key: murmur2, positive, modulo the partitions.

    The same as the Java client's and aiokafka's default partitioner, so that their records arrive where they belong.
    librdkafka's default differs (CRC32); admission sends such records on to their own partition.
    """
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with Kafka's seed. Source: Austin Appleby's MurmurHash2, public domain."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    state = 0x9747B28C ^ length
    body = length & ~3
    for start in range(0, body, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        state = state * multiplier & mask ^ word
    if tail := data[body:]:
        state = (state ^ int.from_bytes(tail, "little")) * multiplier & mask
    state = (state ^ state >> 13) * multiplier & mask
    return state ^ state >> 15
