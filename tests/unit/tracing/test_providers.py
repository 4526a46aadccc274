"""What a provider is told of our traces: nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from app.providers import build_providers
from app.settings import load_settings
from app.tracing.context import attached, below, read
from schemas.request import CompletionRequest
from streams.dispatch.ports import Call, Failure
from tests.unit.tracing.recording import SAMPLED


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[Mapping[str, str]]]]:
    """Its address, and the headers of each call that it has refused."""
    calls: list[Mapping[str, str]] = []

    async def refuse(request: web.Request) -> web.Response:
        calls.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({"error": {"message": "no"}}, status=500)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", calls
    await runner.cleanup()


async def test_no_provider_is_sent_the_context_of_a_trace(server: tuple[str, list[Mapping[str, str]]]) -> None:
    address, calls = server
    names = ("claude", "openai", "perplexity")
    told = {f"{name}_base_url": address for name in names} | {f"{name}_api_key": "key" for name in names}
    providers = build_providers(load_settings(**told))
    request = CompletionRequest(prompt="hello")
    with attached(below(read(SAMPLED))):
        for provider in providers.values():
            result = await provider.call(Call(request, provider.model_for(request), timeout=10.0))
            assert isinstance(result, Failure)
            await provider.close()
    assert len(calls) == len(names)
    assert not [name for headers in calls for name in headers if name in ("traceparent", "tracestate", "baggage")]
