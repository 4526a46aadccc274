"""Who needs which operations on which topics, groups and transactional ids: the least that each role works with.

Read from the topology, so a new topic or provider is in it at once. A grant on a topic to read or to write implies
seeing it; only who asks for nothing else is given Describe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streams.topology import (
    API_KEYS,
    BUDGET_ALERTS,
    BUDGET_STATE,
    BUDGETS,
    CANCELLATIONS,
    CONTROL,
    DEAD_LETTERS,
    LANES,
    REDRIVES,
    REPLIES,
    REPORTS,
    REQUESTS,
    RESPONSES,
    SPEND,
    USAGE,
    Topology,
    dispatch_topic,
    ledger_group,
    webhook_group,
)

Role = Literal["worker", "producer", "client", "door", "page", "operator"]
Resource = Literal["topic", "group", "transactional-id"]
#: In Kafka's own words.
Operation = Literal["Read", "Write", "Create", "Delete", "Alter", "Describe", "DescribeConfigs", "AlterConfigs"]

ROLES: dict[Role, str] = {
    "worker": "a worker (`spillway worker`)",
    "producer": "an application that only publishes requests",
    "client": "an application with the Python client",
    "door": "the HTTP door (`spillway serve`)",
    "page": "the page, to look at (`spillway web`); its buttons are an operator's",
    "operator": "whoever runs all other commands, and the page's buttons",
}


@dataclass(frozen=True)
class Grant:
    """What is allowed on one topic, group or transactional id. `prefixed`: on all whose names begin so."""

    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


def grants(topology: Topology, role: Role, *, reply_topics: Iterable[str] = ()) -> tuple[Grant, ...]:
    """What a role needs, and nothing more.

    `reply_topics` are the applications' own, for a worker to write and for a client to read; a name that ends with `*`
    stands for all that begin so.
    """
    own = tuple(reply_topics)
    match role:
        case "worker":
            return _worker(topology, own)
        case "producer":
            return _topics([REQUESTS, CANCELLATIONS], "Write")
        case "client":
            return _client(own or (REPLIES,))
        case "door":
            return (*_client(own or (REPLIES,)), *_topics([API_KEYS], "Read"))
        case "page":
            return _page(topology)
        case "operator":
            return _operator(topology, own)


def _worker(topology: Topology, reply_topics: tuple[str, ...]) -> tuple[Grant, ...]:
    application = topology.application_id
    heard = (CANCELLATIONS, CONTROL, BUDGETS)
    told = (RESPONSES, REPLIES, USAGE, BUDGET_ALERTS, BUDGET_STATE, DEAD_LETTERS, LANES)
    #: The sinks read what is told, and the webhook the alerts; every worker hears how the others' lanes stand.
    told_and_heard = {RESPONSES, USAGE, BUDGET_ALERTS, LANES}
    own = [spec.name for spec in topology.topics() if spec.audience == "internal" and spec.name not in _OTHERS]
    return (
        *_topics([REQUESTS, *own], "Read", "Write"),
        *_topics(heard, "Read"),
        *_topics([name for name in told if name in told_and_heard], "Read", "Write"),
        *_topics([name for name in told if name not in told_and_heard], "Write"),
        *_topics(reply_topics, "Write"),
        *_groups((application, ledger_group(application), webhook_group(application)), "Read"),
        owners(application),
    )


def owners(application_id: str) -> Grant:
    """To own partitions of the tables: each number has a transactional id, by which the broker knows its owner."""
    return Grant("transactional-id", f"{application_id}-owner-", ("Write", "Describe"), prefixed=True)


#: Internal topics that no worker touches: the door's, and the notes of sending dead letters again.
_OTHERS = frozenset({API_KEYS, REDRIVES})


def _client(reply_topics: Iterable[str]) -> tuple[Grant, ...]:
    return (*_topics([REQUESTS, CANCELLATIONS], "Write"), *_topics([*reply_topics, RESPONSES], "Read"))


def _page(topology: Topology) -> tuple[Grant, ...]:
    application = topology.application_id
    counted = (REQUESTS, REPORTS, RESPONSES, USAGE, *map(dispatch_topic, topology.all_providers))
    return (
        *_topics([LANES, BUDGETS, BUDGET_STATE, CONTROL, REDRIVES, DEAD_LETTERS], "Read"),
        *_topics(counted, "Describe"),
        *_groups((application, ledger_group(application)), "Describe"),
    )


def _operator(topology: Topology, reply_topics: tuple[str, ...]) -> tuple[Grant, ...]:
    """Makes, grows and mends the topics, reads all of them, and writes what commands write or send again.

    Commands that mend the workers' tables own their partitions meanwhile, and commit for the stopped workers' groups.
    """
    application = topology.application_id
    written = {CONTROL, BUDGETS, API_KEYS, REDRIVES, CANCELLATIONS}
    # Corrections of costs, and dead letters on their way back to any topic that a worker reads.
    written |= {REQUESTS, USAGE, REPORTS, RESPONSES, SPEND, *map(dispatch_topic, topology.all_providers)}
    written |= {spec.name for spec in topology.topics() if spec.name.endswith("-changelog")}
    made: tuple[Operation, ...] = ("Create", "Alter", "DescribeConfigs", "AlterConfigs", "Read")
    names = [spec.name for spec in topology.topics()]
    return (
        *_topics([name for name in names if name in written], *made, "Write"),
        *_topics([name for name in names if name == DEAD_LETTERS], *made, "Delete"),
        *_topics([name for name in names if name not in written and name != DEAD_LETTERS], *made),
        *_topics(reply_topics, "Read"),
        *_groups((application, ledger_group(application)), "Read"),
        owners(application),
    )


def _topics(names: Iterable[str], *operations: Operation) -> tuple[Grant, ...]:
    return tuple(_grant("topic", name, operations) for name in names)


def _groups(names: Iterable[str], *operations: Operation) -> tuple[Grant, ...]:
    return tuple(_grant("group", name, operations) for name in names)


def _grant(resource: Resource, name: str, operations: tuple[Operation, ...]) -> Grant:
    return Grant(resource, name.removesuffix("*"), operations, prefixed=name.endswith("*"))
