"""What a provider refuses is said in other words, and told; what it cannot be told, the next provider may take."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from app.providers import agent_wire, build_providers, chat_wire, claude_wire, compatible_wire, openai, perplexity_wire
from app.providers.base import VendorProvider
from app.providers.claude_schema import tool_schema
from app.providers.data_urls import enclosed
from app.providers.translation import Translation
from app.providers.wire import UnsupportedRequestError
from app.settings import load_settings
from schemas.request import CompletionRequest
from streams.dispatch.ports import Answer, Call, Delta, ErrorClass, Failure, Provider

OLD, NEW = "claude-sonnet-4-5", "claude-opus-4-8"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0 and so on").decode()
CLAUDE_USAGE = {"input_tokens": 9, "output_tokens": 5}
CHAT_USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
PDF = base64.b64encode(b"%PDF-1.7 and so on").decode()


def asked(**fields: Any) -> CompletionRequest:
    if "messages" not in fields:
        fields = {"prompt": "Hello", **fields}
    return CompletionRequest.model_validate(fields)


def claude(model: str = OLD, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The body, and the codes of the warnings."""
    translation = Translation()
    body = claude_wire.to_body(asked(**fields), model, translation)
    return body, [warning.code for warning in translation.warnings]


def chat(model: str = "gpt-4o", **fields: Any) -> tuple[dict[str, Any], list[str]]:
    translation = Translation()
    body = openai.to_body(asked(**fields), model, translation)
    return body, [warning.code for warning in translation.warnings]


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def tool(name: str = "tide", parameters: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}, **more}


def called(name: str, identity: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


# Sampling ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "fields", "sent", "lost"),
    [
        (NEW, {"temperature": 0.2}, set(), "temperature"),
        (NEW, {"provider_options": {"claude": {"top_p": 0.9, "top_k": 5}}}, set(), "top_k, top_p"),
        (NEW, {"provider_options": {"claude": {"temperature": 1}}}, set(), "temperature"),
        (NEW, {}, set(), None),
        (OLD, {"provider_options": {"claude": {"top_p": 0.9}}}, {"top_p"}, None),
        (OLD, {"temperature": 0.2, "provider_options": {"claude": {"top_p": 0.9}}}, {"top_p"}, "temperature"),
        (OLD, {"temperature": 0.2, "provider_options": {"claude": {"top_k": 9}}}, {"top_k", "temperature"}, None),
        ("claude-3-7-sonnet-latest", {"provider_options": {"claude": {"top_p": 1, "temperature": 1}}}, None, None),
        ("an-alias", {"provider_options": {"claude": {"top_p": 0.9}}}, {"top_p"}, None),
        ("an-alias", {"temperature": 0.2}, set(), "temperature"),
    ],
)
def test_claude_is_sampled_as_the_model_allows(
    model: str, fields: dict[str, Any], sent: set[str] | None, lost: str | None
) -> None:
    translation = Translation()
    body = claude_wire.to_body(asked(**fields), model, translation)
    assert {"temperature", "top_p", "top_k"} & body.keys() == ({"temperature", "top_p"} if sent is None else sent)
    told = [warning.message for warning in translation.warnings if warning.code == "sampling_dropped"]
    assert told == ([f"Sent without {lost}: the model refuses it."] if lost else [])


@pytest.mark.parametrize(
    ("model", "fields", "lost"),
    [
        ("gpt-5.5", {"temperature": 0.1, "stop": ["END"]}, ["sampling_dropped"]),
        ("gpt-5.5", {}, []),
        ("gpt-4o", {"stop": ["a", "b", "c", "d", "e"]}, ["stop_dropped"]),
        ("gpt-4o", {"stop": ["a", "b", "c", "d"]}, []),
    ],
)
def test_openai_gets_no_more_than_it_takes(model: str, fields: dict[str, Any], lost: list[str]) -> None:
    body, told = chat(model, **fields)
    assert told == lost
    assert len(body.get("stop", ())) == (0 if model == "gpt-5.5" else min(4, len(fields.get("stop", ()))))


def test_perplexitys_agent_tells_what_it_has_no_word_for() -> None:
    translation = Translation()
    agent_wire.to_body(asked(temperature=0.1, stop=["END"]), "sonar", translation)
    assert [warning.message for warning in translation.warnings] == [
        "Sent without temperature, stop: the model refuses it."
    ]


