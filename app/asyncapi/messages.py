"""The messages of the public topics, for the AsyncAPI document: payload, headers and key of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas import dead_letter

Part = dict[str, Any]

#: Version of the Kafka bindings that the document is written in.
BINDING = "0.5.0"

_TEXT: Part = {"type": "string"}
#: CloudEvents 1.0, Kafka protocol binding, binary content mode.
_CLOUD_EVENT: Mapping[str, str] = {
    "ce_specversion": "1.0",
    "ce_id": "names the event; a repeat has the same",
    "ce_type": "what it is",
    "ce_source": "/spillway/ and the workspace, where Spillway writes it",
    "ce_time": "when it happened",
    "content-type": "application/json",
    "traceparent": "W3C trace context",
}
_ALWAYS = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type")


def messages() -> dict[str, Part]:
    """Name → AsyncAPI message object."""
    return {**_written_by_others(), **_written_by_spillway()}


def _written_by_others() -> dict[str, Part]:
    request_headers = _headers(
        "All are optional: a record without any header is accepted.",
        {
            **_CLOUD_EVENT,
            "ce_expirytime": "the deadline, where the body names none",
            "reply_to": "FastStream's name of the reply topic",
            "correlation_id": "comes back with the reply (FastStream, and where the body names the reply topic)",
            "kafka_replyTopic": "Spring's name of the reply topic",
            "kafka_replyPartition": "Spring's partition of it: four bytes, big-endian, or digits",
            "kafka_correlationId": "comes back with the reply (Spring); any bytes",
            "Faust-Ag-ReplyTo": "Faust's name of the reply topic",
            "Faust-Ag-CorrelationId": "comes back in the reply's envelope (Faust)",
        },
    )
    optional = _headers("All are optional.", _CLOUD_EVENT)
    return {
        "request": _message("An AI request", "request", "workspace (optional)", request_headers),
        "cancellation": _message("Nobody wants the answer any more", "cancellation", "workspace", optional),
        "budget": _message(
            "A workspace's budget, as a whole; a record without a value takes it back", "budget", "workspace", optional
        ),
        "control": _message(
            "Limits or mode of a target; a record without a value takes it back",
            "control",
            "limits/<target> or mode/<target>",
            optional,
        ),
    }


def _written_by_spillway() -> dict[str, Part]:
    told = _headers("Always there, but for traceparent.", _CLOUD_EVENT, required=_ALWAYS)
    correlated = _headers(
        "Always there, but for traceparent and the correlation id of the dialect in which was asked.",
        {**_CLOUD_EVENT, "correlation_id": "as in the request", "kafka_correlationId": "as in the request (Spring)"},
        required=_ALWAYS,
    )
    correlation = {"correlationId": {"$ref": "#/components/correlationIds/header"}}
    return {
        "response": _message("The one terminal response of a request", "response", "workspace", told),
        "reply": _message("The response, for the one who asked", "response", "request id", correlated) | correlation,
        "chunk": _message("A piece of an answer while it is written", "chunk", "request id", correlated) | correlation,
        "faustReply": _faust_reply(told),
        "usage": _message("One attempt at a provider", "usage", "workspace", told),
        "budgetAlert": _message("A month's cost has crossed a threshold", "budget-alert", "workspace", told),
        "spendAnomaly": _message("An hour costs far more than usual", "spend-anomaly", "workspace", told),
        "budgetState": _message("What is spent and reserved", "budget-state", "workspace/month", told),
        "lane": _message("How a lane stands", "lane", "lane", told),
        "deadLetter": _dead_letter(),
    }


def _message(title: str, schema: str, key: str, headers: Part) -> Part:
    return {
        "title": title,
        "contentType": "application/json",
        "headers": headers,
        "payload": payload(schema),
        "bindings": _key(key),
    }


def payload(schema: str) -> Part:
    """The exported JSON Schema of an event, by its place beside the document."""
    return {"$ref": f"./json/{schema}.json"}


def _faust_reply(headers: Part) -> Part:
    envelope = {
        "type": "object",
        "required": ["key", "value", "correlation_id"],
        "properties": {"key": _TEXT, "value": payload("response"), "correlation_id": _TEXT},
    }
    return {
        "title": "The response in Faust's reply envelope",
        "contentType": "application/json",
        "headers": headers,
        "payload": envelope,
        "correlationId": {"$ref": "#/components/correlationIds/envelope"},
        "bindings": _key("request id"),
    }


def _dead_letter() -> Part:
    told = {
        dead_letter.TOPIC: "where the record was",
        dead_letter.PARTITION: "four bytes, big-endian",
        dead_letter.OFFSET: "eight bytes, big-endian",
        dead_letter.TIMESTAMP: "milliseconds since 1970: eight bytes, big-endian",
        dead_letter.TIMESTAMP_TYPE: "CREATE_TIME or LOG_APPEND_TIME",
        dead_letter.ERROR_NAME: "spillway.<code>",
        dead_letter.ERROR_MESSAGE: "what is wrong, for people",
    }
    return {
        "title": "What could not be processed, byte for byte",
        "contentType": "application/octet-stream",
        "headers": _headers("The original headers first, then these.", told, required=tuple(told)),
        "payload": {"description": "The original value, whatever it was."},
        "bindings": _key("as the original"),
    }


def _key(what: str) -> Part:
    return {"kafka": {"key": {**_TEXT, "description": what}, "bindingVersion": BINDING}}


def _headers(about: str, names: Mapping[str, str], required: tuple[str, ...] = ()) -> Part:
    found: Part = {
        "type": "object",
        "description": about,
        "properties": {name: {**_TEXT, "description": what} for name, what in names.items()},
    }
    return {**found, "required": list(required)} if required else found
