"""Topics in a real broker: created, checked, put right."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.devstack.stack import DevStack
from app.kafka import KafkaUnavailableError, admin_client, cluster_of
from app.settings import Settings
from app.topics import TopicsError, ensure_topics, inspect_topics
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(150)]


async def drop(settings: Settings, name: str) -> None:
    async with admin_client(cluster_of(settings)) as admin:
        await admin.delete_topics([name])


@pytest.fixture
def own(settings: Settings) -> Settings:
    """A deployment with changelogs of its own; the other topics are shared with all tests."""
    return settings.model_copy(update={"kafka_application_id": unique("app")})


def changelogs(settings: Settings) -> tuple[str, ...]:
    return tuple(
        f"{settings.kafka_application_id}-{table}-changelog" for table in ("requests", "marks", "lanes", "alerts")
    )


async def test_missing_topics_are_created_and_can_be_used_at_once(own: Settings) -> None:
    assert (await inspect_topics(own)).named("missing") == changelogs(own)
    created = await ensure_topics(own)
    assert created.named("created") == changelogs(own)
    again = await ensure_topics(own)
    assert again.ok
    assert again.named("created") == ()


async def test_two_may_create_the_topics_at_the_same_moment(own: Settings) -> None:
    reports = await asyncio.gather(ensure_topics(own), ensure_topics(own))
    assert all(report.ok for report in reports)


async def test_another_number_of_partitions_is_an_error_and_creates_nothing(own: Settings) -> None:
    wrong = own.model_copy(update={"partitions": own.partitions + 1})
    with pytest.raises(TopicsError, match=f"has {own.partitions} partitions and not {own.partitions + 1}") as raised:
        await ensure_topics(wrong)
    assert raised.value.report.named("missing") == changelogs(own)
    assert (await inspect_topics(own)).named("missing") == changelogs(own)


async def test_a_different_setting_is_shown_and_only_fixed_when_asked(own: Settings) -> None:
    name = changelogs(own)[0]
    own_settings = {"cleanup.policy": "delete", "segment.bytes": "1048576"}
    async with admin_client(cluster_of(own)) as admin:
        await admin.create_topics([NewTopic(name, own.partitions, 1, topic_configs=own_settings)])

    shown = await ensure_topics(own)
    assert shown.named("differs") == (name,)
    differences = {difference.name for topic in shown.topics for difference in topic.differences}
    assert differences >= {"cleanup.policy", "max.message.bytes"}

    fixed = await ensure_topics(own, fix=True)
    assert fixed.named("fixed") == (name,)
    async with admin_client(cluster_of(own)) as admin:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    config = {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    assert config["cleanup.policy"] == "compact"
    assert config["segment.bytes"] == "1048576", "a setting that Spillway has no opinion on must survive"


async def test_too_few_brokers_for_the_replicas_is_one_sentence(own: Settings) -> None:
    with pytest.raises(TopicsError, match="AI_REPLICATION_FACTOR=3"):
        await ensure_topics(own.model_copy(update={"replication_factor": 3}))


async def test_a_broker_that_is_away_is_one_sentence(own: Settings) -> None:
    with pytest.raises(KafkaUnavailableError, match="does not answer"):
        await ensure_topics(own.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"}))


async def test_the_stack_comes_with_its_topics(stack: DevStack, settings: Settings) -> None:
    assert stack.kafka.alive()
    assert (await inspect_topics(settings)).ok
