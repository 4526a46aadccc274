"""One request, all the way, on the real thing: every way in, every way out, and everything that is no request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.settings import Settings
from schemas.dead_letter import DeadLetter
from schemas.response import Response, Status
from schemas.usage import UsageEvent
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, put, reading
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("worker")]

Headers = Sequence[tuple[str, bytes]]


async def send(
    settings: Settings, value: bytes, *, key: bytes | None = None, headers: Headers = (), partition: int | None = None
) -> None:
    servers = settings.kafka_bootstrap_servers
    await put(servers, "ai.requests", value, key=key, headers=headers, partition=partition)


async def create_topic(settings: Settings, name: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1)])
    finally:
        await admin.close()
    return name


async def one(
    settings: Settings, topic: str, value: bytes, *, about: bytes, headers: Headers = (), key: bytes | None = None
) -> Any:
    """Send a record and return the first record on the topic that holds `about`."""
    async with reading(settings.kafka_bootstrap_servers, topic) as consumer:
        await send(settings, value, key=key, headers=headers)
        found = await consume_until(
            consumer, bool, only=lambda record: about in (record.value or b"") or about in str(record.headers).encode()
        )
    return found[0]


async def test_a_bare_json_value_without_headers_and_key_is_answered_on_its_reply_topic(settings: Settings) -> None:
    replies = await create_topic(settings, unique("replies"))
    body = {"prompt": "hello", "reply_to": replies, "workspace_id": unique("w")}
    async with reading(settings.kafka_bootstrap_servers, replies) as consumer:
        await send(settings, json.dumps(body).encode())
        (reply,) = await consume_until(consumer, bool)
    response = Response.model_validate_json(reply.value)
    assert response.status is Status.SUCCEEDED
    assert response.content
    assert response.usage.cost > 0
    assert dict(reply.headers)["ce_type"] == b"ai.response.succeeded"


@pytest.mark.parametrize("provider", ["claude", "openai", "perplexity"])
async def test_each_provider_answers_and_its_attempt_is_in_the_ledger_at_its_cost(
    settings: Settings, provider: str
) -> None:
    identity = unique("r")
    body = {"request_id": identity, "prompt": "hello", "preferred_providers": [provider], "purpose": "test"}
    answer = await one(settings, "ai.responses", json.dumps(body).encode(), about=identity.encode())
    response = Response.model_validate_json(answer.value)
    assert (response.status, response.provider) == (Status.SUCCEEDED, provider)
    async with ClickHouse(settings) as database:
        sql = "SELECT attempt, provider, cost, purpose FROM ledger WHERE request_id = {id:String}"
        rows = await eventually(lambda: _rows(database, sql, identity), what="the attempt is in the ledger")
    assert rows == [(1, provider, response.usage.cost, "test")]


async def _rows(database: ClickHouse, sql: str, identity: str) -> list[Any]:
    return (await database.query(sql, {"id": identity})).rows


async def test_each_attempt_makes_one_usage_event(settings: Settings) -> None:
    identity = unique("r")
    body = {"request_id": identity, "prompt": "hello", "user_id": "u-1"}
    record = await one(settings, "ai.usage", json.dumps(body).encode(), about=identity.encode())
    usage = UsageEvent.model_validate_json(record.value)
    assert (usage.attempt, usage.outcome, usage.user_id) == (1, "succeeded", "u-1")
    assert dict(record.headers)["ce_id"] == f"{identity}/1".encode()


async def test_a_request_id_that_is_known_is_not_answered_again(settings: Settings) -> None:
    identity, marker = unique("r"), unique("r")
    body = {"request_id": identity, "workspace_id": "twice", "prompt": "hello"}
    async with reading(settings.kafka_bootstrap_servers, "ai.responses") as consumer:
        for known in (identity, identity, marker):
            # One partition, in order: when the marker is answered, the repeat has been seen.
            await send(settings, json.dumps(body | {"request_id": known}).encode(), key=b"twice")
        records = await consume_until(consumer, lambda found: any(marker.encode() in r.value for r in found))
        await asyncio.sleep(0)
    assert sum(identity.encode() in record.value for record in records) == 1


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        (
            [("kafka_replyTopic", b"@"), ("kafka_correlationId", b"\x00\xff" * 8)],
            ("kafka_correlationId", b"\x00\xff" * 8),
        ),
        ([("reply_to", b"@"), ("correlation_id", b"c-1")], ("correlation_id", b"c-1")),
        ([("Faust-Ag-ReplyTo", b"@"), ("Faust-Ag-CorrelationId", b"c-2")], ("correlation_id", b"c-2")),
    ],
    ids=["spring", "faststream", "faust"],
)
async def test_a_caller_is_answered_in_its_own_dialect(
    settings: Settings, headers: Headers, answered: tuple[str, bytes]
) -> None:
    replies = await create_topic(settings, unique("replies"))
    told = [(name, replies.encode() if value == b"@" else value) for name, value in headers]
    async with reading(settings.kafka_bootstrap_servers, replies) as consumer:
        await send(settings, b'{"prompt": "hello"}', headers=told)
        (reply,) = await consume_until(consumer, bool)
    assert answered in reply.headers


async def test_a_cloud_event_in_structured_mode_is_read(settings: Settings) -> None:
    identity = unique("r")
    event = {"specversion": "1.0", "type": "ai.request", "source": "/test", "id": identity, "data": {"prompt": "hello"}}
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    record = await one(settings, "ai.responses", json.dumps(event).encode(), about=identity.encode(), headers=headers)
    assert Response.model_validate_json(record.value).status is Status.SUCCEEDED


BAD = {
    "not JSON": (b"{broken ", "not_json"),
    "no value": (b"", "not_json"),
    "not an object": (b'["prompt"]', "not_json"),
    "not the schema": (b'{"prompt": 7}', "invalid_request"),
    "nothing to answer": (b"{}", "invalid_request"),
    "unknown kind": (b'{"kind": "telepathy", "prompt": "x"}', "unknown_kind"),
    "unknown version": (b'{"schema_version": 99, "prompt": "x"}', "unknown_version"),
    "too large": (b'{"prompt": "' + b"x" * 200_000 + b'"}', "too_large"),
    "provider that is not here": (b'{"prompt": "x", "preferred_providers": ["nobody"]}', "unsupported_operation"),
    "missing reply topic": (b'{"prompt": "x", "reply_to": "there-is-no-such-topic"}', "reply_topic_not_found"),
    "own topic as reply topic": (b'{"prompt": "x", "reply_to": "ai.requests"}', "reply_topic_not_allowed"),
    "internal topic as reply topic": (b'{"prompt": "x", "reply_to": "__consumer_offsets"}', "reply_topic_not_allowed"),
}


@pytest.mark.parametrize(("value", "code"), BAD.values(), ids=BAD.keys())
async def test_bad_input_is_answered_and_kept_byte_for_byte_and_the_partition_goes_on(
    settings: Settings, value: bytes, code: str
) -> None:
    identity, marker = unique("bad").encode(), unique("after").encode()
    servers = settings.kafka_bootstrap_servers
    async with reading(servers, "ai.dead-letters", "ai.responses") as consumer:
        await send(settings, value, headers=[("ce_id", identity)], partition=1)
        await send(settings, json.dumps({"request_id": marker.decode(), "prompt": "hello"}).encode(), partition=1)
        records = await consume_until(
            consumer,
            lambda found: len(found) >= 3,
            only=lambda r: (
                ("ce_id", identity) in r.headers or identity in (r.value or b"") or marker in (r.value or b"")
            ),
        )
    dead = next(record for record in records if record.topic == "ai.dead-letters")
    letter = DeadLetter.from_record(dead.key, dead.value, tuple(dead.headers))
    assert (letter.value or b"") == value
    assert (letter.code, letter.origin.topic) == (code, "ai.requests")
    answers = {r.request_id: r for r in (Response.model_validate_json(x.value) for x in records if x is not dead)}
    rejected = answers[identity.decode()]
    assert (rejected.status, rejected.error and rejected.error.code) == (Status.REJECTED, code)
    assert answers[marker.decode()].status is Status.SUCCEEDED


async def test_hostile_headers_are_refused_and_the_partition_goes_on(settings: Settings) -> None:
    marker = unique("after")
    flood = [(f"h{number}", b"x" * 2_000) for number in range(400)]
    async with reading(settings.kafka_bootstrap_servers, "ai.dead-letters", "ai.responses") as consumer:
        await send(settings, b'{"prompt": "flood"}', headers=flood, partition=2)
        await send(settings, b'{"prompt": "odd"}', headers=[("ce_id", b"\xff\xfe"), ("reply_to", b"\xff")], partition=2)
        await send(settings, json.dumps({"request_id": marker, "prompt": "hello"}).encode(), partition=2)
        records = await consume_until(
            consumer,
            lambda found: (
                any(marker.encode() in r.value for r in found) and any(r.topic == "ai.dead-letters" for r in found)
            ),
        )
    codes = {dict(r.headers).get("kafka_dlt-exception-fqcn") for r in records if r.topic == "ai.dead-letters"}
    assert b"spillway.hostile_headers" in codes


async def test_a_request_whose_deadline_has_passed_expires_without_a_call(settings: Settings) -> None:
    identity = unique("late")
    body = {"request_id": identity, "prompt": "hello", "deadline": "2020-01-01T00:00:00Z"}
    record = await one(settings, "ai.responses", json.dumps(body).encode(), about=identity.encode())
    response = Response.model_validate_json(record.value)
    assert (response.status, response.attempts) == (Status.EXPIRED, ())


async def test_no_prompt_and_no_key_is_in_the_workers_log(settings: Settings, worker: Child) -> None:
    marker = unique("secret-prompt")
    identity = unique("r")
    body = {"request_id": identity, "prompt": marker, "model": "claude-none-such", "workspace_id": "quiet"}
    await one(settings, "ai.responses", json.dumps(body).encode(), about=identity.encode())
    await one(settings, "ai.dead-letters", json.dumps({"kind": marker}).encode(), about=marker.encode())
    text = worker.log.read_text()
    assert marker not in text
    assert settings.clickhouse_password.get_secret_value() not in text