# Turns ---------------------------------------------------------------------------------------------------------------


def test_a_last_turn_of_the_assistant_is_continued_by_older_models_and_asked_for_in_words_of_newer_ones() -> None:
    messages = [{"role": "user", "content": "List three."}, {"role": "assistant", "content": "1. \n"}]
    body, told = claude(OLD, messages=messages)
    assert (body["messages"][-1], told) == ({"role": "assistant", "content": "1."}, ["prefill_trimmed"])
    for model in (NEW, "claude-opus-4-6", "an-alias"):
        body, told = claude(model, messages=messages)
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert told == ["prefill_reworded"]
    thinking = {"claude": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
    assert claude(OLD, messages=messages, provider_options=thinking)[0]["messages"][-1]["role"] == "user"


def test_a_last_turn_in_parts_is_trimmed_as_well() -> None:
    parts = [{"type": "text", "text": "1. "}, {"type": "text", "text": " \n"}]
    body, told = claude(messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": parts}])
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "1."}]
    assert told == ["empty_text_dropped", "prefill_trimmed"]


def test_texts_without_a_word_are_left_out() -> None:
    messages = [
        {"role": "system", "content": "  "},
        {"role": "user", "content": "First."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": " "}, {"type": "text", "text": "Second."}]},
    ]
    body, told = claude(messages=messages)
    assert body["messages"] == [
        {"role": "user", "content": "First."},
        {"role": "user", "content": [{"type": "text", "text": "Second."}]},
    ]
    assert "system" not in body
    assert told == ["empty_text_dropped"]
    for nothing in ("", " ", [], [{"type": "text", "text": ""}]):
        with pytest.raises(UnsupportedRequestError):
            claude(messages=[{"role": "user", "content": nothing}])


def test_an_empty_result_of_a_tool_is_still_a_result() -> None:
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [called("tide", "a")]},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": ""}]},
    ]
    assert claude(messages=messages)[0]["messages"][-1]["content"] == [{"type": "tool_result", "tool_use_id": "a"}]


def test_marks_for_the_cache_reach_claude_wherever_they_stand() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    system = {
        "role": "system",
        "content": [{"type": "text", "text": "Long.", **mark}, {"type": "text", "text": "Short."}],
    }
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}, **mark}
    body, told = claude(
        system="First.",
        messages=[system, *user(image, {"type": "text", "text": "?", **mark})],
        tools=[tool("a", **mark), {"type": "function", "function": {"name": "b", **mark}}],
    )
    assert body["system"] == [
        {"type": "text", "text": "First."},
        {"type": "text", "text": "Long.", **mark},
        {"type": "text", "text": "Short."},
    ]
    assert all("cache_control" in part for part in body["messages"][0]["content"])
    assert all("cache_control" in one for one in body["tools"])
    assert told == []
    request = asked(messages=[system, *user({"type": "text", "text": "?", **mark})], tools=[tool("a", **mark)])
    assert "cache_control" not in str(openai.to_body(request, "gpt-4o"))
    assert str(compatible_wire.to_body(request, "m", "named")).count("cache_control") == 3


def test_ids_of_calls_are_made_to_fit_and_stay_apart() -> None:
    ids = ("a.b", "a_b", "a:b")
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [called("tide", name) for name in ids]},
        *({"role": "tool", "tool_call_id": name, "content": name} for name in ids),
    ]
    turns = claude(messages=messages)[0]["messages"]
    calls = [block["id"] for block in turns[1]["content"]]
    assert calls == [result["tool_use_id"] for result in turns[2]["content"]]
    assert sorted(calls) == ["a_b", "a_b_2", "a_b_3"]
    assert calls[1] == "a_b", "one that fits stays as it is"


def test_long_ids_of_other_providers_calls_are_shortened_alike_for_openai() -> None:
    long = "toolu_" + "x" * 60
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [called("tide", long), called("tide", "short")]},
        {"role": "tool", "tool_call_id": long, "content": "noon"},
        {"role": "tool", "tool_call_id": "short", "content": "noon"},
    ]
    _, calls, first, second = chat(messages=messages)[0]["messages"]
    sent = [call["id"] for call in calls["tool_calls"]]
    assert sent == [first["tool_call_id"], second["tool_call_id"]]
    assert len(sent[0]) <= 40
    assert sent[1] == "short"


