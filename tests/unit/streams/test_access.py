"""What each role is allowed in Kafka, read from the topology."""

from __future__ import annotations

import pytest

from streams.access import ROLES, Grant, grants
from streams.topology import API_KEYS, REPLIES, Topology, dispatch_topic

TOPOLOGY = Topology("own", ("claude", "openai"), named=("local",))


def allowed(role: str, **options: object) -> dict[str, set[str]]:
    given = grants(TOPOLOGY, role, **options)  # type: ignore[arg-type]
    return {grant.name: set(grant.operations) for grant in given}


@pytest.mark.parametrize("role", ROLES)
def test_each_grant_is_made_once_and_names_what_there_is(role: str) -> None:
    given = grants(TOPOLOGY, role)  # type: ignore[arg-type]
    names = [(grant.resource, grant.name) for grant in given]
    assert len(names) == len(set(names))
    topics = {spec.name for spec in TOPOLOGY.topics()}
    assert {name for resource, name in names if resource == "topic"} <= topics
    assert {name for resource, name in names if resource == "group"} <= {"own", "own-ledger", "own-webhook"}
    assert {name for resource, name in names if resource == "transactional-id"} <= {"own-owner-"}


@pytest.mark.parametrize("role", ROLES)
def test_who_writes_the_workers_tables_may_own_their_partitions_and_nobody_else_may(role: str) -> None:
    given = grants(TOPOLOGY, role)  # type: ignore[arg-type]
    owns = [grant for grant in given if grant.resource == "transactional-id"]
    writes = {grant.name for grant in given if grant.name.endswith("-changelog") and "Write" in grant.operations}
    changelogs = {spec.name for spec in TOPOLOGY.topics() if spec.name.endswith("-changelog")}
    if role in {"worker", "operator"}:
        assert owns == [Grant("transactional-id", "own-owner-", ("Write", "Describe"), prefixed=True)]
        assert writes == changelogs
    else:
        assert (owns, writes) == ([], set())


def test_every_topic_has_somebody_who_writes_it_and_somebody_who_reads_it() -> None:
    every = [allowed(role) for role in ROLES]
    for spec in TOPOLOGY.topics():
        assert any("Write" in found.get(spec.name, ()) for found in every), spec.name
        assert any("Read" in found.get(spec.name, ()) for found in every), spec.name


def test_a_new_provider_is_in_it() -> None:
    assert allowed("worker")[dispatch_topic("local")] == {"Read", "Write"}


def test_a_worker_sees_no_key_to_the_door_and_makes_no_topic() -> None:
    found = allowed("worker")
    assert API_KEYS not in found
    assert not set().union(*found.values()) - {"Read", "Write", "Describe"}


def test_the_page_writes_nothing() -> None:
    assert not set().union(*allowed("page").values()) - {"Read", "Describe"}


def test_an_operator_can_make_every_topic() -> None:
    found = allowed("operator")
    assert all("Create" in found[spec.name] for spec in TOPOLOGY.topics())


def test_a_reply_topic_of_the_applications_own_is_written_by_workers_and_read_by_its_client() -> None:
    own = ("shop.replies", "bots.*")
    assert {Grant("topic", "shop.replies", ("Write",)), Grant("topic", "bots.", ("Write",), prefixed=True)} <= set(
        grants(TOPOLOGY, "worker", reply_topics=own)
    )
    client = allowed("client", reply_topics=own)
    assert (client["shop.replies"], client["bots."]) == ({"Read"}, {"Read"})
    assert REPLIES not in client
