"""The refusals of `tests/data/refusals.jsonl` through the real clients, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.providers import build_providers
from app.settings import load_settings
from schemas.request import CompletionRequest
from streams.dispatch.ports import Call, Delta, Failure, Provider

FILE = Path(__file__).parents[2] / "data" / "refusals.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
NAMES = ("claude", "openai", "perplexity")


@pytest.fixture
async def providers(tmp_path: Path) -> AsyncIterator[dict[str, Provider]]:
    """They are answered with the case whose number stands in the prompt."""

    async def answer(request: web.Request) -> web.Response:
        asked = (await request.json())["messages"][-1]["content"]
        case = CASES[int(asked)]
        body, status = case["body"], case["status"]
        if isinstance(body, str) or body is None:
            return web.Response(text=body or "", status=status, content_type="text/html")
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    file = tmp_path / "settings.toml"
    file.write_text(f'[providers.local]\nkind = "openai_compatible"\nbase_url = "{address}/v1"\nmodels = ["m"]\n')
    told = {f"{name}_base_url": address for name in NAMES} | {f"{name}_api_key": "key" for name in NAMES}
    built = build_providers(load_settings(**told, settings_file=file, perplexity_interface="sonar"))
    yield {**built}
    for provider in built.values():
        await provider.close()
    await runner.cleanup()


async def hear(_: Delta) -> None: ...


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [*NAMES, "local"])
async def test_a_refusal_is_the_same_through_every_client(
    providers: dict[str, Provider], name: str, stream: bool
) -> None:
    provider, wrong = providers[name], []
    for number, case in enumerate(CASES):
        request = CompletionRequest(prompt=str(number), stream=stream)
        call = Call(request, provider.model_for(request), timeout=10.0)
        result = await provider.call(call, hear if stream else None)
        assert isinstance(result, Failure)
        # A field of ours that is refused is asked for in other words: `test_wording.py`.
        code = case["code"] if result.code != "field_refused" else "field_refused"
        if (result.code, result.may_be_billed) != (code, False):
            wrong.append((case, result.code))
    assert not wrong