def test_speakers_names_have_no_blanks_at_openai() -> None:
    body, told = chat(messages=[{"role": "user", "content": "Hi", "name": "Ann <a> Lee"}])
    assert body["messages"][0]["name"] == "Ann_a_Lee"
    assert told == ["names_changed"]


# Parts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "media_type", "data"),
    [
        (f"data:image/jpg;base64,{JPEG}", "image/jpeg", JPEG),
        (f"DATA:IMAGE/PNG;Base64,{PNG}", "image/png", PNG),
        (f"data:image/png;charset=utf-8;base64,{PNG[:8]}\n{PNG[8:]}", "image/png", PNG),
        (f"data:;base64,{PNG}", "image/png", PNG),
        (f"data:image/jpeg;base64,{PNG}", "image/png", PNG),
        (f"data:application/octet-stream;base64,{PNG.rstrip('=')}", "image/png", PNG),
        (f"data:image/png;base64,{PNG.replace('+', '-').replace('/', '_')}", "image/png", PNG),
        (f"data:image/png;base64,{PNG.replace('=', '%3D').replace('+', '%2B')}", "image/png", PNG),
    ],
)
def test_pictures_are_sent_as_what_they_are(url: str, media_type: str, data: str) -> None:
    body, _ = claude(messages=user({"type": "image_url", "image_url": {"url": url}}))
    source = body["messages"][0]["content"][0]["source"]
    assert source == {"type": "base64", "media_type": media_type, "data": data}


def test_a_data_url_without_base64_is_read_too() -> None:
    found = enclosed("data:text/plain,A%20tide")
    assert found is not None
    assert (found.media_type, base64.b64decode(found.data)) == ("text/plain", b"A tide")
    assert enclosed("https://example.com/data:,") is None


def test_files_and_refusals_become_what_claude_calls_them() -> None:
    text = base64.b64encode("Gezeiten: früh".encode()).decode()
    body, _ = claude(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
            *user(
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
                {"type": "file", "file": {"file_data": PDF}},
                {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:text/plain;base64,{text}"}},
            ),
        ]
    )
    assert body["messages"][1]["content"] == [{"type": "text", "text": "I cannot."}]
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert body["messages"][2]["content"] == [
        {"type": "document", "source": source, "title": "a.pdf"},
        {"type": "document", "source": source},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Gezeiten: früh"},
            "title": "a.txt",
        },
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,UEsDBA=="}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zz4="}},
        {"type": "image_url"},
    ],
)
def test_what_claude_cannot_be_shown_is_left_to_the_next_provider(part: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedRequestError):
        claude(messages=user({"type": "text", "text": "?"}, part))


def test_claudes_parts_become_those_of_the_chat_completions() -> None:
    messages = [
        *user(
            {
                "type": "document",
                "title": "a.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A tide."}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": JPEG}},
        ),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "tide", "input": {"port": "Brest"}},
            ],
        },
        *user({"type": "tool_result", "tool_use_id": "a", "content": "noon"}, {"type": "text", "text": "And?"}),
    ]
    body, told = chat(messages=messages)
    first, second, third, fourth = body["messages"]
    assert first["content"] == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
        {"type": "text", "text": "A tide."},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{JPEG}"}},
    ]
    assert second["content"] == [{"type": "text", "text": "I look."}]
    assert json.loads(second["tool_calls"][0]["function"]["arguments"]) == {"port": "Brest"}
    assert third == {"role": "tool", "tool_call_id": "a", "content": "noon"}
    assert fourth == {"role": "user", "content": [{"type": "text", "text": "And?"}]}
    assert told == ["thoughts_dropped"]


def test_pictures_in_results_of_tools_go_behind_all_results_of_the_turn() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [called("see", "a"), called("see", "b")]},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "Here:"}, picture]},
        {"role": "tool", "tool_call_id": "b", "content": [picture]},
    ]
    for more in ([], [{"role": "user", "content": "So?"}]):
        body, told = chat(messages=[*messages, *more])
        assert [turn["role"] for turn in body["messages"]] == [
            "user",
            "assistant",
            "tool",
            "tool",
            "user",
            *(["user"] * len(more)),
        ]
        assert all("image_url" not in str(turn) for turn in body["messages"] if turn["role"] == "tool")
        assert body["messages"][4]["content"].count(picture) == 2
        assert told == ["image_moved"]


