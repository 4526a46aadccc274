"""The three providers over real HTTP: a real simulator for what it can do, a small rude server for the rest."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.devstack.ports import choose
from app.providers import build_providers
from app.settings import Settings
from schemas.request import CompletionRequest
from streams.dispatch.ports import Answer, Call, Delta, ErrorClass, Failure, Provider
from tests.support.clock.waiting import until
from tests.support.provider.simulator import is_there

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

NAMES = ("claude", "openai", "perplexity")
KEYS = {"claude": "sk-ant-secret-1234", "openai": "sk-proj-secret-1234", "perplexity": "pplx-secret-1234"}
PROMPT = "Tell me something about the tide tables of Saint-Malo."

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def settings_for(base: str, names: tuple[str, ...]) -> Settings:
    return Settings(
        _env_file=None,
        primary_provider=names[0],
        fallback_providers=names[1:],
        claude_api_key=KEYS["claude"],
        openai_api_key=KEYS["openai"],
        perplexity_api_key=KEYS["perplexity"],
        claude_base_url=f"{base}/anthropic",
        openai_base_url=f"{base}/v1",
        perplexity_base_url=f"{base}/perplexity/v1",
        perplexity_interface="sonar",
    )


@asynccontextmanager
async def providers_at(base: str, *names: str) -> AsyncIterator[dict[str, Provider]]:
    built = build_providers(settings_for(base, names or NAMES))
    providers: dict[str, Provider] = {**built}
    try:
        yield providers
    finally:
        for provider in providers.values():
            await provider.close()


def request(**fields: Any) -> CompletionRequest:
    return CompletionRequest(**{"prompt": PROMPT, "max_tokens": 50, **fields})


async def ask(provider: Provider, *, within: float = 10.0, **fields: Any) -> Answer | Failure:
    asked = request(**fields)
    return await provider.call(Call(asked, provider.model_for(asked), timeout=within, attempt_id="req-1/1"))


async def failure_of(provider: Provider, **options: Any) -> Failure:
    result = await ask(provider, **options)
    assert isinstance(result, Failure), result
    return result


# The simulator


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    port = choose(0, "")
    command = [sys.executable, "-c", "from llmock.cli import app; app()"]
    command += ["serve", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_healthy(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    until(lambda: is_there(port) or process.poll() is not None, within=60, what="the simulator serves")
    assert process.poll() is None, "the provider simulator did not start"


@pytest.fixture
async def simulated(simulator: str, name: str) -> AsyncIterator[dict[str, Provider]]:
    """The provider that the test is about, at a simulator that remembers nothing."""
    reset(simulator)
    async with providers_at(simulator, name) as providers:
        yield providers


def reset(simulator: str) -> None:
    httpx.post(f"{simulator}/_llmock/reset").raise_for_status()


def behave(simulator: str, **behavior: Any) -> None:
    httpx.post(f"{simulator}/_llmock/scenario", json={"behaviors": [behavior]}).raise_for_status()


def seen(simulator: str) -> list[dict[str, Any]]:
    listed = httpx.get(f"{simulator}/_llmock/requests").raise_for_status().json()
    records: list[dict[str, Any]] = listed["requests"] if isinstance(listed, dict) else listed
    return records


@pytest.mark.parametrize("name", NAMES)
async def test_each_provider_answers_a_completion_with_its_usage(simulated: dict[str, Provider], name: str) -> None:
    answer = await ask(simulated[name], system="Be short.", stop=("END",), temperature=1.5)
    assert isinstance(answer, Answer)
    assert answer.content
    assert answer.finish_reason == "stop"
    assert answer.model == simulated[name].model_for(request())
    assert answer.tokens.prompt_tokens > 0
    assert answer.tokens.completion_tokens > 0


@pytest.mark.parametrize("name", ["claude", "openai"])
async def test_a_tool_call_comes_back_in_one_form_from_every_provider(
    simulator: str, simulated: dict[str, Provider], name: str
) -> None:
    behave(simulator, type="reply", tool_calls=[{"name": "tide", "arguments": {"port": "Saint-Malo"}}])
    parameters = {"type": "object", "properties": {"port": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "tide", "parameters": parameters}}
    answer = await ask(simulated[name], tools=(tool,))
    assert isinstance(answer, Answer)
    assert answer.finish_reason == "tool_calls"
    function = answer.tool_calls[0]["function"]
    assert function["name"] == "tide"
    assert "Saint-Malo" in function["arguments"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("status", "error_class", "code"),
    [
        (400, ErrorClass.FALL_BACK, "invalid_request"),
        (401, ErrorClass.FALL_BACK, "bad_key"),
        (404, ErrorClass.FALL_BACK, "no_such_model"),
        (500, ErrorClass.RETRYABLE, "server_error"),
        (529, ErrorClass.RETRYABLE, "overloaded"),
    ],
)
async def test_an_error_status_is_mapped_and_was_not_billed(
    simulator: str, simulated: dict[str, Provider], name: str, status: int, error_class: ErrorClass, code: str
) -> None:
    behave(simulator, type="fail", status=status)
    failure = await failure_of(simulated[name])
    assert (failure.error_class, failure.code, failure.may_be_billed) == (error_class, code, False)


@pytest.mark.parametrize("name", NAMES)
async def test_a_429_says_when_to_come_back_to_the_millisecond(
    simulator: str, simulated: dict[str, Provider], name: str
) -> None:
    behave(simulator, type="fail", status=429, retry_after=2.25)
    failure = await failure_of(simulated[name])
    assert (failure.code, failure.retry_after, failure.may_be_billed) == ("rate_limited", 2.25, False)


@pytest.mark.parametrize("name", NAMES)
async def test_no_sdk_retries_by_itself(simulator: str, simulated: dict[str, Provider], name: str) -> None:
    behave(simulator, type="fail", status=503, retry_after=0, times=3)
    await failure_of(simulated[name])
    assert len(seen(simulator)) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_that_the_provider_quotes_is_masked(
    simulator: str, simulated: dict[str, Provider], name: str
) -> None:
    behave(simulator, type="fail", status=401, message=f"Incorrect API key: {KEYS[name]} for “{PROMPT}”")
    failure = await failure_of(simulated[name])
    assert "secret" not in failure.message
    assert "Saint-Malo" not in failure.message
    assert failure.message.startswith("Incorrect API key")


@pytest.mark.parametrize("name", NAMES)
async def test_an_answer_that_takes_too_long_is_in_doubt(
    simulator: str, simulated: dict[str, Provider], name: str
) -> None:
    behave(simulator, type="delay", seconds=8)
    started = time.monotonic()
    failure = await failure_of(simulated[name], within=0.5)
    assert time.monotonic() - started < 7
    assert (failure.error_class, failure.code, failure.may_be_billed) == (ErrorClass.RETRYABLE, "timeout", True)


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_of_a_call_is_logged_even_at_debug(
    simulated: dict[str, Provider], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await ask(simulated[name])
    assert "Saint-Malo" not in caplog.text
    assert "secret" not in caplog.text


# The rude server


@asynccontextmanager
async def rude_server(reply: Reply) -> AsyncIterator[str]:
    """A server that reads one whole request per connection and then does what `reply` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await reader.readexactly(int(length.split(b":")[1]))
            received.append(head + body)
            await reply(reader, writer)
        finally:
            writer.close()

    received: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def sends(head: str, body: bytes = b"") -> Reply:
    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\ncontent-type: application/json\r\n".encode() + body)
        await writer.drain()

    return reply


