"""Answers that more than one request gets, on real processes: kept ones, and those of identical requests in flight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.cancellation import Cancellation
from schemas.chunk import Chunk
from schemas.codec import decode, encode, header
from schemas.response import Response, Status
from streams.topology import CANCELLATIONS, REPLIES, RESPONSES
from tests.support.clock.waiting import eventually
from tests.support.provider.instant import Provider
from tests.support.reader.one import answer
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES, start
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

#: Claude answers those who prefer it.
OPENAI_FIRST = {"AI_PRIMARY_PROVIDER": "openai", "AI_FALLBACK_PROVIDERS": "claude"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """OpenAI. It takes its time: long enough for others to ask the same meanwhile."""
    running = Provider.start(tmp_path_factory.mktemp("slow"), delay_ms=3_000)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """Claude."""
    running = Provider.start(tmp_path_factory.mktemp("quick"), delay_ms=1)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def told(provider: Provider, quick: Provider) -> dict[str, str]:
    claude = {name: value for name, value in quick.environment().items() if "CLAUDE" in name}
    return provider.environment() | claude | WIDE_LANES | OPENAI_FIRST


@pytest.fixture(scope="module")
def shared(stack: DevStack, told: dict[str, str]) -> Iterator[Child]:
    running: list[Child] = []
    start(stack, running, 1, told)
    yield running[0]
    running[0].stop()


@pytest.fixture
def worker(shared: Child) -> Child:
    """Ready, whatever an earlier test has done to it."""
    if not shared.alive():
        shared.start()
        shared.wait_ready(90)
    return shared


def calls(provider: Provider, prefix: str = "") -> list[str]:
    """The attempts that were called; a look at whether the provider is there is none."""
    begun = (event["id"] for event in provider.events() if event["event"] == "start" and "/" in event["id"])
    return [attempt for attempt in begun if attempt.startswith(prefix)]


async def quick_answer(settings: Settings, **fields: Any) -> Response:
    return await answer(settings, preferred_providers=["claude"], **fields)


def identical(workspace: str, count: int, prefix: str, **fields: Any) -> list[tuple[bytes | None, bytes | None]]:
    bodies = (
        {"request_id": f"{prefix}-{number}", "workspace_id": workspace, "prompt": f"same {prefix}", **fields}
        for number in range(count)
    )
    return [(workspace.encode(), json.dumps(body).encode()) for body in bodies]


async def responses(consumer: AIOKafkaConsumer, prefix: str, count: int, within: float = 90.0) -> dict[str, Response]:
    """The terminal responses of this prefix's requests; two that differ are an error."""
    found: dict[str, Response] = {}

    def note(record: Any) -> bool:
        if prefix.encode() not in record.value:
            return False
        response = decode(Response, record.value)
        assert found.setdefault(response.request_id, response) == response, "two answers contradict each other"
        return True

    await consume_until(consumer, lambda _: len(found) >= count, only=note, within=within)
    return found


@pytest.mark.usefixtures("worker")
async def test_a_thousand_identical_requests_at_once_are_answered_by_one_call(
    settings: Settings, provider: Provider
) -> None:
    prefix = unique("many")
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        await publish(settings.kafka_bootstrap_servers, "ai.requests", identical("w", 1_000, prefix))
        found = await responses(consumer, prefix, 1_000)
    assert len(calls(provider, prefix)) == 1
    [leader] = [one for one in found.values() if not one.cached]
    assert leader.usage.cost > 0
    for other in found.values():
        assert (other.status, other.content) == (Status.SUCCEEDED, leader.content)
        assert other is leader or (other.usage.cost, other.saved) == (Decimal(0), leader.usage.cost)


@pytest.mark.prove
async def test_a_killed_worker_leaves_nobody_waiting_for_an_answer_that_never_comes(
    settings: Settings, provider: Provider, worker: Child
) -> None:
    prefix = unique("kill")
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        await publish(settings.kafka_bootstrap_servers, "ai.requests", identical("w", 200, prefix))
        await eventually(lambda: calls(provider, prefix), within=30, what="the call is made")
        worker.kill()
        worker.start()
        worker.wait_ready(90)
        found = await responses(consumer, prefix, 200)
    assert {one.status for one in found.values()} == {Status.SUCCEEDED}
    assert len(calls(provider, prefix)) <= 3, "the doubtful call is repeated once, and not for each who waits"


@pytest.mark.usefixtures("worker")
async def test_a_leader_that_is_cancelled_leaves_the_others_their_answer(
    settings: Settings, provider: Provider
) -> None:
    prefix = unique("cancel")
    servers = settings.kafka_bootstrap_servers
    async with reading(servers, RESPONSES) as consumer:
        await publish(servers, "ai.requests", identical("w", 3, prefix))
        await eventually(lambda: calls(provider, prefix), within=30, what="the call is made")
        unwanted = [Cancellation(request_id=f"{prefix}-{number}", workspace_id="w") for number in (0, 2)]
        await publish(servers, CANCELLATIONS, [(b"w", encode(event)) for event in unwanted])
        found = await responses(consumer, prefix, 3)
    assert found[f"{prefix}-1"].status is Status.SUCCEEDED
    for number in (0, 2):
        one = found[f"{prefix}-{number}"]
        assert one.error is not None
        assert (one.status, one.error.code) == (Status.FAILED, "cancelled")
    assert calls(provider, prefix) == [f"{prefix}-0/1", f"{prefix}-1/1"]


