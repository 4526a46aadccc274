"""Every field of a completion, on the running stack, at each provider: what arrives there is what it has published.

The provider is the simulator; its journal holds the bodies that the real SDKs have sent. They are compared as a whole,
and those for Claude and OpenAI are held against the parameter types of these SDKs as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response, Status
from tests.support.provider import published
from tests.support.provider.simulator import Simulator
from tests.support.reader.one import answer
from tests.support.stack.workers import WIDE_LANES, running_worker

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

MODELS = {"claude": "claude-sonnet-4-5", "openai": "gpt-4o-mini", "perplexity": "sonar"}
PROVIDERS = tuple(MODELS)

TIDE = {
    "type": "object",
    "properties": {"port": {"type": "string"}},
    "required": ["port"],
    "additionalProperties": False,
}
FUNCTION = {"name": "tide", "description": "High water in a port", "parameters": TIDE}
CALL = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"port":"Saint-Malo"}'}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
JSON_RULE = "Answer with one JSON object and nothing else."


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@dataclass(frozen=True)
class Row:
    """Fields of a request, and what they add to (or change in) the body for each provider."""

    fields: dict[str, Any]
    claude: dict[str, Any]
    openai: dict[str, Any]
    perplexity: dict[str, Any]

    def expected(self, provider: str) -> dict[str, Any]:
        limit = "max_completion_tokens" if provider == "openai" else "max_tokens"
        plain = {"model": MODELS[provider], "messages": [user("Tide?")], "temperature": 0.7, limit: 4096}
        own: dict[str, Any] = getattr(self, provider)
        return plain | own


def alike(fields: dict[str, Any], body: dict[str, Any], **other: dict[str, Any]) -> Row:
    """A row that is the same for all but those named."""
    return Row(fields, **{provider: other.get(provider, body) for provider in PROVIDERS})


SYSTEM_FIRST = {"messages": [{"role": "system", "content": "Be brief."}, user("Tide?")]}
ROWS = {
    "a prompt alone": alike({}, {}),
    "system": alike({"system": "Be brief."}, SYSTEM_FIRST, claude={"system": "Be brief."}),
    "stop": alike({"stop": ["END", "."]}, {"stop": ["END", "."]}, claude={"stop_sequences": ["END", "."]}),
    "temperature and max_tokens": alike(
        {"temperature": 0.2, "max_tokens": 64},
        {"temperature": 0.2, "max_tokens": 64},
        openai={"temperature": 0.2, "max_completion_tokens": 64},
    ),
    "tools": alike(
        {"tools": [{"type": "function", "function": FUNCTION}]},
        {"tools": [{"type": "function", "function": FUNCTION}]},
        claude={"tools": [{"name": "tide", "description": "High water in a port", "input_schema": TIDE}]},
    ),
    "a tool's result": alike(
        {
            "prompt": None,
            "messages": [
                user("Tide?"),
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
            ],
        },
        {
            "messages": [
                user("Tide?"),
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
            ]
        },
        claude={
            "messages": [
                user("Tide?"),
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "call_1", "name": "tide", "input": {"port": "Saint-Malo"}}],
                },
                user([{"type": "tool_result", "tool_use_id": "call_1", "content": "noon"}]),
            ]
        },
    ),
    "a picture": alike(
        {
            "prompt": None,
            "messages": [
                user(
                    [
                        {"type": "text", "text": "Which port?"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    ]
                )
            ],
        },
        {
            "messages": [
                user(
                    [
                        {"type": "text", "text": "Which port?"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    ]
                )
            ]
        },
        claude={
            "messages": [
                user(
                    [
                        {"type": "text", "text": "Which port?"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    ]
                )
            ]
        },
    ),
    "a JSON schema": alike(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "tide", "strict": True, "schema": TIDE}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "tide", "strict": True, "schema": TIDE}}},
        claude={"output_config": {"format": {"type": "json_schema", "schema": TIDE}}},
    ),
    "some JSON object": Row(
        {"response_format": {"type": "json_object"}},
        claude={"system": JSON_RULE},
        openai={
            "response_format": {"type": "json_object"},
            "messages": [{"role": "system", "content": JSON_RULE}, user("Tide?")],
        },
        perplexity={"messages": [{"role": "system", "content": JSON_RULE}, user("Tide?")]},
    ),
    "provider_options": Row(
        {
            "provider_options": {
                "claude": {"top_k": 5, "tool_choice": None},
                "openai": {"seed": 7, "temperature": None},
                "perplexity": {"search_mode": "academic", "search_domain_filter": ["shom.fr"]},
            }
        },
        claude={"top_k": 5},
        openai={"seed": 7, "temperature": None},
        perplexity={"search_mode": "academic", "search_domain_filter": ["shom.fr"]},
    ),
    "stream": alike(
        {"stream": True, "reply_to": "ai.replies"},
        {"stream": True},
        openai={"stream": True, "stream_options": {"include_usage": True}},
    ),
}


@pytest.fixture(scope="module")
def simulator(stack: DevStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """The simulator of a worker that runs for all of these tests."""
    with (
        Simulator.running(tmp_path_factory.mktemp("surface")) as running,
        running_worker(stack, **running.environment(), **WIDE_LANES),
    ):
        yield running


async def ask(settings: Settings, provider: str, fields: dict[str, Any]) -> Response:
    told = {"prompt": "Tide?", "model": MODELS[provider], "preferred_providers": [provider], **fields}
    told["cache"] = {"enabled": False}  # Each row shall arrive, also one that asks the same as another.
    return await answer(settings, **{name: value for name, value in told.items() if value is not None})


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", ROWS)
async def test_what_arrives_is_what_the_provider_asks_for(
    settings: Settings, simulator: Simulator, provider: str, name: str
) -> None:
    row = ROWS[name]
    simulator.forget()
    found = await ask(settings, provider, row.fields)
    assert (found.status, found.provider, found.model) == (Status.SUCCEEDED, provider, MODELS[provider])
    [(path, body)] = simulator.bodies(provider)
    expected = {name: value for name, value in row.expected(provider).items() if value is not None}
    assert body == expected
    if provider != "perplexity":
        published.check(path, body)


@pytest.mark.parametrize("provider", ["claude", "openai"])
async def test_a_tool_is_called_and_its_result_is_answered(
    settings: Settings, simulator: Simulator, provider: str
) -> None:
    """The round that an application makes: its tool is called, and the result goes back with the call."""
    simulator.forget()
    tools = [{"type": "function", "function": FUNCTION}]
    first = await ask(settings, provider, {"tools": tools})
    assert first.finish_reason == "tool_calls"
    [call] = first.tool_calls
    assert json.loads(call["function"]["arguments"]).keys() == {"port"}
    messages = [
        user("Tide?"),
        {"role": "assistant", "content": first.content or "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "noon"},
    ]
    second = await ask(settings, provider, {"prompt": None, "messages": messages, "tools": tools})
    assert (second.finish_reason, second.tool_calls) == ("stop", ())
    assert second.content
    for path, body in simulator.bodies(provider):
        published.check(path, body)


async def test_a_model_that_refuses_a_temperature_gets_none(settings: Settings, simulator: Simulator) -> None:
    for provider, model in (("claude", "claude-sonnet-5-5"), ("openai", "gpt-5-mini")):
        simulator.forget()
        found = await ask(settings, provider, {"model": model, "temperature": 0.2})
        assert found.model == model
        [(_, body)] = simulator.bodies(provider)
        assert "temperature" not in body


@pytest.mark.parametrize("texts", ["a harbour", ["a harbour", "low tide"]])
async def test_embeddings_are_asked_for_as_base64_with_their_dimensions(
    settings: Settings, simulator: Simulator, texts: Any
) -> None:
    simulator.forget()
    found = await answer(settings, kind="embedding", input=texts, dimensions=256, model="text-embedding-3-large")
    assert found.status is Status.SUCCEEDED
    [(path, body)] = simulator.bodies("openai")
    wanted = {"model": "text-embedding-3-large", "dimensions": 256, "encoding_format": "base64"}
    assert body == wanted | {"input": [texts] if isinstance(texts, str) else texts}
    published.check(path, body)


async def test_a_search_says_all_that_narrows_it(settings: Settings, simulator: Simulator) -> None:
    simulator.forget()
    found = await answer(
        settings,
        kind="search",
        query="spring tides",
        domains_include=["shom.fr"],
        domains_exclude=["example.com"],
        recency="week",
        return_images=True,
        return_related_questions=True,
    )
    assert found.status is Status.SUCCEEDED
    assert found.images
    assert found.related_questions
    [(path, body)] = simulator.bodies("perplexity")
    assert path == "/chat/completions"
    assert body == {
        "model": "sonar",
        "messages": [user("spring tides")],
        "max_tokens": 2048,
        "search_domain_filter": ["shom.fr", "-example.com"],
        "search_recency_filter": "week",
        "return_images": True,
        "return_related_questions": True,
    }