async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def stalls_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await sends("200 OK", b'content-length: 900\r\n\r\n{"id":')(reader, writer)
    await reader.read()


CUT_OFF: dict[str, Reply] = {
    "hangs up before the answer": hangs_up,
    "resets the connection": resets,
    "disconnects in the body": sends("200 OK", b'content-length: 900\r\n\r\n{"id":'),
    "disconnects in a chunked body": sends("200 OK", b'transfer-encoding: chunked\r\n\r\n20\r\n{"id":'),
}
MALFORMED: dict[str, Reply] = {
    "cut JSON": sends("200 OK", b'content-length: 6\r\n\r\n{"id":'),
    "an empty body": sends("200 OK", b"content-length: 0\r\n\r\n"),
    "a list": sends("200 OK", b"content-length: 2\r\n\r\n[]"),
    "an empty object": sends("200 OK", b"content-length: 2\r\n\r\n{}"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", CUT_OFF)
async def test_an_answer_that_is_cut_off_is_a_failure_that_may_be_billed(name: str, how: str) -> None:
    async with rude_server(CUT_OFF[how]) as base, providers_at(base, name) as providers:
        failure = await failure_of(providers[name])
    assert (failure.error_class, failure.code, failure.may_be_billed) == (ErrorClass.RETRYABLE, "truncated", True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", MALFORMED)
async def test_a_200_without_a_usable_answer_is_a_failure_that_may_be_billed(name: str, how: str) -> None:
    async with rude_server(MALFORMED[how]) as base, providers_at(base, name) as providers:
        failure = await failure_of(providers[name])
    expected = (ErrorClass.RETRYABLE, "malformed_answer", True)
    assert (failure.error_class, failure.code, failure.may_be_billed) == expected


@pytest.mark.parametrize("name", NAMES)
async def test_an_answer_that_stalls_half_way_times_out_in_doubt(name: str) -> None:
    async with rude_server(stalls_in_the_body) as base, providers_at(base, name) as providers:
        failure = await failure_of(providers[name], within=1.0)
    assert (failure.code, failure.may_be_billed) == ("timeout", True)


@pytest.mark.parametrize("name", NAMES)
async def test_an_error_page_of_a_proxy_is_not_quoted(name: str) -> None:
    page = f"<html>{PROMPT}</html>".encode()
    reply = sends("502 Bad Gateway", f"content-length: {len(page)}\r\n\r\n".encode() + page)
    async with rude_server(reply) as base, providers_at(base, name) as providers:
        failure = await failure_of(providers[name])
    assert (failure.error_class, failure.code, failure.may_be_billed) == (ErrorClass.RETRYABLE, "server_error", False)
    assert "html" not in failure.message


@pytest.mark.parametrize("name", NAMES)
async def test_a_provider_that_cannot_be_reached_was_not_billed(name: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with providers_at(base, name) as providers:
            failure = await failure_of(providers[name])
    assert (failure.error_class, failure.code, failure.may_be_billed) == (ErrorClass.RETRYABLE, "connection", False)


@pytest.mark.parametrize("name", NAMES)
async def test_two_hundred_calls_are_in_flight_at_once(name: str) -> None:
    waiting = 0
    all_here = asyncio.Event()

    async def answer_when_all_wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 200:
            all_here.set()
        await all_here.wait()
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with rude_server(answer_when_all_wait) as base, providers_at(base, name) as providers:
        results = await asyncio.gather(*(failure_of(providers[name], within=40) for _ in range(200)))
    assert {failure.code for failure in results} == {"overloaded"}


@pytest.mark.parametrize("name", NAMES)
async def test_the_attempt_and_the_key_are_in_the_headers_and_cancelling_passes_through(name: str) -> None:
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, providers_at(base, name) as providers:
        call = asyncio.create_task(ask(providers[name]))
        head = (await heads.get()).decode().lower()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert "x-spillway-attempt: req-1/1" in head
    assert "content-type: application/json" in head
    assert KEYS[name] in head
    assert "x-stainless" not in head, "an SDK tells what nobody needs to know"


@pytest.mark.parametrize(
    ("model", "options", "version"),
    [
        ("claude-sonnet-4-5", {}, "2023-06-01"),
        ("claude-sonnet-4-5", {"temperature": None}, "2026-10-21"),
        ("claude-sonnet-5-5", {}, "2026-10-21"),
        ("claude-sonnet-4-5", {"temperature": None, "top_k": 5}, "2023-06-01"),
        ("claude-sonnet-5-5", {"top_k": 5}, "2026-10-21"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_claude_is_asked_in_the_version_that_takes_a_temperature_only_where_there_is_one(
    model: str, options: dict[str, Any], version: str, streamed: bool
) -> None:
    """The newer version refuses a temperature for every model; the SDK asks for it by itself."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, providers_at(base, "claude") as providers:
        asked = request(model=model, provider_options={"claude": options})
        call = Call(asked, model, timeout=5.0, attempt_id="req-1/1")
        await providers["claude"].call(call, Heard().tell if streamed else None)
    [sent] = [line for line in heads[0].split("\r\n") if line.startswith("anthropic-version:")]
    assert sent == f"anthropic-version: {version}"


# Streams


class Heard:
    """Takes the pieces of a stream."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []

    async def tell(self, delta: Delta) -> None:
        self.deltas.append(delta)

    @property
    def text(self) -> str:
        return "".join(delta.content for delta in self.deltas)


async def stream_from(provider: Provider, heard: Heard, *, within: float = 10.0, **fields: Any) -> Answer | Failure:
    asked = request(**fields)
    call = Call(asked, provider.model_for(asked), timeout=within, attempt_id="req-1/1")
    return await provider.call(call, heard.tell)


@pytest.mark.parametrize("name", NAMES)
async def test_a_streamed_answer_is_told_in_pieces_and_returned_whole(simulator: str, name: str) -> None:
    async with providers_at(simulator) as providers:
        heard = Heard()
        streamed = await stream_from(providers[name], heard)
        unstreamed = await ask(providers[name])
    assert isinstance(streamed, Answer)
    assert isinstance(unstreamed, Answer)
    assert len(heard.deltas) > 1
    assert heard.text == streamed.content == unstreamed.content
    assert streamed.finish_reason == unstreamed.finish_reason
    if not streamed.is_estimated:
        assert streamed.tokens == unstreamed.tokens


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("fault", "code"),
    [("disconnect", "truncated"), ("truncate", "truncated"), ("malformed", "malformed_answer"), ("stall", "timeout")],
)
async def test_a_stream_that_breaks_off_is_a_failure_that_may_be_billed(
    simulator: str, name: str, fault: str, code: str
) -> None:
    """Wherever it breaks before its end."""
    async with providers_at(simulator) as providers:
        for place in range(1, 5):
            reset(simulator)
            behave(simulator, type="stream_fault", kind=fault, after_chunks=place, stall_seconds=30)
            result = await stream_from(providers[name], Heard(), within=2.0 if fault == "stall" else 20.0)
            assert isinstance(result, Failure), result
            assert (result.code, result.may_be_billed) == (code, True)


@pytest.mark.parametrize("name", NAMES)
async def test_who_stops_listening_closes_the_stream_at_once(name: str) -> None:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(b': hello\n\nevent: ping\ndata: {"type": "ping", "choices": []}\n\n')
        await writer.drain()
        opened.set()
        await reader.read()
        closed.set()
        writer.close()

    async with rude_server(endless) as base, providers_at(base) as providers:
        listening = asyncio.create_task(stream_from(providers[name], Heard()))
        await asyncio.wait_for(opened.wait(), 20)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await asyncio.wait_for(closed.wait(), 20)


@pytest.mark.parametrize("name", NAMES)
async def test_many_streams_at_once_are_all_whole(simulator: str, name: str) -> None:
    async with providers_at(simulator) as providers:
        heard = [Heard() for _ in range(50)]
        results = await asyncio.gather(*(stream_from(providers[name], one, within=30) for one in heard))
    assert all(isinstance(result, Answer) for result in results)
    assert [one.text for one in heard] == [result.content for result in results if isinstance(result, Answer)]
