"""Every field of a completion and a search at Perplexity's Agent API and Search API, on the running stack.

The simulator has neither; the provider is the small server of `provider/kinds.py`, which refuses unknown fields.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response, Status
from tests.support.provider.kinds import PAGE, Kinds, serving_kinds
from tests.support.reader.one import answer
from tests.support.stack.workers import WIDE_LANES, running_worker

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

TIDE = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
FUNCTION = {"name": "tide", "description": "High water in a port", "parameters": TIDE}
TOOLS = [{"type": "function", "function": FUNCTION}]
PICTURE = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "json_schema", "json_schema": {"name": "tide", "schema": TIDE}}

ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a prompt alone; temperature and stop, which it does not have, are left out": (
        {"temperature": 0.2, "stop": ["END"]},
        {},
    ),
    "system and max_tokens": (
        {"system": "Be brief.", "max_tokens": 64},
        {"instructions": "Be brief.", "max_output_tokens": 64},
    ),
    "a picture": (
        {
            "prompt": None,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Which port?"},
                        {"type": "image_url", "image_url": {"url": PICTURE}},
                    ],
                }
            ],
        },
        {
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Which port?"},
                        {"type": "input_image", "image_url": PICTURE},
                    ],
                }
            ]
        },
    ),
    "a JSON schema": ({"response_format": SCHEMA}, {"response_format": SCHEMA}),
    "some JSON object": (
        {"response_format": {"type": "json_object"}, "system": "Be brief."},
        {"instructions": "Be brief.\n\nAnswer with one JSON object and nothing else."},
    ),
    "provider_options, which may take the web search away": (
        {"provider_options": {"perplexity": {"max_steps": 3, "tools": None}, "openai": {"seed": 7}}},
        {"max_steps": 3, "tools": None},
    ),
}


@pytest.fixture
async def kinds(stack: DevStack) -> AsyncIterator[Kinds]:
    async with serving_kinds() as (base, kinds):
        told = {"AI_PERPLEXITY_API_KEY": "secret", "AI_PERPLEXITY_BASE_URL": base, "AI_PERPLEXITY_INTERFACE": "agent"}
        with running_worker(stack, **told, **WIDE_LANES):
            yield kinds


async def ask(settings: Settings, **fields: Any) -> Response:
    told = {"prompt": "Tide?", "preferred_providers": ["perplexity"], **fields}
    return await answer(settings, **{name: value for name, value in told.items() if value is not None})


async def test_what_arrives_at_both_interfaces_is_what_they_ask_for(settings: Settings, kinds: Kinds) -> None:
    for name, (fields, changes) in ROWS.items():
        kinds.bodies.clear()
        found = await ask(settings, **fields)
        assert (found.status, found.provider, found.model) == (Status.SUCCEEDED, "perplexity", "perplexity/sonar"), name
        plain = {
            "model": "perplexity/sonar",
            "input": [{"type": "message", "role": "user", "content": "Tide?"}],
            "max_output_tokens": 4096,
            "tools": [{"type": "web_search"}],
        }
        expected = {field: value for field, value in {**plain, **changes}.items() if value is not None}
        assert kinds.bodies == [("/v1/agent", expected)], name
    await a_tool_is_called_and_answered(settings, kinds)
    await a_search_says_what_narrows_it(settings, kinds)


async def a_tool_is_called_and_answered(settings: Settings, kinds: Kinds) -> None:
    kinds.bodies.clear()
    first = await ask(settings, tools=TOOLS)
    assert first.finish_reason == "tool_calls"
    [call] = first.tool_calls
    messages = [
        {"role": "user", "content": "Tide?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "noon"},
    ]
    second = await ask(settings, prompt=None, messages=messages, tools=TOOLS)
    assert (second.content, second.finish_reason) == ("At noon.", "stop")
    [(_, asked), (_, told)] = kinds.bodies
    assert asked["tools"] == told["tools"] == [{"type": "web_search"}, {"type": "function", **FUNCTION}]
    assert told["input"] == [
        {"type": "message", "role": "user", "content": "Tide?"},
        {"type": "function_call", "call_id": "call_1", "name": "tide", "arguments": '{"port":"Saint-Malo"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "noon"},
    ]


async def a_search_says_what_narrows_it(settings: Settings, kinds: Kinds) -> None:
    kinds.bodies.clear()
    found = await answer(
        settings,
        kind="search",
        query="spring tides",
        domains_include=["shom.fr"],
        domains_exclude=["example.com"],
        recency="week",
        provider_options={"perplexity": {"max_results": 5}},
    )
    assert (found.status, found.model, found.citations) == (Status.SUCCEEDED, "search", (PAGE["url"],))
    assert found.search_results[0].snippet == PAGE["snippet"]
    filters = {"search_domain_filter": ["shom.fr", "-example.com"], "search_recency_filter": "week"}
    assert kinds.bodies == [("/search", {"query": "spring tides", "max_results": 5, **filters})]
    kinds.bodies.clear()
    refused = await answer(settings, kind="search", query="tides", return_images=True)
    assert refused.status is Status.FAILED
    assert refused.error is not None
    assert "AI_PERPLEXITY_INTERFACE=sonar" in refused.error.message
    assert kinds.bodies == []
