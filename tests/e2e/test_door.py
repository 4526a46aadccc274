"""OpenAI's own Python SDK, unchanged, through the HTTP door, Kafka and a worker."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from typer.testing import CliRunner

from app.cli.main import app
from app.client import RequestFailed, SpillwayClient
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.clock.waiting import eventually
from tests.support.reader.lanes import hearing_lanes, lane_said
from tests.support.stack.gateway import OpenDoor, serving
from tests.support.stack.node import installed
from tests.support.stack.slow import quick_and_slow
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

TO_AND_FRO = " to and fro" * 20
NODE = Path(__file__).parents[1] / "data" / "node"
SLOW: Any = {"preferred_providers": ["claude"]}
#: Seconds until an SDK gives up: enough for the call to begin on any machine, and far less than it takes.
PATIENCE = 6.0


@pytest.fixture(scope="module")
def door(stack: DevStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenDoor]:
    with quick_and_slow(stack, tmp_path_factory.mktemp("door")), serving(stack) as running:
        yield running


def keys(stack: DevStack, *arguments: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_STACK_DIR", str(stack.folder))
        result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


@pytest.fixture(scope="module")
def key(stack: DevStack) -> str:
    made: str = keys(stack, "create", "--workspace", "acme", "--workspace", "acme-batch", "--name", "tests", "--json")[
        "key"
    ]
    return made


@pytest.fixture
async def sdk(door: OpenDoor, key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=key, base_url=door.base_url) as client:
        await door.knows(key)
        yield client


def said(text: str) -> Any:
    """A conversation that nobody has had before: an answer to the same one may come from the cache."""
    return [{"role": "user", "content": f"{unique('q')} {text}"}]


async def test_a_completion(sdk: AsyncOpenAI) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=said("hello"), max_tokens=50
    )
    answer = raw.parse()
    assert "hello" in (answer.choices[0].message.content or "")
    assert (answer.object, answer.choices[0].finish_reason) == ("chat.completion", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.model_extra is not None
    told = answer.model_extra["spillway"]
    assert (told["workspace_id"], told["provider"]) == ("acme", "openai")
    assert answer.id == f"chatcmpl-{told['request_id']}"
    assert raw.headers["x-request-id"] == told["request_id"]


async def test_many_at_once(sdk: AsyncOpenAI) -> None:
    async def ask(number: int) -> str:
        answer = await sdk.chat.completions.create(model="default", messages=said(f"number {number}."), max_tokens=50)
        return answer.choices[0].message.content or ""

    answers = await asyncio.gather(*(ask(number) for number in range(100)))
    assert all(f"number {number}." in answer for number, answer in enumerate(answers))


async def test_a_stream_with_its_usage(sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=said(TO_AND_FRO),
        max_tokens=200,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert TO_AND_FRO[:90] in "".join(texts)
    assert len([text for text in texts if text]) > 3, "it came in pieces"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


async def test_the_sdks_own_stream_helper_puts_it_together(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(model="gpt-4o-mini", messages=said(TO_AND_FRO), max_tokens=200) as stream:
        final = await stream.get_final_completion()
    assert TO_AND_FRO[:90] in (final.choices[0].message.content or "")


async def test_tools_and_a_response_format_go_through(sdk: AsyncOpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
    answer = await sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=said("hello"),
        tools=[tool],
        tool_choice="required",
        response_format={"type": "text"},
    )
    assert answer.choices[0].message.tool_calls or answer.choices[0].message.content


async def test_embeddings(sdk: AsyncOpenAI) -> None:
    found = await sdk.embeddings.create(model="text-embedding-3-small", input=["a harbour", "low tide"])
    assert [len(one.embedding) for one in found.data] == [1536, 1536]
    assert isinstance(found.data[0].embedding[0], float)
    assert found.usage.prompt_tokens > 0
    with pytest.raises(openai.BadRequestError):
        await sdk.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3]])


async def test_models(sdk: AsyncOpenAI) -> None:
    names = [model.id async for model in sdk.models.list()]
    assert names[0] == "default"
    assert {"gpt-4o-mini", "text-embedding-3-small"} <= set(names)
    assert (await sdk.models.retrieve("gpt-4o-mini")).id == "gpt-4o-mini"
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("nobody-has-this")


async def test_errors_are_the_sdks_own(sdk: AsyncOpenAI, door: OpenDoor) -> None:
    wrong = sdk.with_options(api_key="sk-spillway-wrong")
    with pytest.raises(openai.AuthenticationError) as denied:
        await wrong.chat.completions.create(model="gpt-4o-mini", messages=said("hello"))
    assert denied.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.chat.completions.create(model="nobody-has-this", messages=said("hello"))
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await sdk.chat.completions.create(model="nobody-has-this", messages=said("hello"), stream=True)
    with pytest.raises(openai.BadRequestError) as wrong_role:
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "wizard", "content": "x"}])  # type: ignore[list-item,misc]
    assert "messages.0.role" in str(wrong_role.value)
    with pytest.raises(openai.BadRequestError):
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=said("hello"), temperature=9)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.create(model="gpt-4o-mini", input="hello")
    status, headers, body = await asyncio.to_thread(door.ask, "POST", "/v1/chat/completions", b"{")
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert headers["x-request-id"]


async def test_the_header_gives_the_workspace_where_the_key_allows_it(sdk: AsyncOpenAI) -> None:
    batch = sdk.with_options(default_headers={"x-spillway-workspace": "acme-batch"})
    answer = await batch.chat.completions.create(model="gpt-4o-mini", messages=said("hello"), max_tokens=50)
    assert answer.model_extra is not None
    assert answer.model_extra["spillway"]["workspace_id"] == "acme-batch"
    other = sdk.with_options(default_headers={"x-spillway-workspace": "globex"})
    with pytest.raises(openai.PermissionDeniedError) as denied:
        await other.chat.completions.create(model="gpt-4o-mini", messages=said("hello"))
    assert denied.value.code == "workspace_not_allowed"


async def test_a_deadline_that_passes_is_a_504_and_is_not_tried_again(sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as late:
        await sdk.chat.completions.create(
            model="default", messages=said("hello"), extra_body=SLOW, extra_headers={"x-spillway-timeout": "1"}
        )
    assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
    assert late.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_sdk_that_gives_up_cancels_the_request(
    sdk: AsyncOpenAI, settings: Settings, door: OpenDoor, *, streamed: bool
) -> None:
    seen = len(gone(door))
    async with hearing_lanes(settings) as heard:
        asking = asyncio.create_task(
            sdk.with_options(timeout=PATIENCE, max_retries=0).chat.completions.create(
                model="default", messages=said("hello"), extra_body=SLOW, stream=streamed
            )
        )
        await lane_said(heard, "claude/", lambda state: state.in_flight >= 1)
    with pytest.raises(openai.APITimeoutError):
        await asking
    left = await eventually(lambda: gone(door)[seen:], what="the door has noticed")
    async with SpillwayClient(settings.kafka_bootstrap_servers, workspace_id="acme") as client:
        with pytest.raises(RequestFailed) as caught:
            await client.result(left[0], timeout=15)
    assert caught.value.code == "cancelled"


def gone(door: OpenDoor) -> list[str]:
    """The ids of requests of which the log says that their client had gone: `http: <path> 499 …`."""
    lines = [json.loads(line) for line in door.process.log.read_text().splitlines() if line.startswith("{")]
    return [line["request_id"] for line in lines if line["event"].startswith("http: ") and " 499 " in line["event"]]


async def test_a_stream_that_is_closed_in_the_middle_is_cancelled(
    sdk: AsyncOpenAI, settings: Settings, door: OpenDoor
) -> None:
    seen = len(gone(door))
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=said(TO_AND_FRO * 5), max_tokens=2_000, stream=True
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    left = await eventually(lambda: gone(door)[seen:], what="the door has noticed")
    async with SpillwayClient(settings.kafka_bootstrap_servers, workspace_id="acme") as client:
        with pytest.raises(RequestFailed) as caught:
            await client.result(left[0], timeout=15)
    assert caught.value.code == "cancelled"


async def test_a_key_is_refused_once_it_is_revoked(stack: DevStack, door: OpenDoor) -> None:
    made = await asyncio.to_thread(keys, stack, "create", "--workspace", "*", "--json")
    secret, key_id = made["key"], made["key_id"]
    await door.knows(secret)
    listed = await asyncio.to_thread(keys, stack, "list")
    assert key_id in listed
    assert secret not in listed
    await asyncio.to_thread(keys, stack, "revoke", key_id)
    await eventually(lambda: asyncio.to_thread(lambda: not door.lets_in(secret)), what="the door refuses it")


async def test_an_orderly_stop_finishes_what_is_open(stack: DevStack, sdk: AsyncOpenAI, key: str) -> None:
    with serving(stack) as leaving:
        client = sdk.with_options(base_url=leaving.base_url, max_retries=0)
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=said(TO_AND_FRO), max_tokens=200, stream=True
        )
        texts = []
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")
            if len(texts) == 3:
                leaving.process.ask_to_stop()
        assert TO_AND_FRO[:90] in "".join(texts)
        await eventually(lambda: leaving.process.exit_code() is not None, what="the door has closed")
        assert leaving.process.exit_code() == 0, leaving.process.last_words()
        log = leaving.process.log.read_text()
        assert "to and fro" not in log
        assert key not in log


def test_an_open_door_asks_for_no_key_and_opens_on_loopback_only(stack: DevStack, door: OpenDoor) -> None:
    with serving(stack, "--open") as free:
        assert free.ask("GET", "/v1/models")[0] == 200
    assert door.ask("GET", "/v1/models")[0] == 401
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_STACK_DIR", str(stack.folder))
        result = CliRunner().invoke(app, ["serve", "--open", "--host", "0.0.0.0"])  # noqa: S104 - it must be refused
    assert result.exit_code == 1
    assert "not loopback" in result.stderr


def test_openais_sdk_for_node(door: OpenDoor, sdk: AsyncOpenAI, key: str, tmp_path: Path) -> None:  # noqa: ARG001
    folder = installed(tmp_path, NODE / "package.json")
    shutil.copy(NODE / "door.mjs", folder)
    command = ["node", "door.mjs", door.base_url, key]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "hello from node" in seen["completion"]
    assert seen["tokens"] > 0
    assert seen["streamed"] > 0
    assert seen["requestId"]
    assert "hello from node" in "".join(seen["pieces"])
    assert len(seen["pieces"]) > 3
    assert seen["vectors"] == [1536, 1536]
    assert seen["models"][0] == "default"
    assert seen["wrongKey"] == ["AuthenticationError", 401, "invalid_api_key"]
    assert seen["unknownModel"] == seen["unknownModelStreamed"] == ["NotFoundError", 404, "model_not_found"]
    assert seen["invalid"] == ["BadRequestError", 400, "invalid_request"]
    assert seen["deadline"] == ["InternalServerError", 504, "deadline_exceeded"]
    assert seen["timeout"][0] == "APIConnectionTimeoutError"
    assert seen["workspace"] == ["PermissionDeniedError", 403, "workspace_not_allowed"]


async def test_nothing_that_was_said_is_in_the_log(sdk: AsyncOpenAI, door: OpenDoor, key: str) -> None:
    marked = said("MARKED-PROMPT")
    await sdk.chat.completions.create(model="gpt-4o-mini", messages=marked, user="MARKED-USER")
    with pytest.raises(openai.BadRequestError):
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=marked, temperature=9, stop=["MARKED-STOP"])
    log = await asyncio.to_thread(door.process.log.read_text)
    assert "http: " in log
    assert "MARKED" not in log
    assert key not in log
