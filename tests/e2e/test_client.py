"""The Python client on real processes: answers for those who asked, over restarts; and who leaves, cancels."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from app.client import (
    RequestExpired,
    RequestFailed,
    RequestRejected,
    RequestTimedOut,
    ResultNotFound,
    SpillwayClient,
    SpillwayError,
    SyncSpillwayClient,
)
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from streams.topology import CANCELLATIONS
from tests.support.clock.pace import Pace
from tests.support.reader.lanes import lane_state
from tests.support.reader.topics import consume_until, reading
from tests.support.stack.slow import quick_and_slow
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

LONG = " to and fro" * 10


@pytest.fixture(scope="module")
def answering(stack: DevStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with quick_and_slow(stack, tmp_path_factory.mktemp("client")) as worker:
        yield worker


@pytest.fixture
async def client(settings: Settings, answering: Child) -> AsyncIterator[SpillwayClient]:  # noqa: ARG001
    async with SpillwayClient(settings.kafka_bootstrap_servers, workspace_id=unique("w")) as running:
        yield running


async def test_many_at_once_each_get_the_answer_to_their_own_request(client: SpillwayClient) -> None:
    prompts = [f"number {number}" for number in range(300)]
    answers = await asyncio.gather(*(client.complete(prompt, max_tokens=50) for prompt in prompts))
    assert all(prompt in (answer.content or "") for prompt, answer in zip(prompts, answers, strict=True))
    assert all(answer.usage.cost > 0 for answer in answers)


async def test_many_streams_at_once_are_whole(client: SpillwayClient) -> None:
    async def read(prompt: str) -> tuple[int, str, str | None]:
        async with client.stream(prompt, max_tokens=200) as answer:
            pieces = [piece.content async for piece in answer]
        return len(pieces), "".join(pieces), answer.response.content

    for count, text, content in await asyncio.gather(*(read(f"number {n}{LONG}") for n in range(40))):
        assert text == content
        assert count > 3


async def test_vectors_and_what_is_refused(client: SpillwayClient) -> None:
    found = await client.embed(["a harbour", "low tide"])
    assert [len(vector) for vector in found.embeddings] == [1536, 1536]
    with pytest.raises(RequestRejected) as caught:
        await client.complete("hi", model="nobody-has-this")
    assert caught.value.code == "unknown_model"


async def test_what_was_published_is_found_later_by_somebody_else(client: SpillwayClient, settings: Settings) -> None:
    workspace = unique("later")
    ids = await client.publish_many({"prompt": f"job {n}", "workspace_id": workspace} for n in range(30))
    assert len(set(ids)) == 30
    single = await client.publish("one more", workspace_id=workspace, request_id=unique("named"))
    async with SpillwayClient(settings.kafka_bootstrap_servers, workspace_id=workspace) as other:
        answer = await other.result(single, timeout=30)
        assert "one more" in (answer.content or "")
        assert "job 7" in ((await other.result(ids[7], timeout=30)).content or "")
        with pytest.raises(ResultNotFound):
            await other.result(unique("never"), look_back=timedelta(minutes=5))


async def test_an_id_that_was_answered_before_is_found_and_not_paid_twice(client: SpillwayClient) -> None:
    name = unique("twice")
    first = await client.complete("once", request_id=name)
    with pytest.raises(RequestTimedOut, match="answered before"):
        await client.complete("once", request_id=name, timeout=0.5)
    assert await client.result(name) == first


@pytest.mark.usefixtures("answering")
async def test_a_deadline_that_passes_is_told_with_what_was_tried(settings: Settings) -> None:
    async with SpillwayClient(settings.kafka_bootstrap_servers, workspace_id=unique("w"), grace=15.0) as client:
        with pytest.raises(RequestExpired) as caught:
            await client.complete(unique("hi"), preferred_providers=["claude"], timeout=1.5)
    assert caught.value.response is not None
    assert caught.value.code == "deadline_exceeded"


@pytest.mark.usefixtures("answering")
async def test_a_time_out_cancels_the_request(settings: Settings) -> None:
    servers = settings.kafka_bootstrap_servers
    name = unique("late")
    async with reading(servers, CANCELLATIONS) as heard, SpillwayClient(servers, grace=0.0) as client:
        with pytest.raises(TimeoutError):
            await client.complete(unique("hi"), preferred_providers=["claude"], timeout=0.7, request_id=name)
        await consume_until(heard, bool, only=lambda record: name.encode() in record.value)
        with pytest.raises((RequestExpired, RequestFailed)):
            await client.result(name, timeout=20)


async def test_a_task_that_is_cancelled_ends_the_call_at_the_provider(
    client: SpillwayClient, settings: Settings
) -> None:
    name = unique("left")
    task = asyncio.create_task(client.complete(unique("hi"), preferred_providers=["claude"], request_id=name))
    await lane_state(settings, "claude/", lambda state: state.in_flight >= 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RequestFailed) as caught:
        await client.result(name, timeout=15)
    assert caught.value.code == "cancelled"
    assert caught.value.response is not None
    assert caught.value.response.attempts, "the call had begun"


async def test_a_stream_that_is_left_is_cancelled(client: SpillwayClient) -> None:
    async with client.stream("on and on" + LONG * 5, max_tokens=2_000) as answer:
        async for _ in answer:
            break
    with pytest.raises(RequestFailed) as caught:
        await client.result(answer.request_id, timeout=15)
    assert caught.value.code == "cancelled"
    with pytest.raises(SpillwayError):
        _ = answer.response


@pytest.mark.usefixtures("answering")
async def test_no_reply_is_lost_when_the_broker_restarts(settings: Settings, stack: DevStack) -> None:
    supervising = threading.Event()
    watcher = threading.Thread(target=stack.watch, args=(supervising,), daemon=True)
    watcher.start()
    try:
        async with SpillwayClient(settings.kafka_bootstrap_servers, timeout=150.0) as client:
            asked = []
            restarting, pace = None, Pace(100)
            for number in range(400):
                asked.append(asyncio.create_task(client.complete(f"number {number}", max_tokens=50)))
                if number == 200:
                    restarting = asyncio.create_task(asyncio.to_thread(stack.kafka.restart))
                await pace.step()
            answers = await asyncio.gather(*asked)
            assert restarting is not None
            await restarting
    finally:
        supervising.set()
        watcher.join()
    assert all(f"number {number}" in (answer.content or "") for number, answer in enumerate(answers))


@pytest.mark.usefixtures("answering")
def test_without_an_event_loop_it_is_the_same(settings: Settings) -> None:
    with SyncSpillwayClient(settings.kafka_bootstrap_servers, workspace_id=unique("sync")) as client:
        assert "hello" in (client.complete("hello", max_tokens=50).content or "")
        with client.stream("streamed" + LONG, max_tokens=200) as answer:
            text = "".join(piece.content for piece in answer)
        assert text == answer.response.content
        assert len(client.embed("one text").embeddings) == 1
        name = client.publish("for later")
        assert "for later" in (client.result(name, timeout=30).content or "")
        with pytest.raises(RequestRejected):
            client.complete("hi", model="nobody-has-this")
    with pytest.raises(SpillwayError, match="not open"):
        client.complete("hello")


INTERRUPTED = """
import signal, sys
from app.client import SyncSpillwayClient
# Whoever runs the tests in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
with SyncSpillwayClient(sys.argv[1]) as client:
    print("asking", flush=True)
    client.complete(sys.argv[2], preferred_providers=["claude"], request_id=sys.argv[2])
"""


async def test_ctrl_c_in_a_program_without_a_loop_cancels_the_request(
    client: SpillwayClient, settings: Settings
) -> None:
    name = unique("interrupted")
    command = [sys.executable, "-c", INTERRUPTED, settings.kafka_bootstrap_servers, name]
    program = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        await lane_state(settings, "claude/", lambda state: state.in_flight >= 1, within=60)
        program.send_signal(signal.SIGINT)
        _, told = await asyncio.wait_for(program.communicate(), 20)
    finally:
        if program.returncode is None:
            program.kill()
    assert b"KeyboardInterrupt" in told
    with pytest.raises(RequestFailed) as caught:
        await client.result(name, workspace_id="default", timeout=15)
    assert caught.value.code == "cancelled"
