"""The records that carry a terminal response: one on `ai.responses`, one on the request's own reply topic; and the
chunks of an answer that is streamed.

Each request-reply framework finds its answers by headers of its own. Sources of the names: Spring for Apache Kafka
(`KafkaHeaders.CORRELATION_ID`), FastStream (`correlation_id`), Faust (`ReqRepResponse` as the value).
"""

from __future__ import annotations

import orjson

from schemas.chunk import Chunk
from schemas.codec import Headers, encode, event_headers
from schemas.request import ReplyAddress
from schemas.response import Response
from streams.records import Record
from streams.topology import RESPONSES


def response_record(response: Response, traceparent: str | None, partition: int) -> Record:
    """The response on the topic of all responses."""
    headers = _headers(response, traceparent)
    return Record(RESPONSES, response.workspace_id.encode(), encode(response), headers, partition)


def reply_record(response: Response, reply: ReplyAddress, traceparent: str | None) -> Record:
    """The same response for the one who asked, in the dialect in which they asked."""
    return _addressed(response.request_id, encode(response), _headers(response, traceparent), reply)


def as_reply(said: Record, request_id: str, reply: ReplyAddress) -> Record:
    """`reply_record` out of the response's own record, which is not encoded a second time."""
    return _addressed(request_id, said.value or b"", said.headers, reply)


def chunk_record(chunk: Chunk, reply: ReplyAddress, traceparent: str | None) -> Record:
    """A piece of the answer for the one who asked: the same key as the response, and so the same partition."""
    headers = event_headers(
        event_id=chunk.event_id,
        event_type=chunk.ce_type,
        workspace_id=chunk.workspace_id,
        time=chunk.at,
        traceparent=traceparent,
    )
    return _addressed(chunk.request_id, encode(chunk), headers, reply)


def _addressed(request_id: str, value: bytes, headers: Headers, reply: ReplyAddress) -> Record:
    if reply.dialect == "faust":
        value = _faust_envelope(request_id, reply, value)
    return Record(reply.topic, request_id.encode(), value, (*headers, *_correlation(reply)), reply.partition)


def _headers(response: Response, traceparent: str | None) -> Headers:
    return event_headers(
        event_id=response.event_id,
        event_type=f"{response.ce_type}.{response.status}",
        workspace_id=response.workspace_id,
        time=response.answered_at,
        traceparent=traceparent,
    )


def _correlation(reply: ReplyAddress) -> Headers:
    if reply.correlation_id is None:
        return ()
    name = "kafka_correlationId" if reply.dialect == "spring" else "correlation_id"
    text = reply.correlation_id
    return ((name, bytes.fromhex(text) if reply.binary_correlation else text.encode()),)


def _faust_envelope(request_id: str, reply: ReplyAddress, value: bytes) -> bytes:
    return orjson.dumps(
        {
            "key": request_id,
            "value": orjson.Fragment(value),
            "correlation_id": reply.correlation_id or "",
        }
    )
