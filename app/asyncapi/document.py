"""The AsyncAPI 3 document itself, made from the topology and the events. Operations are those of an application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.asyncapi.messages import BINDING, Part, messages
from app.settings import PROVIDER_NAMES
from schemas.codec import SUPPORTED_VERSION
from streams import topology
from streams.topology import TopicSpec, Topology

#: Channel → its topic, and the messages on it. `reply` is whichever topic a request names.
_CHANNELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "requests": (topology.REQUESTS, ("request",)),
    "responses": (topology.RESPONSES, ("response",)),
    "replies": (topology.REPLIES, ("reply", "chunk", "faustReply")),
    "cancellations": (topology.CANCELLATIONS, ("cancellation",)),
    "usage": (topology.USAGE, ("usage",)),
    "budgets": (topology.BUDGETS, ("budget",)),
    "budgetState": (topology.BUDGET_STATE, ("budgetState",)),
    "budgetAlerts": (topology.BUDGET_ALERTS, ("budgetAlert", "spendAnomaly")),
    "control": (topology.CONTROL, ("control",)),
    "lanes": (topology.LANES, ("lane",)),
    "deadLetters": (topology.DEAD_LETTERS, ("deadLetter",)),
}
_REPLY = "reply"
_REPLIES = ("reply", "chunk", "faustReply")

_SENDS = {
    "sendRequest": ("requests", "Ask, and read the response on ai.responses, or nothing at all."),
    "cancelRequest": ("cancellations", "Say that nobody wants an answer any more."),
    "setBudget": ("budgets", "Set a workspace's budget, as `spillway budget` does."),
    "steerLanes": ("control", "Set limits or modes of lanes, as `spillway limits` and `spillway lanes` do."),
}
_RECEIVES = {
    "receiveResponses": ("responses", "Every request's terminal response."),
    "receiveReplies": ("replies", "Replies to those who have no reply topic of their own; pick yours by key."),
    "receiveUsage": ("usage", "Every attempt. Count each once: workspace_id, request_id and attempt name it."),
    "receiveBudgetState": ("budgetState", "How each workspace's month stands."),
    "receiveBudgetAlerts": ("budgetAlerts", "Crossed thresholds, remarkable hours."),
    "receiveLanes": ("lanes", "How each lane stands."),
    "receiveDeadLetters": ("deadLetters", "What could not be processed."),
}
#: How a request names its reply topic → where that is, and the messages that come there.
_ASKS = {
    "ask": ("$message.payload#/reply_to", ("reply", "chunk"), "named in the body"),
    "askAsFastStream": ("$message.header#/reply_to", ("reply", "chunk"), "named as FastStream does"),
    "askAsSpring": ("$message.header#/kafka_replyTopic", ("reply", "chunk"), "named as Spring Kafka does"),
    "askAsFaust": ("$message.header#/Faust-Ag-ReplyTo", ("faustReply",), "named as Faust does"),
}


def document(topics: Topology | None = None) -> dict[str, Any]:
    """The document of a deployment; without one, of the default settings."""
    specs = {spec.name: spec for spec in (topics or Topology("spillway", PROVIDER_NAMES)).topics()}
    channels = {name: _channel(specs[topic], told) for name, (topic, told) in _CHANNELS.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Spillway",
            "version": str(SUPPORTED_VERSION),
            "description": "AI requests by Kafka. The version is the `schema_version` of the events; docs/contract.md "
            "says what may change within it. Partitions and settings of topics are those of the default deployment.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {"host": "localhost:9092", "protocol": "kafka", "description": "the deployment's brokers"}
        },
        "channels": {**channels, _REPLY: _reply_channel()},
        "operations": {**_sends(), **_asks(), **_receives()},
        "components": {
            "messages": messages(),
            "correlationIds": {
                "header": {
                    "location": "$message.header#/correlation_id",
                    "description": "As in the request; Spring's is in kafka_correlationId.",
                },
                "envelope": {"location": "$message.payload#/correlation_id"},
            },
        },
    }


def _channel(spec: TopicSpec, told: Iterable[str]) -> Part:
    config = {name: int(value) if value.isdigit() else value for name, value in spec.config().items()}
    known = {"retention.ms", "max.message.bytes"}
    settings: Part = {name: value for name, value in config.items() if name in known}
    settings["cleanup.policy"] = spec.cleanup.split(",")
    return {
        "address": spec.name,
        "description": spec.purpose,
        "messages": _named(told),
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "topicConfiguration": settings,
                "bindingVersion": BINDING,
            }
        },
    }


def _reply_channel() -> Part:
    return {
        "address": None,
        "description": "The topic that a request names. It must exist, and be none of Spillway's but ai.replies.",
        "messages": _named(_REPLIES),
    }


def _named(names: Iterable[str]) -> Part:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _sends() -> dict[str, Part]:
    return {name: _operation("send", channel, about) for name, (channel, about) in _SENDS.items()}


def _receives() -> dict[str, Part]:
    return {name: _operation("receive", channel, about) for name, (channel, about) in _RECEIVES.items()}


def _asks() -> dict[str, Part]:
    return {name: _ask(location, told, how) for name, (location, told, how) in _ASKS.items()}


def _ask(location: str, told: Iterable[str], how: str) -> Part:
    reply = {
        "address": {"location": location, "description": f"The reply topic, {how}."},
        "channel": {"$ref": f"#/channels/{_REPLY}"},
        "messages": [{"$ref": f"#/channels/{_REPLY}/messages/{name}"} for name in told],
    }
    return _operation("send", "requests", f"Ask, with a reply topic {how}.") | {"reply": reply}


def _operation(action: str, channel: str, about: str) -> Part:
    found = _REPLIES if channel == _REPLY else _CHANNELS[channel][1]
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": about,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in found],
    }
