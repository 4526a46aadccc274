"""How a topic that exists is compared with what it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from app import topics
from app.kafka import KafkaUnavailableError
from app.settings import PROVIDER_NAMES, load_settings
from app.topics import Existing, build_topology, compare, until_led
from streams.topology import TopicSpec, partition_of

SPEC = TopicSpec("t", 6, cleanup="compact,delete")
EXISTING = Existing(partitions=6, config=SPEC.config())


def test_a_topic_that_is_as_it_must_be_is_ok() -> None:
    assert compare(SPEC, EXISTING).state == "ok"


def test_a_topic_that_is_not_there_is_missing() -> None:
    assert compare(SPEC, None).state == "missing"


def test_settings_that_say_the_same_do_not_differ() -> None:
    same = {**SPEC.config(), "cleanup.policy": "delete,compact", "min.cleanable.dirty.ratio": "0.10"}
    assert compare(SPEC, replace(EXISTING, config=same)).state == "ok"


@pytest.mark.parametrize("name", sorted(SPEC.config()))
def test_each_setting_that_differs_is_named_with_both_values(name: str) -> None:
    found = compare(SPEC, replace(EXISTING, config={**SPEC.config(), name: "7"}))
    assert found.state == "differs"
    assert [str(difference) for difference in found.differences] == [f"{name} is 7, should be {SPEC.config()[name]}"]


def test_settings_that_spillway_has_no_opinion_on_do_not_matter() -> None:
    assert compare(SPEC, replace(EXISTING, config={**SPEC.config(), "segment.bytes": "1"})).state == "ok"


def test_another_number_of_partitions_cannot_be_fixed() -> None:
    found = compare(SPEC, replace(EXISTING, partitions=3))
    assert found.state == "broken"
    assert not found.differences[0].fixable


def test_lanes_do_not_move_when_another_provider_comes_first() -> None:
    usual = build_topology(load_settings())
    other = build_topology(load_settings(primary_provider="perplexity", fallback_providers="claude"))
    assert usual.providers == PROVIDER_NAMES
    lanes = [usual.lane(provider, "some-model", "w", "r") for provider in PROVIDER_NAMES]
    assert lanes == [other.lane(provider, "some-model", "w", "r") for provider in PROVIDER_NAMES]


class SlowBroker:
    """A cluster whose broker has read only so far: each description is the next of these, the last one stays."""

    def __init__(self, *described: list[dict[str, object]]) -> None:
        self._described = list(described)
        self.asked = 0

    async def describe_topics(self) -> list[dict[str, object]]:
        self.asked += 1
        return self._described.pop(0) if len(self._described) > 1 else self._described[0]


def described(name: str, *leaders: int) -> list[dict[str, object]]:
    return [{"topic": name, "partitions": [{"leader": leader} for leader in leaders]}]


async def test_new_partitions_are_waited_for_until_each_has_a_leader() -> None:
    broker = SlowBroker([], described("t", 0, 0), described("t", 0, 0, -1), described("t", 0, 0, 0))
    await until_led(cast("AIOKafkaAdminClient", broker), ["t"], 3)
    assert broker.asked == 4


async def test_a_topic_that_never_has_a_leader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "USABLE_WITHIN", 0.0)
    broker = SlowBroker(described("t", -1))
    with pytest.raises(KafkaUnavailableError, match="topic t has no leader"):
        await until_led(cast("AIOKafkaAdminClient", broker), ["t"])


@given(st.binary(max_size=200), st.integers(1, 1024))
def test_a_key_has_the_partition_that_kafka_clients_choose(key: bytes, partitions: int) -> None:
    everything = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everything, everything)