async def test_a_kept_answer_is_given_again_also_after_a_restart_and_never_to_another_workspace(
    settings: Settings, quick: Provider, worker: Child
) -> None:
    before, prompt = len(calls(quick)), unique("kept")
    first = await quick_answer(settings, prompt=prompt, purpose="one")
    again = await quick_answer(settings, prompt=prompt, purpose="two", metadata={"k": "v"})
    assert (first.cached, again.cached, again.content) == (False, True, first.content)
    assert (again.saved, again.usage.cost, again.attempts) == (first.usage.cost, Decimal(0), ())
    assert (again.purpose, again.metadata) == ("two", {"k": "v"})
    assert worker.stop()
    worker.start()
    worker.wait_ready(90)
    assert (await quick_answer(settings, prompt=prompt)).cached
    assert len(calls(quick)) == before + 1
    other = await quick_answer(settings, prompt=prompt, workspace_id="another")
    fresh = await quick_answer(settings, prompt=prompt, cache={"enabled": False})
    young = await quick_answer(settings, prompt=prompt, cache={"ttl": 1}, max_tokens=17)
    assert [other.cached, fresh.cached, young.cached] == [False, False, False]
    own = await quick_answer(settings, prompt="anything", cache={"key": prompt})
    same = await quick_answer(settings, prompt="something else", cache={"key": prompt})
    assert (own.cached, same.cached) == (False, True)


@pytest.mark.usefixtures("worker")
async def test_who_reads_chunks_gets_a_kept_answer_as_one_chunk(settings: Settings) -> None:
    prompt, request_id = unique("streamed"), unique("r")
    first = await quick_answer(settings, prompt=prompt)
    body = {"request_id": request_id, "workspace_id": "kinds", "prompt": prompt, "stream": True, "reply_to": REPLIES}
    body["preferred_providers"] = ["claude"]
    async with reading(settings.kafka_bootstrap_servers, REPLIES) as consumer:
        await publish(settings.kafka_bootstrap_servers, "ai.requests", [(b"kinds", json.dumps(body).encode())])
        chunk, last = await consume_until(
            consumer, lambda found: len(found) >= 2, only=lambda record: record.key == request_id.encode()
        )
    assert header(chunk.headers, "ce_type") == Chunk.ce_type.encode()
    assert decode(Chunk, chunk.value).content == first.content
    assert decode(Response, last.value).cached


@pytest.mark.usefixtures("worker")
async def test_who_reads_chunks_waits_for_an_identical_call_and_gets_its_answer_as_one_chunk(
    settings: Settings, provider: Provider
) -> None:
    prefix, servers = unique("joins"), settings.kafka_bootstrap_servers
    [leader, *waiting] = identical("w", 3, prefix, reply_to=REPLIES)
    streaming = [(key, json.dumps(json.loads(body or b"") | {"stream": True}).encode()) for key, body in waiting]
    async with reading(servers, REPLIES) as consumer:
        await publish(servers, "ai.requests", [leader, *streaming])
        found = await consume_until(
            consumer, lambda found: len(found) >= 5, only=lambda record: prefix.encode() in record.key
        )
    assert calls(provider, prefix) == [f"{prefix}-0/1"]
    replies = {
        f"{prefix}-{number}": [one for one in found if one.key == f"{prefix}-{number}".encode()] for number in range(3)
    }
    [called] = [decode(Response, one.value) for one in replies.pop(f"{prefix}-0")]
    for name, (first, last) in replies.items():
        assert header(first.headers, "ce_type") == Chunk.ce_type.encode()
        chunk, response = decode(Chunk, first.value), decode(Response, last.value)
        assert (chunk.request_id, chunk.index, chunk.content) == (name, 0, called.content)
        assert (response.status, response.cached, response.content) == (Status.SUCCEEDED, True, called.content)
        assert (response.usage.cost, response.saved) == (Decimal(0), called.usage.cost)


async def test_a_worker_keeps_nothing_where_the_deployment_says_so(
    stack: DevStack, settings: Settings, quick: Provider, shared: Child, told: dict[str, str], workers: list[Child]
) -> None:
    shared.stop()
    start(stack, workers, 1, told | {"AI_ENABLE_CACHING": "false"}, first=2)
    before, prompt = len(calls(quick)), unique("off")
    assert [(await quick_answer(settings, prompt=prompt)).cached for _ in range(2)] == [False, False]
    assert len(calls(quick)) == before + 2
