"""Spillway's topics in the cluster: creates what is missing, and says where an existing one differs.

A table's partition and its input meet only when their topics have the same number of partitions, so a wrong number is
an error that stops the start. A different setting is shown, and put right where that is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupCoordinatorNotAvailableError

from app.kafka import KafkaUnavailableError, admin_client, cluster_of
from app.settings import PROVIDER_NAMES, Settings
from streams.access import grants
from streams.runtime.errors import MissingTopicError
from streams.topology import TopicSpec, Topology, ledger_group

#: Seconds until new topics must be known with a leader for each partition, and changed ones with their settings.
USABLE_WITHIN = 15.0
_POLL = 0.1

#: Kafka's own numbers. Source: org.apache.kafka.common.protocol.Errors.
_ALREADY_EXISTS = 36
_REPLICATION_FACTOR = 38
#: A topic's own setting, as opposed to a default of the broker. Source: DescribeConfigs, ConfigSource.
_DYNAMIC_TOPIC_CONFIG = 1

State = Literal["ok", "created", "missing", "differs", "fixed", "broken"]


def build_topology(settings: Settings) -> Topology:
    """The map of this deployment.

    All known providers are in it, the built-in ones in an order that never changes: a lane's partition depends on
    both, and must not move when a deployment changes which provider comes first.
    """
    return Topology(
        application_id=settings.kafka_application_id,
        providers=PROVIDER_NAMES,
        partitions=settings.partitions,
        lanes=settings.lane_groups(),
        named=tuple(settings.named_providers()),
    )


@dataclass(frozen=True)
class Existing:
    """A topic as the cluster has it. `own` names the settings that were made for this topic."""

    partitions: int
    config: Mapping[str, str]
    own: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Difference:
    """A property that is not as it must be; only a setting of Kafka can be fixed, never a number of partitions."""

    name: str
    expected: str
    actual: str
    fixable: bool = True

    def __str__(self) -> str:
        return f"{self.name} is {self.actual}, should be {self.expected}"


@dataclass(frozen=True)
class TopicState:
    """One topic and how it stands."""

    spec: TopicSpec
    state: State
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class TopicsReport:
    """All topics of a deployment, in the order of the topology."""

    topics: tuple[TopicState, ...]

    @property
    def ok(self) -> bool:
        return all(topic.state in ("ok", "created", "fixed") for topic in self.topics)

    def named(self, *states: State) -> tuple[str, ...]:
        return tuple(topic.spec.name for topic in self.topics if topic.state in states)


class TopicsError(Exception):
    """The topics cannot be used as they are. The message is one sentence; `report` says how each stands."""

    def __init__(self, message: str, report: TopicsReport) -> None:
        super().__init__(message)
        self.report = report


async def inspect_topics(settings: Settings) -> TopicsReport:
    """How the topics stand; changes nothing. Raises KafkaUnavailableError."""
    async with admin_client(cluster_of(settings)) as admin:
        return await _inspect(admin, build_topology(settings).topics())


async def ensure_topics(settings: Settings, *, fix: bool = False) -> TopicsReport:
    """Create the missing topics, with `fix` also put settings right, and return when all can be used.

    Raises KafkaUnavailableError, and TopicsError when a topic has another number of partitions; then nothing was
    created, so that a mistyped AI_PARTITIONS leaves no trace.
    """
    specs = build_topology(settings).topics()
    async with admin_client(cluster_of(settings)) as admin:
        before = await _inspect(admin, specs)
        _refuse_broken(before)
        missing = [topic.spec for topic in before.topics if topic.state == "missing"]
        if missing:
            await _create(admin, missing, settings.replication_factor, before)
        changed = [topic for topic in before.topics if fix and topic.state == "differs"]
        if changed:
            await _fix(admin, changed)
            await _until_shown(admin, [topic.spec for topic in changed])
        await until_led(admin, [spec.name for spec in specs])
        after = await _inspect(admin, specs)
    _refuse_broken(after)
    return _with_history(before, after)


class PartitionsDifferError(Exception):
    """Topics have another number of partitions than this worker. The message says which, and what to do."""


async def require_access(settings: Settings) -> None:
    """Whether a worker's topics and groups are there for it, with its number of partitions, in a few requests.

    A topic that does not exist, or is hidden from this user, would be taken for one without records, and work would
    wait for ever. Raises PartitionsDifferError, MissingTopicError, KafkaUnavailableError.
    """
    topology = build_topology(settings)
    async with admin_client(cluster_of(settings)) as admin:
        known = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        if (mistake := partition_mistake(topology, known)) is not None:
            raise PartitionsDifferError(mistake)
        for grant in grants(topology, "worker"):
            if grant.resource == "topic" and grant.name not in known:
                raise MissingTopicError(grant.name)
        for group in (topology.application_id, ledger_group(topology.application_id)):
            # A cluster that has had no group yet has nobody to ask; it lets in or refuses when it has.
            with suppress(GroupCoordinatorNotAvailableError):
                await admin.list_consumer_group_offsets(group)


def partition_mistake(topology: Topology, known: Mapping[str, int]) -> str | None:
    """What is wrong with the topics' numbers of partitions, in a sentence; None where nothing is. What is missing is
    not looked at. Pure.

    A worker with another number would look for its workspaces' rows in the wrong partitions, and find none.
    """
    wanted = {spec.name: spec.partitions for spec in topology.topics()}
    wrong = sorted(name for name, number in wanted.items() if known.get(name, number) != number)
    if not wrong:
        return None
    first, others = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return (
        f"the topic {first}{others} has {known[first]} partitions and not {wanted[first]}: set AI_PARTITIONS to what "
        "the topics have, or finish the `spillway repartition` that was begun"
    )


def compare(spec: TopicSpec, existing: Existing | None) -> TopicState:
    """How one topic stands against what it must be. Pure."""
    if existing is None:
        return TopicState(spec, "missing")
    if existing.partitions != spec.partitions:
        wrong = Difference("partitions", str(spec.partitions), str(existing.partitions), fixable=False)
        return TopicState(spec, "broken", (wrong,))
    differences = tuple(
        Difference(name, expected, existing.config.get(name, "unknown"))
        for name, expected in spec.config().items()
        if not _same(expected, existing.config.get(name))
    )
    return TopicState(spec, "differs" if differences else "ok", differences)


def _same(expected: str, actual: str | None) -> bool:
    """Lists are equal in any order (compact,delete), numbers in any notation (0.1 and 0.10)."""
    if actual is None:
        return False
    if expected == actual or set(expected.split(",")) == set(actual.split(",")):
        return True
    try:
        return float(expected) == float(actual)
    except ValueError:
        return False


def _with_history(before: TopicsReport, after: TopicsReport) -> TopicsReport:
    """What is well now, and was not, was created or fixed in between."""
    became: dict[str, State] = {"missing": "created", "differs": "fixed"}
    return TopicsReport(
        tuple(
            replace(now, state=became.get(was.state, now.state)) if now.state == "ok" else now
            for was, now in zip(before.topics, after.topics, strict=True)
        )
    )


def _refuse_broken(report: TopicsReport) -> None:
    broken = [topic for topic in report.topics if topic.state == "broken"]
    if not broken:
        return
    first = broken[0]
    others = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    raise TopicsError(
        f"The topic {first.spec.name}{others} has {first.differences[0].actual} partitions and not "
        f"{first.spec.partitions}: set AI_PARTITIONS to what the topics were created with.",
        report,
    )


async def _inspect(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> TopicsReport:
    existing = await _describe(admin, {spec.name for spec in specs})
    return TopicsReport(tuple(compare(spec, existing.get(spec.name)) for spec in specs))


async def _describe(admin: AIOKafkaAdminClient, names: set[str]) -> dict[str, Existing]:
    """Those of the topics that exist. Asks for all topics: asking for one by name might create it."""
    found = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics() if topic["topic"] in names}
    if not found:
        return {}
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(found)])
    described = {}
    for code, _, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if code:
            continue
        described[name] = Existing(
            partitions=len(found[name]),
            config={entry[0]: entry[1] for entry in entries},
            own=frozenset(entry[0] for entry in entries if entry[3] == _DYNAMIC_TOPIC_CONFIG),
        )
    return described


async def _create(
    admin: AIOKafkaAdminClient, specs: Iterable[TopicSpec], replication_factor: int, before: TopicsReport
) -> None:
    wanted = [NewTopic(spec.name, spec.partitions, replication_factor, topic_configs=spec.config()) for spec in specs]
    answer = await admin.create_topics(wanted)
    for name, code, message in answer.topic_errors:
        if code == _REPLICATION_FACTOR:
            raise TopicsError(
                f"The cluster has too few brokers for AI_REPLICATION_FACTOR={replication_factor}.", before
            )
        if code not in (0, _ALREADY_EXISTS):
            raise TopicsError(f"Kafka did not create the topic {name}: {message or f'error {code}'}.", before)


async def _fix(admin: AIOKafkaAdminClient, states: Sequence[TopicState]) -> None:
    """Set what differs. Kafka's request replaces all of a topic's own settings, so the others are sent along."""
    existing = await _describe(admin, {state.spec.name for state in states})
    resources = []
    for state in states:
        current = existing[state.spec.name]
        kept = {name: current.config[name] for name in current.own}
        resources.append(ConfigResource(ConfigResourceType.TOPIC, state.spec.name, {**kept, **state.spec.config()}))
    for answer in await admin.alter_configs(resources):
        for code, message, _, name in answer.resources:
            if code:
                raise KafkaUnavailableError(f"Kafka did not change the settings of {name}: {message or code}.")


async def until_led(admin: AIOKafkaAdminClient, names: Collection[str], partitions: int = 1) -> None:
    """Return when each of the topics shows that many partitions or more, all with a leader. Raises
    KafkaUnavailableError.

    Kafka's controller answers when a change is in its log; a broker shows it when it has read that far.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + USABLE_WITHIN
    while True:
        led = {
            topic["topic"]: len(topic["partitions"])
            for topic in await admin.describe_topics()
            if all(partition["leader"] >= 0 for partition in topic["partitions"])
        }
        waiting = [name for name in names if led.get(name, 0) < partitions]
        if not waiting:
            return
        if loop.time() > deadline:
            raise KafkaUnavailableError(f"The topic {min(waiting)} has no leader after {USABLE_WITHIN:g} seconds.")
        await asyncio.sleep(_POLL)


async def _until_shown(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    """Return when the topics show the settings they were given, or never will: a cluster may overrule them."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + USABLE_WITHIN
    while True:
        shown = await _inspect(admin, specs)
        if not shown.named("differs") or loop.time() > deadline:
            return
        await asyncio.sleep(_POLL)
