"""Kafka by OpenTelemetry's messaging conventions, and errors by the general ones."""

from __future__ import annotations

from asyncio import Future
from typing import Any

from opentelemetry.trace import Span, StatusCode

from app.tracing import names

Attributes = dict[str, str | int | float | bool]


def producer_attributes(topic: str, value: bytes | None, message_id: str | None) -> Attributes:
    found = {**_messaging(topic, "send"), names.BODY_SIZE: len(value or b"")}
    return {**found, names.MESSAGE_ID: message_id} if message_id else found


def consumer_attributes(operation: str, topic: str, partition: int, offset: int, group: str | None) -> Attributes:
    found = {**_messaging(topic, operation), **place_attributes(partition, offset)}
    return {**found, names.CONSUMER_GROUP: group} if group else found


def place_attributes(partition: int, offset: int) -> Attributes:
    return {names.PARTITION: str(partition), names.OFFSET: offset}


def _messaging(topic: str, operation: str) -> Attributes:
    return {
        names.MESSAGING_SYSTEM: names.KAFKA,
        names.OPERATION_TYPE: operation,
        names.OPERATION_NAME: operation,
        names.DESTINATION: topic,
    }


def end_sending(span: Span, sent: Future[Any]) -> None:
    """The broker has answered, or nobody waits for that any more."""
    if sent.cancelled():
        fail(span, "cancelled")
    elif (error := sent.exception()) is not None:
        fail(span, type(error).__name__)
    elif (place := sent.result()) is not None:
        span.set_attributes(place_attributes(place.partition, place.offset))
    span.end()


def fail(span: Span, code: str) -> None:
    """The code alone: the text of an error may hold what nobody should read."""
    if span.is_recording():
        span.set_attribute(names.ERROR_TYPE, code)
        span.set_status(StatusCode.ERROR)
