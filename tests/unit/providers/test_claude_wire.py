"""Requests and answers in Anthropic's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.providers.claude_wire import takes_temperature, to_answer, to_body
from app.providers.usage_wire import UNCOUNTED
from app.providers.wire import MalformedAnswerError, UnsupportedRequestError
from schemas.request import CompletionRequest
from schemas.usage import Tokens

MODEL = "claude-sonnet-4-5"


def body(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    if "messages" not in fields:
        fields.setdefault("prompt", "Hello")
    return to_body(CompletionRequest(**fields), model)


def answer(**changes: Any) -> bytes:
    golden = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "High water"}, {"type": "text", "text": " at noon."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 12, "output_tokens": 6},
    }
    return json.dumps({**golden, **changes}).encode()


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({}, None),
        ({"service_tier": "standard", "speed": "standard", "inference_geo": "not_available"}, None),
        ({"service_tier": "priority"}, "priority"),
        ({"speed": "fast"}, "fast"),
        ({"service_tier": "priority", "inference_geo": "us"}, "priority+us"),
    ],
)
def test_an_answer_says_in_which_tier_it_was_served(told: dict[str, Any], tier: str | None) -> None:
    usage = {"input_tokens": 12, "output_tokens": 6, **told}
    assert to_answer(answer(usage=usage)).tokens.service_tier == tier


def test_a_bare_prompt_is_one_turn_of_the_user() -> None:
    assert body() == {
        "model": MODEL,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.7,
    }


def test_all_system_text_goes_into_the_system_prompt_in_order() -> None:
    messages = [
        {"role": "system", "content": "Second."},
        {"role": "user", "content": "Hello"},
        {"role": "system", "content": [{"type": "text", "text": "Third."}]},
    ]
    sent = body(system="First.", messages=messages)
    assert sent["system"] == "First.\n\nSecond.\n\nThird."
    assert sent["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_conversation_of_system_messages_alone_is_refused() -> None:
    with pytest.raises(UnsupportedRequestError):
        body(messages=[{"role": "system", "content": "Be short."}])


def test_a_temperature_above_one_is_sent_as_one() -> None:
    assert body(temperature=1.7)["temperature"] == 1.0


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-2.1", True),
        ("claude-3-haiku-20240307", True),
        ("claude-3-5-sonnet-latest", True),
        ("claude-opus-4-20250514", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-opus-4-6", True),
        ("claude-opus-4.6", True),
        ("claude-opus-4-7", False),
        ("claude-opus-4-8-20260601", False),
        ("claude-sonnet-5", False),
        ("claude-haiku-5-5", False),
        ("claude-mythos-preview", False),
    ],
)
def test_only_models_up_to_4_6_get_a_temperature(model: str, takes: bool) -> None:
    assert takes_temperature(model) is takes
    assert ("temperature" in body(model)) is takes


def test_thinking_leaves_the_temperature_out() -> None:
    sent = body(provider_options={"claude": {"thinking": {"type": "enabled", "budget_tokens": 1024}}})
    assert "temperature" not in sent
    assert sent["thinking"]["budget_tokens"] == 1024


def test_stop_becomes_stop_sequences() -> None:
    assert body(stop=("END", "###"))["stop_sequences"] == ["END", "###"]


def test_options_are_merged_and_null_takes_a_field_out_but_model_and_stream_stay_ours() -> None:
    options = {"top_k": 5, "temperature": None, "stream": True, "model": "claude-opus-4-1"}
    sent = body(provider_options={"claude": options, "openai": {"seed": 1}})
    assert sent["top_k"] == 5
    assert sent["model"] == MODEL
    assert not {"temperature", "stream", "seed"} & sent.keys()


def test_functions_become_tools_and_claudes_own_tools_stay() -> None:
    parameters = {"type": "object", "properties": {"port": {"type": "string"}}}
    function = {"type": "function", "function": {"name": "tide", "description": "Tides.", "parameters": parameters}}
    own = {"type": "web_search_20250305", "name": "web_search"}
    assert body(tools=(function, own))["tools"] == [
        {"name": "tide", "description": "Tides.", "input_schema": parameters},
        own,
    ]


def test_results_of_several_tools_are_one_turn_after_the_turn_that_called_them() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "tide", "arguments": '{"port": "Brest"}'}},
        {"id": "b", "type": "function", "function": {"name": "wind", "arguments": ""}},
    ]
    messages = [
        {"role": "user", "content": "Tide and wind?"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
        {"role": "tool", "tool_call_id": "b", "content": "west"},
    ]
    assert body(messages=messages)["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "tide", "input": {"port": "Brest"}},
                {"type": "tool_use", "id": "b", "name": "wind", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "noon"},
                {"type": "tool_result", "tool_use_id": "b", "content": "west"},
            ],
        },
    ]


@pytest.mark.parametrize("function", [None, {}, {"name": "tide", "arguments": "{"}])
def test_a_tool_call_that_makes_no_sense_is_refused(function: object) -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": function}]}
    with pytest.raises(UnsupportedRequestError):
        body(messages=[message])


def test_images_are_put_the_way_claude_takes_them() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "text", "text": "Compare."},
    ]
    assert body(messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "text", "text": "Compare."},
    ]


def test_a_schema_is_asked_for_by_output_config_and_any_object_in_words() -> None:
    schema = {"type": "object", "properties": {"tide": {"type": "string"}}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "tide", "schema": schema}}
    assert body(response_format=wanted)["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    loose = body(response_format={"type": "json_object"}, system="Be short.")
    assert loose["system"].startswith("Be short.\n\nAnswer with one JSON object")
    assert "output_config" not in loose


def test_an_answer_joins_its_texts() -> None:
    read = to_answer(answer())
    assert (read.content, read.finish_reason) == ("High water at noon.", "stop")
    assert read.model == "claude-sonnet-4-5-20250929"
    assert read.tokens == Tokens(prompt_tokens=12, completion_tokens=6)


def test_what_the_cache_read_and_wrote_is_a_part_of_the_prompt() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 60,
        "cache_read_input_tokens": 200,
        "cache_creation_input_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 40},
    }
    assert to_answer(answer(usage=usage)).tokens == Tokens(
        prompt_tokens=240, completion_tokens=60, cached_tokens=200, cache_write_tokens=30, reasoning_tokens=40
    )


def test_tool_use_comes_back_as_function_calls() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "tide", "input": {"port": "Brest"}}
    read = to_answer(answer(content=[use], stop_reason="tool_use"))
    function = {"name": "tide", "arguments": '{"port":"Brest"}'}
    assert read.tool_calls == ({"id": "t1", "type": "function", "function": function},)
    assert (read.content, read.finish_reason) == (None, "tool_calls")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("a_reason_of_tomorrow", "stop"),
    ],
)
def test_stop_reasons_are_told_in_four_words(theirs: str, ours: str) -> None:
    assert to_answer(answer(stop_reason=theirs)).finish_reason == ours


@pytest.mark.parametrize(
    "changes",
    [
        {"stop_reason": None},
        {"content": None},
        {"content": [{"type": "text"}]},
    ],
)
def test_an_answer_without_what_it_promises_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedAnswerError):
        to_answer(answer(**changes))


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, UNCOUNTED),
        ({"input_tokens": 1}, Tokens(prompt_tokens=1)),
        ({"input_tokens": -1, "output_tokens": 1}, Tokens(completion_tokens=1)),
        ({"input_tokens": "1", "output_tokens": 1}, Tokens(prompt_tokens=1, completion_tokens=1)),
    ],
)
def test_usage_that_is_none_costs_no_answer(usage: object, tokens: Tokens) -> None:
    assert to_answer(answer(usage=usage)).tokens == tokens
