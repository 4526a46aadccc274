"""Requests and answers in the words of OpenAI and of Perplexity."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from app.providers import openai
from app.providers import perplexity_wire as perplexity
from app.providers.usage_wire import UNCOUNTED
from app.providers.wire import MalformedAnswerError
from schemas.request import CompletionRequest
from schemas.usage import Tokens

SCHEMA = {"type": "json_schema", "json_schema": {"name": "tide", "schema": {"type": "object"}}}


def request(**fields: Any) -> CompletionRequest:
    if "messages" not in fields:
        fields.setdefault("prompt", "Hello")
    return CompletionRequest(**fields)


def chat(*, usage: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **changes: Any) -> bytes:
    golden = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "High water at noon.", "refusal": None},
                "finish_reason": "stop",
                **(choice or {}),
            }
        ],
        "usage": usage or {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
    }
    return json.dumps({**golden, **changes}).encode()


def test_openai_gets_the_system_prompt_first_and_max_completion_tokens() -> None:
    assert openai.to_body(request(system="Be short.", max_tokens=99, stop=("END",)), "gpt-4o-mini") == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
        "max_completion_tokens": 99,
        "temperature": 0.7,
        "stop": ["END"],
    }


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("gpt-4o", True),
        ("gpt-4.1-mini", True),
        ("gpt-5-chat-latest", True),
        ("my-own-model", True),
        ("o1", False),
        ("o4-mini", False),
        ("gpt-5-mini", False),
        ("gpt-5.6-luna", False),
        ("gpt-6-sol", False),
        ("ft:o4-mini-2025-04-16:acme::abc", False),
        ("ft:gpt-4o-mini:acme::abc", True),
    ],
)
def test_reasoning_models_get_no_temperature(model: str, takes: bool) -> None:
    assert ("temperature" in openai.to_body(request(), model)) is takes


def test_a_conversation_with_tools_goes_to_openai_as_it_is() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "tide", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Tide?", "name": "kay"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
    ]
    assert openai.to_body(request(messages=messages), "gpt-4o")["messages"] == [
        {"role": "user", "content": "Tide?", "name": "kay"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_call_id": "a"},
    ]


def test_tools_and_images_in_claudes_form_are_translated() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    tool = {"name": "tide", "input_schema": {"type": "object"}}
    sent = openai.to_body(request(messages=messages, tools=(tool,)), "gpt-4o")
    assert sent["tools"] == [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}]
    url = {"url": "data:image/png;base64,QUJD"}
    assert sent["messages"][0]["content"] == [{"type": "image_url", "image_url": url}]


def test_each_provider_gets_its_own_options_only() -> None:
    asked = request(provider_options={"openai": {"seed": 7}, "perplexity": {"search_mode": "academic"}})
    assert openai.to_body(asked, "gpt-4o")["seed"] == 7
    sonar = perplexity.to_body(asked, "sonar")
    assert sonar["search_mode"] == "academic"
    assert "seed" not in sonar


def test_perplexity_gets_max_tokens_and_is_asked_for_json_in_words() -> None:
    sent = perplexity.to_body(request(response_format={"type": "json_object"}, max_tokens=99), "sonar")
    assert sent["max_tokens"] == 99
    assert sent["messages"][0]["role"] == "system"
    assert "JSON" in sent["messages"][0]["content"]
    assert "response_format" not in sent
    assert perplexity.to_body(request(response_format=SCHEMA), "sonar")["response_format"] == SCHEMA
    assert openai.to_body(request(response_format=SCHEMA), "gpt-4o")["response_format"] == SCHEMA


def test_openais_cached_and_reasoning_tokens_are_shares() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    read = openai.to_answer(chat(usage=usage))
    assert read.content == "High water at noon."
    assert read.tokens == Tokens(prompt_tokens=100, completion_tokens=50, cached_tokens=64, reasoning_tokens=30)


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        (None, None),
        ("default", None),
        ("auto", None),
        ("flex", "flex"),
        ("Priority", "priority"),
        (7, None),
        ("a b", None),
    ],
)
def test_an_answer_says_in_which_tier_it_was_served(said: object, tier: str | None) -> None:
    assert openai.to_answer(chat(service_tier=said)).tokens.service_tier == tier


def test_openais_tool_calls_come_back_as_they_are() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "tide", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    read = openai.to_answer(chat(choice={"message": message, "finish_reason": "tool_calls"}))
    assert (read.content, read.tool_calls, read.finish_reason) == (None, (call,), "tool_calls")


def test_a_refusal_is_an_answer_with_its_tokens() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I will not."}
    read = openai.to_answer(chat(choice={"message": message}))
    assert (read.content, read.finish_reason) == ("I will not.", "content_filter")
    assert read.tokens.completion_tokens == 6


def test_a_limit_that_left_no_room_for_text_is_an_answer_of_its_own() -> None:
    message = {"role": "assistant", "content": None}
    assert openai.to_answer(chat(choice={"message": message, "finish_reason": "length"})).content is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        chat(choices=[]),
        chat(choices=None),
        chat(choice={"message": None}),
        chat(choice={"finish_reason": None}),
        chat(choice={"message": {"role": "assistant", "content": None}}),
        chat(choice={"message": {"role": "assistant", "content": 7}}),
    ],
)
@pytest.mark.parametrize("to_answer", [openai.to_answer, perplexity.to_answer])
def test_an_answer_without_what_it_promises_is_malformed(raw: bytes, to_answer: Any) -> None:
    with pytest.raises(MalformedAnswerError):
        to_answer(raw)


@pytest.mark.parametrize("to_answer", [openai.to_answer, perplexity.to_answer])
def test_usage_that_is_none_costs_no_answer(to_answer: Any) -> None:
    usages: tuple[dict[str, Any], ...] = (
        {"prompt_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": -1},
    )
    stated = (Tokens(prompt_tokens=1), Tokens(completion_tokens=1), UNCOUNTED)
    for usage, tokens in zip(usages, stated, strict=True):
        assert to_answer(chat(usage=usage)).tokens == tokens
    whole = to_answer(chat(usage={"prompt_tokens": 7.0, "completion_tokens": 3.0}, model=None))
    assert (whole.tokens, whole.model) == (Tokens(prompt_tokens=7, completion_tokens=3), "")


def test_perplexitys_cost_is_exact_to_the_last_digit() -> None:
    raw = chat(usage={"prompt_tokens": 1, "completion_tokens": 2, "cost": {"total_cost": "COST"}})
    read = perplexity.to_answer(raw.replace(b'"COST"', b"0.0050330000000000000001"))
    assert read.reported_cost == Decimal("0.0050330000000000000001")


def test_perplexity_need_not_state_a_cost() -> None:
    assert perplexity.to_answer(chat()).reported_cost is None


@pytest.mark.parametrize("cost", ["a lot", "NaN", -1, True, {}, None])
def test_a_cost_that_is_no_amount_counts_as_not_stated(cost: object) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "cost": {"total_cost": cost}}
    assert perplexity.to_answer(chat(usage=usage)).reported_cost is None


def test_deep_researchs_reasoning_is_counted_inside_the_completion() -> None:
    usage = {"prompt_tokens": 33, "completion_tokens": 700, "reasoning_tokens": 1900, "citation_tokens": 20}
    expected = Tokens(prompt_tokens=33, completion_tokens=2600, reasoning_tokens=1900)
    assert perplexity.to_answer(chat(usage=usage)).tokens == expected


def test_sources_are_read_from_either_list() -> None:
    assert perplexity.to_answer(chat(citations=["https://a.example"])).citations == ("https://a.example",)
    results = [{"url": "https://b.example", "title": "B"}, {"title": "no address"}]
    assert perplexity.to_answer(chat(search_results=results)).citations == ("https://b.example",)