def test_a_document_that_lies_elsewhere_is_left_to_the_next_provider() -> None:
    with pytest.raises(UnsupportedRequestError):
        chat(messages=user({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}))


# Formats -------------------------------------------------------------------------------------------------------------


def test_openai_is_asked_for_json_in_words_where_the_conversation_has_not_the_word() -> None:
    wanted = {"type": "json_object"}
    body, told = chat(response_format=wanted)
    assert "JSON" in body["messages"][0]["content"]
    assert told == ["json_asked_in_words"]
    for fields in ({"system": "As Json."}, {"messages": user({"type": "text", "text": "As JSON, please"})}):
        body, told = chat(response_format=wanted, **fields)
        assert told == []
        assert len(body["messages"]) == 1 + ("system" in fields)


@pytest.mark.parametrize(
    ("schema", "sent", "told"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": {"type": "string"}}, []),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}},
            {"a": {"type": "integer", "description": "{minimum: 1}"}},
            ["schema_loosened"],
        ),
        (
            {"type": "object", "properties": {"a": {"type": ["string", "null"], "description": "A."}}},
            {"a": {"description": "A.", "anyOf": [{"type": "string"}, {"type": "null"}]}},
            [],
        ),
        (
            {"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}, {"const": 1}]}}},
            {"a": {"anyOf": [{"type": "string"}, {"const": 1}]}},
            [],
        ),
    ],
)
def test_a_schema_is_closed_and_what_cannot_be_enforced_is_told(
    schema: dict[str, Any], sent: dict[str, Any], told: list[str]
) -> None:
    body, found = claude(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    asked_for = body["output_config"]["format"]["schema"]
    assert (asked_for["properties"], asked_for["additionalProperties"]) == (sent, False)
    assert found == told


def test_definitions_by_their_older_name_are_known() -> None:
    schema = {
        "definitions": {"Port": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "type": "object",
        "properties": {"port": {"$ref": "#/definitions/Port"}},
    }
    body, told = claude(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    sent = body["output_config"]["format"]["schema"]
    assert sent["properties"]["port"] == {"$ref": "#/$defs/Port"}
    assert sent["$defs"]["Port"]["additionalProperties"] is False
    assert told == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {
            "$defs": {"A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}}, "B": {"$ref": "#/$defs/A"}},
            "$ref": "#/$defs/A",
        },
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"description": "Anything."}}},
        {"type": "object", "properties": {"a": {"type": "string?"}}},
    ],
)
def test_a_schema_that_claude_cannot_be_held_to_is_left_to_the_next_provider(schema: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedRequestError):
        claude(response_format={"type": "json_schema", "json_schema": {"schema": schema}})


@pytest.mark.parametrize("more", [{}, {"additionalProperties": True}])
def test_a_schema_of_any_object_is_asked_for_in_words(more: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "object", **more}}}
    body, told = claude(response_format=wanted)
    assert "output_config" not in body
    assert "JSON" in body["system"]
    assert told == ["json_asked_in_words"]


def test_perplexity_says_that_it_asked_in_words() -> None:
    translation = Translation()
    perplexity_wire.to_body(asked(response_format={"type": "json_object"}), "sonar", translation)
    assert [warning.code for warning in translation.warnings] == ["json_asked_in_words"]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ({"name": "a tide", "schema": {}}, {"name": "a_tide", "schema": {}}),
        ({"schema": {}, "strict": True}, {"schema": {}, "strict": True, "name": "answer"}),
    ],
)
def test_a_schema_has_a_name_at_openai(wanted: dict[str, Any], sent: dict[str, Any]) -> None:
    for form in ({"type": "json_schema", "json_schema": wanted}, {"type": "json_schema", **wanted}):
        assert chat(response_format=form)[0]["response_format"] == {"type": "json_schema", "json_schema": sent}


