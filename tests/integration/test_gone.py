"""Records that are deleted before they are read: real deletions on a real broker, under workers that are away.

With a stack of its own: what is deleted here would be missing in others' audits.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from app.audit.topics import committed
from app.cli.main import app
from app.devstack.stack import DevStack
from app.kafka import admin_client, cluster_of
from app.ops.ages import backlog_ages, timestamps
from app.settings import Settings
from app.topics import build_topology
from schemas.codec import encode
from schemas.dead_letter import DeadLetter, Gap
from schemas.response import Response
from streams.runtime.gone import Gone, jumps
from streams.runtime.outbox import Outbox, kafka_producer
from streams.topology import DEAD_LETTERS, REQUESTS, RESPONSES, USAGE, ledger_group
from tests.support.clock.waiting import eventually
from tests.support.reader.logs import LogPart
from tests.support.reader.topics import configure, consume_until, publish, reading
from tests.support.stack.running import running_stack, settings_of
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique
from tests.support.values.usage import usage

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def own_stack(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:  # noqa: ARG001
    with running_stack(tmp_path_factory.mktemp("gone")) as running:
        yield running


@pytest.fixture
def own(own_stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AI_STACK_DIR", str(own_stack.folder))
    return settings_of(own_stack)


async def spillway(*arguments: str, code: int) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


async def findings(code: int) -> list[dict[str, Any]]:
    """Of an audit of the last day, patient enough for what is under way."""
    told = json.loads(await spillway("audit", "--json", "--patience", "600", code=code))
    return list(told["findings"])


async def delete(settings: Settings, before: Mapping[TopicPartition, int]) -> None:
    """As retention does, now."""
    async with admin_client(cluster_of(settings)) as admin:
        await admin.delete_records({place: RecordsToDelete(offset) for place, offset in before.items()})


async def ends_of(settings: Settings, topic: str) -> dict[TopicPartition, int]:
    async with cluster_of(settings).consumer() as consumer:
        own = [TopicPartition(topic, number) for number in range(settings.partitions)]
        return dict(await consumer.end_offsets(own))


async def places(settings: Settings, group: str) -> dict[tuple[str, int], int]:
    cluster = cluster_of(settings)
    async with admin_client(cluster) as admin:
        return await committed(cluster, admin, group)


async def letters(settings: Settings, count: int) -> list[Gap]:
    """The gaps of which there are dead letters, when there are so many, in an order of their own."""
    async with reading(settings.kafka_bootstrap_servers, DEAD_LETTERS, from_start=True) as consumer:
        found = await consume_until(consumer, lambda some: len(some) >= count, within=60)
    gaps = [Gap.of(DeadLetter.from_record(one.key, one.value, tuple(one.headers))) for one in found]
    return sorted((gap for gap in gaps if gap is not None), key=lambda gap: (gap.topic, gap.partition))


async def counted(stack: DevStack, topic: str) -> float:
    """The metric of the worker that runs."""
    address = (stack.folder / "worker-1" / "ops").read_text().strip()
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as reply:
        families = list(text_string_to_metric_families(await reply.text()))
    wanted = [s for family in families for s in family.samples if s.name == "ai_records_gone_total"]
    return sum(sample.value for sample in wanted if sample.labels["topic"] == topic)


def asked(workspace: str, prefix: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    common = {"workspace_id": workspace, "prompt": "hello", "preferred_providers": ["claude"]}
    bodies = [{**common, "request_id": f"{prefix}-{number}", "prompt": f"{prefix} {number}"} for number in range(count)]
    return [(workspace.encode(), json.dumps(body).encode()) for body in bodies]


async def has_read(settings: Settings, group: str, *topics: str) -> bool:
    found = await places(settings, group)
    ends = {(tp.topic, tp.partition): end for topic in topics for tp, end in (await ends_of(settings, topic)).items()}
    return all(found.get(place) == end for place, end in ends.items())


@pytest.mark.prove
async def test_requests_and_usage_that_were_deleted_under_workers_that_were_away_are_told_once(
    own_stack: DevStack, own: Settings
) -> None:
    """A weekend: the groups have places from the first minute on, also where nothing had come before."""
    servers, stages = own.kafka_bootstrap_servers, own.kafka_application_id
    sinks, log = ledger_group(stages), LogPart.from_now_on(own_stack.log("worker-1"))
    with running_worker(own_stack, **WIDE_LANES):
        await eventually(lambda: has_read(own, stages, REQUESTS), within=60, every=0.5, what="the stages have places")
        await eventually(lambda: has_read(own, sinks, USAGE), within=60, every=0.5, what="the sinks have places")
    assert "records_gone" not in log.text()
    assert await findings(0) == []
    workspace = unique("away")
    home = build_topology(own).workspace_partition(workspace)
    await publish(servers, REQUESTS, asked(workspace, "lost", 6))
    await publish(servers, REQUESTS, asked(workspace, "kept", 2))
    await publish(servers, USAGE, [(workspace.encode(), encode(usage(workspace))) for _ in range(3)])
    here, used = TopicPartition(REQUESTS, home), TopicPartition(USAGE, home)
    await delete(own, {here: 6, used: 3})

    # While nobody reads, the audit alone says it.
    [finding] = await findings(1)
    assert (finding["kind"], finding["count"]) == ("records_gone", 2)
    told = {example["name"]: example["detail"] for example in finding["examples"]}
    assert told == {
        f"ai.requests[{home}]": f"offsets 0 to 5 (6) were deleted before {stages} had read them",
        f"ai.usage[{home}]": f"offsets 0 to 2 (3) were deleted before {sinks} had read them",
    }

    log = LogPart.from_now_on(own_stack.log("worker-1"))
    async with reading(servers, RESPONSES, from_start=True) as answers:
        with running_worker(own_stack, **WIDE_LANES):
            assert await letters(own, 2) == [Gap(stages, REQUESTS, home, 0, 5), Gap(sinks, USAGE, home, 0, 2)]
            await consume_until(answers, lambda some: ids(some) >= {"kept-0", "kept-1"}, within=60)
            await eventually(lambda: has_read(own, stages, REQUESTS), within=60, every=0.5)
            await eventually(lambda: has_read(own, sinks, USAGE), within=60, every=0.5)
            assert (await counted(own_stack, REQUESTS), await counted(own_stack, USAGE)) == (6, 3)
    text = log.text()
    assert text.count("records_gone: ") == 2
    assert f"records_gone: ai.requests[{home}]: offsets 0 to 5 (6) were deleted before {stages} had read them" in text

    # Told once: the next worker finds its place.
    log = LogPart.from_now_on(own_stack.log("worker-1"))
    with running_worker(own_stack, **WIDE_LANES):
        await publish(servers, REQUESTS, asked(workspace, "later", 1))
        await eventually(lambda: has_read(own, stages, REQUESTS), within=60, every=0.5)
        assert await counted(own_stack, REQUESTS) == 0
    assert "records_gone" not in log.text()
    assert len(await letters(own, 2)) == 2
    [finding] = await findings(1)
    assert finding["count"] == 2
    shown = json.loads(await spillway("dlq", "list", "--code", "records_gone", "--json", code=0))["letters"]
    assert {(letter["topic"], letter["partition"], letter["offset"]) for letter in shown} == {
        (REQUESTS, home, 0),
        (USAGE, home, 0),
    }
    assert "were deleted before" in await spillway("dlq", "show", shown[0]["place"], "--body", code=0)
    refused = await spillway("dlq", "redrive", "--code", "records_gone", "--yes", code=0)
    assert "there is nothing left to send" in refused


def ids(records: list[Any]) -> set[str]:
    return {Response.model_validate_json(record.value).request_id for record in records}


@pytest.mark.prove
async def test_a_partition_of_which_nothing_is_left_is_committed_past_its_gap(
    own_stack: DevStack, own: Settings
) -> None:
    servers, stages = own.kafka_bootstrap_servers, own.kafka_application_id
    with running_worker(own_stack, **WIDE_LANES):
        await eventually(lambda: has_read(own, stages, REQUESTS), within=60, every=0.5)
    workspace, before = unique("empty"), await ends_of(own, REQUESTS)
    here = TopicPartition(REQUESTS, build_topology(own).workspace_partition(workspace))
    await publish(servers, REQUESTS, asked(workspace, "lost", 4))
    await delete(own, {here: before[here] + 4})
    with running_worker(own_stack, **WIDE_LANES):
        await eventually(lambda: has_read(own, stages, REQUESTS), within=60, every=0.5)
    wanted = Gap(stages, REQUESTS, here.partition, before[here], before[here] + 3)
    assert wanted in await letters(own, 1)


# What the broker does, without a worker ---------------------------------------------------------------------------


async def topic_of(settings: Settings, **config: str) -> TopicPartition:
    name = unique("log")
    async with admin_client(cluster_of(settings)) as admin:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=config)])
    return TopicPartition(name, 0)


def member(settings: Settings, group: str) -> AIOKafkaConsumer:
    return cluster_of(settings).consumer(group_id=group, auto_offset_reset="earliest", max_partition_fetch_bytes=1_024)


async def read_up_to(consumer: AIOKafkaConsumer, offset: int) -> None:
    await consume_until(consumer, lambda some: bool(some) and some[-1].offset >= offset, within=60)


async def test_a_reader_that_is_slower_than_the_retention_is_moved_over_a_gap(own: Settings) -> None:
    here = await topic_of(own)
    values: list[tuple[bytes | None, bytes | None]] = [(b"k", bytes(500)) for _ in range(20)]
    for value in values:
        # A batch each: what is fetched at once ends at a record.
        await publish(own.kafka_bootstrap_servers, here.topic, [value])
    async with member(own, unique("g")) as consumer:
        consumer.assign([here])
        consumer.seek(here, 0)
        batches = await eventually(lambda: consumer.getmany(here, timeout_ms=500, max_records=1), within=60)
        assert [record.offset for record in batches[here]] == [0]
        await delete(own, {here: 18})
        await read_up_to(consumer, 19)
        # What had been fetched by then was read.
        [(place, before, after)] = jumps(consumer)
    assert (place, after) == (here, 18)
    assert 1 <= before < 18


async def test_deleted_records_that_were_read_and_offsets_without_records_are_no_gap(own: Settings) -> None:
    here, group = await topic_of(own), unique("g")
    servers = own.kafka_bootstrap_servers
    async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=unique("t")) as producer:
        for number in range(4):
            await producer.begin_transaction()
            await producer.send_and_wait(here.topic, b"value", key=b"k")
            # Its markers, and what is aborted, have offsets that nobody is given.
            await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
    async with member(own, group) as consumer:
        consumer.assign([here])
        await read_up_to(consumer, 6)
        [end] = (await consumer.end_offsets([here])).values()
        await eventually(lambda: at(consumer, here, end), within=60, what="all of it is passed")
        await consumer.commit({here: end})
        await delete(own, {here: end})
        assert jumps(consumer) == []
    async with member(own, group) as consumer:
        consumer.assign([here])
        await publish(servers, here.topic, [(b"k", b"new")])
        await read_up_to(consumer, end)
        assert jumps(consumer) == []
    # A group that has never been here cannot say what it has missed.
    async with member(own, unique("g")) as consumer:
        consumer.assign([here])
        await read_up_to(consumer, end)
        assert jumps(consumer) == []


@pytest.mark.prove
async def test_who_dies_between_the_letter_and_the_commit_leaves_a_second_letter_with_the_same_key(
    own: Settings,
) -> None:
    here, group = await topic_of(own), unique("g")
    await publish(own.kafka_bootstrap_servers, here.topic, [(b"k", b"v")] * 5)
    async with member(own, group) as consumer:
        consumer.assign([here])
        await consumer.commit({here: 1})
    await delete(own, {here: 4})
    outbox = Outbox(lambda: kafka_producer(own.kafka_bootstrap_servers))
    await outbox.start()
    async with reading(own.kafka_bootstrap_servers, DEAD_LETTERS) as letters_now:
        for _ in range(2):
            async with member(own, group) as consumer:
                consumer.assign([here])
                await read_up_to(consumer, 4)
                gone = Gone(outbox, group)
                await gone.tell_all(consumer)
                # The same consumer, sought back, has told it.
                consumer.seek(here, 1)
                await read_up_to(consumer, 4)
                await gone.tell_all(consumer)
        first, second = await consume_until(letters_now, lambda some: len(some) >= 2, only=partial(is_of, group))
    await outbox.stop()
    assert first.key == second.key == f"records_gone/{group}/{here.topic}/0/1".encode()
    assert first.partition == second.partition


def is_of(group: str, record: Any) -> bool:
    return group.encode() in (record.key or b"")


async def at(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> bool:
    await consumer.getmany(place, timeout_ms=100)
    return bool(await consumer.position(place) == offset)


async def test_the_timestamps_of_all_partitions_are_found_however_large_their_records_are(own: Settings) -> None:
    name, now = unique("log"), round(time.time() * 1000)
    async with admin_client(cluster_of(own)) as admin:
        await admin.create_topics([NewTopic(name, 6, 1)])
    async with AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap_servers) as producer:
        for number in range(12):
            # Of each partition the second one is older: what counts is the first that is not read.
            sent, value = now - 1_000 * number, bytes(300_000)
            await producer.send_and_wait(name, value, partition=number % 6, timestamp_ms=sent)
    unread = {TopicPartition(name, number): 0 for number in range(6)}
    found = await timestamps(cluster_of(own), unread, patience=60)
    assert found == {place: now - 1_000 * place.partition for place in unread}
    later = await timestamps(cluster_of(own), {TopicPartition(name, 2): 1}, patience=60)
    assert later == {TopicPartition(name, 2): now - 8_000}
    # Nobody waits for ever for a record that is not there.
    assert await timestamps(cluster_of(own), {TopicPartition(name, 2): 2}, patience=0.5) == {}


# Before it is too late --------------------------------------------------------------------------------------------


async def test_status_warns_when_the_backlog_has_half_the_age_at_which_it_is_deleted(
    own_stack: DevStack, own: Settings
) -> None:
    stages = own.kafka_application_id
    with running_worker(own_stack, **WIDE_LANES):
        await eventually(lambda: has_read(own, stages, REQUESTS), within=60, every=0.5)
    assert REQUESTS not in {age.topic for age in await backlog_ages(own)}
    workspace, day = unique("old"), 24 * 3_600_000
    body = json.dumps({"request_id": unique("r"), "workspace_id": workspace, "prompt": "hello"}).encode()
    async with AIOKafkaProducer(bootstrap_servers=own.kafka_bootstrap_servers) as producer:
        sent = round(time.time() * 1000) - 4 * day
        await producer.send_and_wait(REQUESTS, body, key=workspace.encode(), timestamp_ms=sent)
    [found] = [age for age in await backlog_ages(own) if age.topic == REQUESTS]
    assert (found.records, found.retention) == (1, 7 * 86_400)
    assert found.share == pytest.approx(4 / 7, rel=0.01)
    shown = await spillway("status", code=0)
    assert "ai.requests: the oldest unread record is 4.0 d old, 57% of the topic's retention" in shown
    [told] = [one for one in json.loads(await spillway("status", "--json", code=0))["backlog"]["topics"] if one["near"]]
    assert (told["topic"], told["unread"]) == (REQUESTS, 1)
    # What an operator has set counts.
    configure(own.kafka_bootstrap_servers, "retention.ms", {REQUESTS: str(40 * day)})
    [found] = [age for age in await backlog_ages(own) if age.topic == REQUESTS]
    assert found.share == pytest.approx(0.1, rel=0.01)
    assert not found.is_near
