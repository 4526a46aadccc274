"""CPU time of one completion call, by SDK, transport and way of calling, against `instant_provider.py`.

    python bench/sdk_transport.py [--rounds 3] [--calls 1600]

Each variant runs in a process of its own, 16 calls at a time after a warm-up, and the best of its rounds counts: what
other programs take can only add. `create` is the SDK's typed method, `raw` the same without parsing the answer,
`post` the SDK's general method with the body already encoded. `provider` is Spillway's own adapter, from request to
`Answer`: what `app/providers` costs in all. Wall time is not shown; the server answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import orjson

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.providers.base import Access, VendorProvider  # noqa: E402
from app.providers.claude import ClaudeProvider  # noqa: E402
from app.providers.keys import KeyRing  # noqa: E402
from app.providers.openai import OpenAIProvider  # noqa: E402
from app.providers.perplexity import PerplexityProvider  # noqa: E402
from app.providers.transport import LIMITS, TIMEOUT  # noqa: E402
from schemas.request import CompletionRequest  # noqa: E402
from streams.dispatch.ports import Answer, Call  # noqa: E402

CONCURRENCY = 16
PROMPT = "Say something short about the sea, please."
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
HEADERS = {"X-Spillway-Attempt": "bench/1"}
CLAUDE = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": MESSAGES}
OPENAI = {"model": "gpt-4o-mini", "max_completion_tokens": 100, "temperature": 0.7, "messages": MESSAGES}
SONAR = {"model": "sonar", "max_tokens": 100, "temperature": 0.7, "messages": MESSAGES}

PATHS = {"claude": "/anthropic", "openai": "/v1", "perplexity": "/perplexity/v1"}
ADAPTERS: dict[str, Callable[[Access], VendorProvider]] = {
    "claude": ClaudeProvider,
    "openai": OpenAIProvider,
    "perplexity": PerplexityProvider,
}
MODELS = {"claude": "claude-sonnet-4-5", "openai": "gpt-4o-mini", "perplexity": "sonar"}
WAYS = ("create", "raw", "post")
VARIANTS = (
    *(("claude", transport, way) for transport in ("httpx2", "aiohttp") for way in WAYS),
    *(("openai", transport, way) for transport in ("httpx2", "aiohttp") for way in WAYS),
    *(("perplexity", transport, "post") for transport in ("httpx", "httpx2", "aiohttp")),
    *((name, "", "provider") for name in ADAPTERS),
)

Step = Callable[[], Awaitable[object]]


def openai_step(base: str, transport: str, way: str) -> Step:
    kinds = {"httpx2": openai.DefaultAsyncHttpxClient, "aiohttp": openai.DefaultAioHttpClient}
    client = openai.AsyncOpenAI(
        api_key="bench",
        base_url=base,
        max_retries=0,
        timeout=TIMEOUT,
        http_client=kinds[transport](limits=LIMITS, timeout=TIMEOUT),
    )

    async def create() -> object:
        return await client.chat.completions.create(**OPENAI, extra_headers=HEADERS)  # type: ignore[call-overload]

    async def raw() -> object:
        completions = client.chat.completions.with_raw_response
        response = await completions.create(**OPENAI, extra_headers=HEADERS)  # type: ignore[call-overload]
        return orjson.loads(response.http_response.content)

    async def post() -> object:
        content = orjson.dumps(OPENAI)
        response = await client.post(
            "/chat/completions", cast_to=httpx2.Response, content=content, options={"headers": HEADERS}
        )
        return orjson.loads(response.content)

    return {"create": create, "raw": raw, "post": post}[way]


def claude_step(base: str, transport: str, way: str) -> Step:
    kinds = {"httpx2": anthropic.DefaultAsyncHttpxClient, "aiohttp": anthropic.DefaultAioHttpClient}
    client = anthropic.AsyncAnthropic(
        api_key="bench",
        base_url=base,
        max_retries=0,
        timeout=TIMEOUT,
        open_telemetry=False,
        http_client=kinds[transport](limits=LIMITS, timeout=TIMEOUT),
    )
    extra: dict[str, Any] = {"extra_headers": HEADERS, "extra_body": {"temperature": 0.7}}

    async def create() -> object:
        return await client.messages.create(**CLAUDE, **extra)  # type: ignore[call-overload]

    async def raw() -> object:
        response = await client.messages.with_raw_response.create(**CLAUDE, **extra)  # type: ignore[call-overload]
        return orjson.loads(response.http_response.content)

    async def post() -> object:
        content = orjson.dumps({**CLAUDE, "temperature": 0.7})
        response = await client.post(
            "/v1/messages", cast_to=httpx2.Response, content=content, options={"headers": HEADERS}
        )
        return orjson.loads(response.content)

    return {"create": create, "raw": raw, "post": post}[way]


def perplexity_step(base: str, transport: str) -> Step:
    client: Any
    if transport == "httpx":
        limits = httpx.Limits(max_connections=1024, max_keepalive_connections=1024)
        client = httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(None, connect=10.0))
    else:
        kinds = {"httpx2": httpx2.AsyncClient, "aiohttp": openai.DefaultAioHttpClient}
        client = kinds[transport](limits=LIMITS, timeout=TIMEOUT)
    headers = {**HEADERS, "authorization": "Bearer bench", "content-type": "application/json"}

    async def post() -> object:
        response = await client.post(f"{base}/chat/completions", content=orjson.dumps(SONAR), headers=headers)
        return json.loads(response.content)

    return post


def provider_step(name: str, base: str) -> Step:
    provider = ADAPTERS[name](Access(KeyRing("bench", "bench"), base, MODELS[name], interface="sonar"))
    request = CompletionRequest(prompt=PROMPT, max_tokens=100)

    async def call() -> object:
        answer = await provider.call(Call(request, MODELS[name], timeout=30.0, attempt_id="bench/1"))
        if not isinstance(answer, Answer):
            raise TypeError(answer)
        return answer

    return call


def step_of(vendor: str, transport: str, way: str, base: str) -> Step:
    if way == "provider":
        return provider_step(vendor, base)
    if vendor == "perplexity":
        return perplexity_step(base, transport)
    return (claude_step if vendor == "claude" else openai_step)(base, transport, way)


async def measure(vendor: str, transport: str, way: str, port: int, calls: int) -> float:
    """Milliseconds of this process's CPU time per call."""
    step = step_of(vendor, transport, way, f"http://127.0.0.1:{port}{PATHS[vendor]}")

    async def work(count: int) -> None:
        for _ in range(count):
            await step()

    async def burst(count: int) -> None:
        await asyncio.gather(*(work(count // CONCURRENCY) for _ in range(CONCURRENCY)))

    await burst(CONCURRENCY * 20)
    before = time.process_time()
    await burst(calls)
    return (time.process_time() - before) / (calls // CONCURRENCY * CONCURRENCY) * 1000


def run_one(variant: str, port: int, calls: int) -> float:
    command = [sys.executable, __file__, "--one", variant, "--port", str(port), "--calls", str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout)


def print_table(rounds: int, calls: int) -> None:
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "bench" / "instant_provider.py")], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    port = int(server.stdout.readline().split()[-1])
    names = [":".join(variant) for variant in VARIANTS]
    try:
        times = [[run_one(name, port, calls) for name in names] for _ in range(rounds)]
    finally:
        server.terminate()
        server.wait()
    print("| vendor | transport | way | best, ms CPU per call | worst |\n|---|---|---|---|---|")
    for variant, column in zip(VARIANTS, zip(*times, strict=True), strict=True):
        print(f"| {' | '.join(variant)} | {min(column):.2f} | {max(column):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=1600)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is None:
        return print_table(options.rounds, options.calls)
    vendor, transport, way = options.one.split(":")
    import uvloop  # noqa: PLC0415 - the loop that the worker runs on

    return print(uvloop.run(measure(vendor, transport, way, options.port, options.calls)))


if __name__ == "__main__":
    main()