# Tools ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        ({"type": None, "properties": {}}, {"type": "object", "properties": {}}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {}}}}},
            {"type": "object", "properties": {"a": {}}, "$defs": {"A": {"type": "object", "properties": {"a": {}}}}},
        ),
    ],
)
def test_parameters_are_an_object(parameters: Any, schema: dict[str, Any]) -> None:
    body, told = claude(tools=[tool(parameters=parameters)])
    assert body["tools"] == [{"name": "tide", "input_schema": schema}]
    own, _ = claude(tools=[{"name": "tide", "input_schema": parameters}])
    assert own["tools"] == body["tools"]
    assert told == []


def test_alternatives_at_the_top_become_one_object() -> None:
    one = {"type": "object", "properties": {"a": {"type": "string"}, "c": {"type": "string"}}, "required": ["a", "c"]}
    other = {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "null"}}, "required": ["b", "c"]}
    for word, required in (("oneOf", ["c"]), ("anyOf", ["c"]), ("allOf", ["a", "b", "c"])):
        translation = Translation()
        schema = tool_schema({word: [one, other], "description": "Tides."}, translation)
        assert not {"oneOf", "anyOf", "allOf"} & schema.keys()
        assert schema["properties"]["a"] == {"type": "string"}
        assert schema["properties"]["c"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
        assert schema["required"] == required
        assert schema["description"].startswith("Tides.")
        assert [warning.code for warning in translation.warnings] == ["tool_schema_loosened"]


def test_names_of_parameters_that_claude_refuses_are_left_to_the_next_provider() -> None:
    with pytest.raises(UnsupportedRequestError):
        claude(tools=[tool(parameters={"type": "object", "properties": {"größe": {}}})])


@pytest.mark.parametrize("wire", [claude_wire, openai, perplexity_wire, agent_wire])
def test_names_of_tools_are_made_to_fit_and_come_back_as_they_were(wire: Any) -> None:
    names = ["get.tide", "get_tide", "get tide", "Ebbe & Flut", "x" * 80, "x" * 90]
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [called(name, f"c{at}") for at, name in enumerate(names)]},
        *({"role": "tool", "tool_call_id": f"c{at}", "content": "noon"} for at in range(len(names))),
    ]
    translation = Translation()
    request = asked(messages=messages, tools=[tool(name) for name in names])
    sent = json.dumps(wire.to_body(request, OLD, translation))
    assert not any(f'"{name}"' in sent for name in names if name != "get_tide")
    fits = [translation.tool_name(name) for name in names]
    assert len(set(fits)) == len(names)
    assert fits[1] == "get_tide"
    assert all(len(name) <= 64 and name.replace("-", "_").isidentifier() for name in fits)
    delta = Delta(tool_calls=tuple({"index": at, **called(name, "c")} for at, name in enumerate(fits)))
    assert [call["function"]["name"] for call in translation.given(delta).tool_calls] == names
    piece = Delta(tool_calls=({"index": 0, "function": {"arguments": "{"}},))
    assert translation.given(piece) == piece


@pytest.mark.parametrize(
    ("choice", "theirs", "ours"),
    [
        ("any", {"type": "any"}, "required"),
        ("required", {"type": "any"}, "required"),
        ("none", {"type": "none"}, "none"),
        ({"type": "any"}, {"type": "any"}, "required"),
        ({"type": "none"}, {"type": "none"}, "none"),
        ({"type": "auto"}, {"type": "auto"}, "auto"),
        (
            {"type": "function", "function": {"name": "get.tide"}},
            {"type": "tool", "name": "get_tide"},
            {"type": "function", "function": {"name": "get_tide"}},
        ),
        (
            {"type": "tool", "name": "get.tide"},
            {"type": "tool", "name": "get_tide"},
            {"type": "function", "function": {"name": "get_tide"}},
        ),
    ],
)
def test_the_choice_of_tools_is_said_in_each_providers_words(choice: Any, theirs: Any, ours: Any) -> None:
    options = {name: {"tool_choice": choice} for name in ("claude", "openai", "named")}
    request = asked(tools=[tool("get.tide")], provider_options=options)
    assert claude_wire.to_body(request, OLD)["tool_choice"] == theirs
    assert openai.to_body(request, "gpt-4o")["tool_choice"] == ours
    assert compatible_wire.to_body(request, "m", "named")["tool_choice"] == ours


