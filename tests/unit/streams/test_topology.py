"""The map is what is on the wire: names, partitions and lanes."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import MAX_HEADER_BYTES
from streams.topology import (
    BUDGET_ALERTS,
    BUDGET_STATE,
    DEAD_LETTERS,
    MAX_RECORD_BYTES,
    REDRIVES,
    REPLIES,
    REQUESTS,
    LaneGroup,
    Topology,
    partition_of,
)

PROVIDERS = ("claude", "openai", "perplexity")
BROADCAST = (
    "ai.api-keys",
    "ai.budgets",
    "ai.cancellations",
    "ai.control",
    "ai.dead-letters.redriven",
    "ai.lanes",
    "ai.owners",
)
COMPACTED = ("ai.api-keys", "ai.budget.state", "ai.budgets", "ai.control", "ai.lanes")


def sharded(shards: int, **fields: Any) -> Topology:
    return topology(lanes={name: (LaneGroup(shards=shards),) for name in PROVIDERS}, **fields)


def topology(**fields: Any) -> Topology:
    return Topology("spillway", PROVIDERS, **fields)


def test_names_on_the_wire_do_not_change() -> None:
    assert sorted(spec.name for spec in topology().topics()) == [
        "ai.api-keys",
        "ai.attempts",
        "ai.budget.alerts",
        "ai.budget.state",
        "ai.budgets",
        "ai.cancellations",
        "ai.control",
        "ai.dead-letters",
        "ai.dead-letters.redriven",
        "ai.dispatch.claude",
        "ai.dispatch.openai",
        "ai.dispatch.perplexity",
        "ai.lanes",
        "ai.owners",
        "ai.replies",
        "ai.requests",
        "ai.responses",
        "ai.spend",
        "ai.ticks",
        "ai.usage",
        "spillway-alerts-changelog",
        "spillway-lanes-changelog",
        "spillway-marks-changelog",
        "spillway-requests-changelog",
    ]


def test_every_topic_is_named_once() -> None:
    names = [spec.name for spec in topology().topics()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("partitions", [1, 6, 24])
def test_all_joined_topics_have_the_same_number_of_partitions(partitions: int) -> None:
    topics = topology(partitions=partitions).topics()
    assert {spec.partitions for spec in topics if spec.name not in BROADCAST} == {partitions}
    assert {spec.partitions for spec in topics if spec.name in BROADCAST} == {1}, "every worker reads all of them"


def test_tables_are_compacted_and_never_expire_and_nothing_else_is() -> None:
    for spec in topology().topics():
        is_table = spec.name.endswith("-changelog") or spec.name in COMPACTED
        assert (spec.config()["cleanup.policy"] == "compact") is is_table, spec.name
        assert ("retention.ms" in spec.config()) is not is_table, spec.name


def test_what_people_rely_on_is_public_and_the_rest_is_internal() -> None:
    public = {spec.name for spec in topology().topics() if spec.audience == "public"}
    assert public == {
        REQUESTS,
        "ai.responses",
        REPLIES,
        "ai.usage",
        BUDGET_ALERTS,
        BUDGET_STATE,
        DEAD_LETTERS,
        *BROADCAST,
    } - {REDRIVES, "ai.api-keys", "ai.owners"}
    assert all(spec.purpose for spec in topology().topics())


def test_the_largest_request_still_fits_into_the_dead_letters_with_its_story() -> None:
    sizes = {spec.name: spec.max_bytes for spec in topology().topics()}
    assert sizes[DEAD_LETTERS] >= sizes[REQUESTS] + MAX_HEADER_BYTES + 16 * 1024
    assert sizes[DEAD_LETTERS] <= 2 * MAX_RECORD_BYTES, "the producer sends no more than this"


@pytest.mark.parametrize("partitions", [3, 6, 7, 24])
def test_lanes_of_different_providers_are_in_different_partitions(partitions: int) -> None:
    lanes = [topology(partitions=partitions).lane(name, "some-model", "acme", "r-1") for name in PROVIDERS]
    assert len({lane.partition for lane in lanes}) == len(PROVIDERS)


@pytest.mark.parametrize("shards", [1, 2, 6])
def test_requests_use_all_shards_of_a_provider_each_in_its_own_partition(shards: int) -> None:
    lanes = {sharded(shards).lane("openai", "some-model", "acme", f"r-{number}") for number in range(200)}
    assert {lane.shard for lane in lanes} == set(range(shards))
    assert len({lane.partition for lane in lanes}) == shards
    assert {lane.name for lane in lanes} == {f"openai/{shard}" for shard in range(shards)}


def test_shards_of_all_providers_together_use_every_partition_alike() -> None:
    used = [
        partition
        for name in PROVIDERS
        for partition in {sharded(2).lane(name, "some-model", "acme", f"r-{number}").partition for number in range(100)}
    ]
    assert sorted(used) == list(range(6))


@given(st.text(max_size=20), st.text(max_size=20), st.integers(1, 20), st.integers(1, 20))
def test_a_request_has_one_lane_at_a_provider_inside_its_topic(
    workspace: str, request: str, partitions: int, shards: int
) -> None:
    lane = sharded(shards, partitions=partitions).lane("openai", "some-model", workspace, request)
    assert lane == sharded(shards, partitions=partitions).lane("openai", "some-model", workspace, request)
    assert 0 <= lane.partition < partitions
    assert 0 <= lane.shard < shards


@given(st.binary(max_size=40), st.integers(1, 100))
def test_a_key_goes_where_kafkas_own_partitioner_sends_it(key: bytes, partitions: int) -> None:
    everywhere = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_java_client(key: bytes, murmur2: int) -> None:
    """The numbers are those of Kafka's own UtilsTest."""
    assert partition_of(key, 2**31) == murmur2 & 0x7FFFFFFF


def test_everything_of_a_workspace_is_decided_in_one_partition() -> None:
    assert topology().workspace_partition("acme") == partition_of(b"acme", 6)
    assert {topology().workspace_partition(f"w-{number}") for number in range(100)} == set(range(6))


def test_a_reply_may_go_to_the_topic_for_replies_and_to_no_other_of_spillways_own() -> None:
    topics = {spec.name for spec in topology().topics()}
    assert topics - topology().own_names() == {REPLIES}


def test_only_the_words_of_workers_are_stamped_by_the_broker_whatever_its_settings_are() -> None:
    stamped = {spec.name: spec.config().get("message.timestamp.type") for spec in topology().topics()}
    assert stamped.pop("ai.owners") == "LogAppendTime"
    assert set(stamped.values()) == {None}


def test_words_of_workers_leave_the_log_soon_after_they_have_lost_their_meaning() -> None:
    [words] = [spec.config() for spec in topology().topics() if spec.name == "ai.owners"]
    assert (words["cleanup.policy"], words["retention.ms"], words["segment.ms"]) == (
        "compact,delete",
        "3600000",
        "600000",
    )
