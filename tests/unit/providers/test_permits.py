"""A call that is not permitted any more at its first byte is not made, by any provider's client."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.providers import build_providers
from app.providers.base import VendorProvider
from app.providers.transport import permit
from app.settings import load_settings
from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest
from streams.dispatch.ports import NOT_SENT, Answer, Call, Delta, Failure, Provider

NAMES = ("claude", "openai", "perplexity")


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[str]]]:
    """Its address, and the paths that it was asked for. It refuses all but vectors."""
    calls: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        if request.path.endswith("/embeddings"):
            texts = (await request.json())["input"]
            vectors = [{"index": number, "embedding": "AACAPw=="} for number in range(len(texts))]
            return web.json_response({"data": vectors, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
        return web.json_response({"error": {"message": "no"}}, status=500)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", calls
    await runner.cleanup()


@pytest.fixture
async def providers(server: tuple[str, list[str]]) -> AsyncIterator[dict[str, Provider]]:
    told = {f"{name}_base_url": server[0] for name in NAMES} | {f"{name}_api_key": "key" for name in NAMES}
    built = build_providers(load_settings(**told))
    yield {**built}
    for provider in built.values():
        await provider.close()


class Asked:
    """Permits the calls before a number, and counts how often it was asked."""

    def __init__(self, refused_from: int) -> None:
        self.times = 0
        self._refused_from = refused_from

    def __call__(self) -> bool:
        self.times += 1
        return self.times < self._refused_from


def made_by(provider: Provider, request: CommonRequest, asked: Asked) -> Call:
    return Call(request, provider.model_for(request), timeout=10.0, may_send=asked)


async def hear(_: Delta) -> None: ...


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NAMES)
async def test_nothing_is_sent_without_permission(
    server: tuple[str, list[str]], providers: dict[str, Provider], name: str, stream: bool
) -> None:
    provider, request = providers[name], CompletionRequest(prompt="hello", stream=stream)
    refused = Asked(refused_from=1)
    assert await provider.call(made_by(provider, request, refused), hear if stream else None) == NOT_SENT
    assert (refused.times, server[1]) == (1, [])
    permitted = Asked(refused_from=2)
    result = await provider.call(made_by(provider, request, permitted), hear if stream else None)
    assert isinstance(result, Failure)
    assert (result.code, permitted.times, len(server[1])) == ("server_error", 1, 1)
    assert permit.get() is None, "it is that call's alone"


@pytest.mark.parametrize("name", NAMES)
async def test_permission_is_asked_when_the_connection_is_there(name: str) -> None:
    """Connecting takes a while, in which a process may stand still."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        connections: list[socket.socket] = []

        def may_send() -> bool:
            connections.append(listener.accept()[0])
            return False

        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        provider = build_providers(load_settings(**{f"{name}_base_url": address, f"{name}_api_key": "key"}))[name]
        request = CompletionRequest(prompt="hello")
        result = await provider.call(Call(request, provider.model_for(request), timeout=10.0, may_send=may_send))
        await provider.close()
    [connection] = connections
    with connection:
        connection.settimeout(10.0)
        assert (result, connection.recv(1)) == (NOT_SENT, b""), "it was closed, and nothing had been said"


async def test_a_call_of_several_exchanges_is_permitted_once(
    server: tuple[str, list[str]], providers: dict[str, Provider]
) -> None:
    """What has begun is paid for, and goes on."""
    provider = providers["openai"]
    request = EmbeddingRequest(kind="embedding", input=["w" * 250_000] * 2)
    asked = Asked(refused_from=2)
    result = await provider.call(made_by(provider, request, asked))
    assert isinstance(result, Answer), result
    assert (asked.times, len(server[1])) == (1, 2)


async def test_what_is_asked_beside_calls_needs_no_permission(
    server: tuple[str, list[str]], providers: dict[str, Provider]
) -> None:
    for name in NAMES:
        provider = providers[name]
        assert isinstance(provider, VendorProvider)
        await provider.available()
    assert len(server[1]) == len(NAMES)