def test_without_tools_there_is_no_choice_among_them() -> None:
    options = {name: {"tool_choice": "none"} for name in ("claude", "openai")}
    options["openai"]["parallel_tool_calls"] = "false"
    request = asked(provider_options={**options})
    for body in (claude_wire.to_body(request, OLD), openai.to_body(request, "gpt-4o")):
        assert not {"tool_choice", "parallel_tool_calls"} & body.keys()


def test_what_needs_no_translation_is_sent_as_it_is() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "?", "vendor": 1}]},
        {"role": "assistant", "content": "", "tool_calls": [called("tide", "a")]},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
    ]
    strict = {"type": "function", "function": {"name": "tide", "strict": True, "parameters": {"type": "object"}}}
    translation = Translation()
    body = chat_wire.chat_body(asked(messages=messages, tools=[strict]), "m", translation)
    assert body["messages"] == [messages[0], {**messages[1], "content": None}, messages[2]]
    assert body["tools"] == [strict]
    assert not translation.warnings
    assert not translation.renames


# Through the clients -------------------------------------------------------------------------------------------------


@pytest.fixture
async def provider_at() -> AsyncIterator[Callable[[str], Provider]]:
    """Providers whose server calls the first tool that it is given, and keeps nothing."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        first = body["tools"][0]
        if request.path.endswith("/messages"):
            block = {"type": "tool_use", "id": "a", "name": first["name"], "input": {}}
            whole: dict[str, Any] = {"model": "m", "stop_reason": "tool_use", "content": [block], "usage": CLAUDE_USAGE}
            events: list[dict[str, Any]] = [
                {"type": "message_start", "message": {**whole, "stop_reason": None, "content": []}},
                {"type": "content_block_start", "index": 0, "content_block": block},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": CLAUDE_USAGE},
                {"type": "message_stop"},
            ]
        else:
            call = called(first["function"]["name"], "a")
            choice = {"index": 0, "finish_reason": "tool_calls"}
            whole = {"model": "m", "choices": [{**choice, "message": {"tool_calls": [call]}}], "usage": CHAT_USAGE}
            events = [{**whole, "choices": [{**choice, "delta": {"tool_calls": [{"index": 0, **call}]}}]}]
        if not body.get("stream"):
            return web.json_response(whole)
        text = "".join(f"event: {event.get('type', 'x')}\ndata: {json.dumps(event)}\n\n" for event in events)
        return web.Response(text=text + "data: [DONE]\n\n", content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made: list[VendorProvider] = []

    def provider(name: str) -> Provider:
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        settings = load_settings(**{f"{name}_base_url": address, f"{name}_api_key": "key"})
        made.append(build_providers(settings)[name])
        return made[-1]

    yield provider
    for one in made:
        await one.close()
    await runner.cleanup()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["claude", "openai"])
async def test_an_answer_calls_tools_by_the_applications_names_and_tells_what_was_lost(
    provider_at: Callable[[str], Provider], name: str, stream: bool
) -> None:
    provider = provider_at(name)
    messages = [{"role": "user", "content": "?", "name": "Ann Lee"}, {"role": "user", "content": " "}]
    request = asked(messages=messages, tools=[tool("get.tide")], stream=stream)
    told: list[Delta] = []

    async def tell(delta: Delta) -> None:
        told.append(delta)

    answer = await provider.call(Call(request, provider.model_for(request), timeout=10.0), tell if stream else None)
    assert isinstance(answer, Answer), answer
    assert [call["function"]["name"] for call in answer.tool_calls] == ["get.tide"]
    names = [call["function"]["name"] for delta in told for call in delta.tool_calls if "name" in call["function"]]
    assert names == (["get.tide"] if stream else [])
    lost = "empty_text_dropped" if name == "claude" else "names_changed"
    assert [warning.code for warning in answer.warnings] == [lost]


async def test_what_cannot_be_said_is_not_sent_and_goes_to_the_next_provider(
    provider_at: Callable[[str], Provider],
) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}
    request = asked(messages=user({"type": "text", "text": "What is said?"}, sound))
    provider = provider_at("claude")
    failure = await provider.call(Call(request, provider.model_for(request), timeout=10.0))
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code, failure.may_be_billed) == (ErrorClass.FALL_BACK, "unsupported", False)
    assert failure.message == "The request cannot be put to claude: Claude takes neither sound nor film."
