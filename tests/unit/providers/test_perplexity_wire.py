"""Perplexity's three wires: Sonar's searches, the Agent API and the Search API, against the published formats."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import agent_wire, perplexity_search_wire, perplexity_wire
from app.providers.agent_stream import AgentStream
from app.providers.base import Access
from app.providers.keys import KeyRing
from app.providers.perplexity import PerplexityProvider
from app.providers.reported import ReportedError
from app.providers.wire import MalformedAnswerError, UnsupportedRequestError
from schemas.request import CompletionRequest, Message, SearchRequest
from schemas.response import Image, SearchResult
from schemas.usage import Tokens
from streams.dispatch.ports import Call, Delta, ErrorClass, Failure

PAGE = {
    "title": "Tides",
    "url": "https://shom.fr/tides",
    "date": "2026-11-01",
    "snippet": "High water at noon.",
    "id": 1,
}
RESULT = SearchResult(url=PAGE["url"], title="Tides", date="2026-11-01", snippet="High water at noon.")


def search(**fields: Any) -> SearchRequest:
    return SearchRequest(**{"kind": "search", "query": "tides", **fields})


# Sonar


def test_a_search_by_sonar_says_what_narrows_it() -> None:
    asked = search(
        domains_include=("shom.fr",), domains_exclude=("spam.example",), recency="week", return_images=True,
        return_related_questions=True,
    )  # fmt: skip
    assert perplexity_wire.search_body(asked, "sonar") == {
        "model": "sonar",
        "messages": [{"role": "user", "content": "tides"}],
        "max_tokens": 2048,
        "search_domain_filter": ["shom.fr", "-spam.example"],
        "search_recency_filter": "week",
        "return_images": True,
        "return_related_questions": True,
    }


def test_a_plain_search_by_sonar_says_no_more_than_it_must() -> None:
    assert set(perplexity_wire.search_body(search(), "sonar")) == {"model", "messages", "max_tokens"}


def test_options_of_the_request_win_in_all_of_them() -> None:
    asked = search(provider_options={"perplexity": {"search_mode": "academic"}})
    assert perplexity_wire.search_body(asked, "sonar")["search_mode"] == "academic"
    assert perplexity_search_wire.to_body(asked) == {"query": "tides", "search_mode": "academic"}


def test_sonars_sources_pictures_and_questions_are_read() -> None:
    raw = json.dumps(
        {
            "model": "sonar",
            "choices": [{"message": {"role": "assistant", "content": "At noon [1]."}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 4, "completion_tokens": 6, "num_search_queries": 2, "cost": {"total_cost": 0.0051}
            },
            "citations": [PAGE["url"]],
            "search_results": [PAGE, {"title": "no address"}, "nonsense"],
            "images": [
                {"image_url": "https://x.example/a.png", "origin_url": "https://x.example", "width": 4, "height": 3}, {}
            ],
            "related_questions": ["And tomorrow?", 7],
        }
    ).encode()  # fmt: skip
    read = perplexity_wire.to_answer(raw)
    assert (read.content, read.citations, read.search_results) == ("At noon [1].", (PAGE["url"],), (RESULT,))
    picture = Image(url="https://x.example/a.png", origin_url="https://x.example", width=4, height=3)
    assert (read.images, read.related_questions) == ((picture,), ("And tomorrow?",))
    assert read.tokens == Tokens(prompt_tokens=4, completion_tokens=6, search_requests=2)
    assert read.reported_cost == Decimal("0.0051")


# The Search API


def test_a_search_by_the_search_api_is_its_query_and_its_filters() -> None:
    asked = search(domains_exclude=("spam.example",), recency="hour")
    assert perplexity_search_wire.to_body(asked) == {
        "query": "tides",
        "search_domain_filter": ["-spam.example"],
        "search_recency_filter": "hour",
    }


@pytest.mark.parametrize("wish", ["return_images", "return_related_questions"])
def test_what_the_search_api_does_not_find_is_refused_and_says_what_does(wish: str) -> None:
    with pytest.raises(UnsupportedRequestError, match="AI_PERPLEXITY_INTERFACE=sonar"):
        perplexity_search_wire.to_body(search(**{wish: True}))


def test_pages_found_are_the_answer_and_one_unit_is_used_even_if_there_are_none() -> None:
    read = perplexity_search_wire.to_answer(json.dumps({"id": "s", "results": [PAGE]}).encode())
    assert (read.content, read.search_results, read.citations) == (None, (RESULT,), (PAGE["url"],))
    assert perplexity_search_wire.to_answer(b'{"id": "s", "results": []}').tokens == Tokens(search_requests=1)
    with pytest.raises(MalformedAnswerError):
        perplexity_search_wire.to_answer(b'{"id": "s"}')


# The Agent API

CALL = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"at": "noon"}'}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "tide", "description": "Height", "parameters": {"type": "object"}},
}


def test_a_conversation_becomes_items() -> None:
    asked = CompletionRequest(
        system="Be brief.",
        messages=(
            Message(role="user", content=[{"type": "text", "text": "When?"}, PICTURE]),
            Message(role="assistant", content="", tool_calls=[CALL]),
            Message(role="tool", content="4 m", tool_call_id="call_1"),
        ),
        max_tokens=99,
        tools=(TOOL,),
    )  # fmt: skip
    assert agent_wire.to_body(asked, "sonar") == {
        "model": "perplexity/sonar",
        "instructions": "Be brief.",
        "max_output_tokens": 99,
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "When?"},
                    {"type": "input_image", "image_url": "https://x.example/a.png"},
                ],
            },
            {"type": "function_call", "call_id": "call_1", "name": "tide", "arguments": '{"at": "noon"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "4 m"},
        ],
        "tools": [{"type": "web_search"}, {"type": "function", **TOOL["function"]}],
    }


def test_another_vendors_model_keeps_its_name_and_a_schema_is_passed_on() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    body = agent_wire.to_body(CompletionRequest(prompt="Hi", response_format=form), "openai/gpt-5.2")
    assert (body["model"], body["response_format"]) == ("openai/gpt-5.2", form)
    plain = agent_wire.to_body(CompletionRequest(prompt="Hi", response_format={"type": "json_object"}), "sonar")
    assert "response_format" not in plain
    assert "JSON" in plain["instructions"]


def agent_answer(**changes: Any) -> dict[str, Any]:
    text = {
        "type": "output_text",
        "text": "At noon.",
        "annotations": [{"type": "citation", "url": "https://cited.example"}],
    }
    return {
        "id": "r", "object": "response", "status": "completed", "model": "perplexity/sonar",
        "output": [
            {"type": "search_results", "queries": ["tides"], "results": [PAGE]},
            {"type": "message", "role": "assistant", "status": "completed", "id": "m", "content": [text]},
        ],
        "usage": {
            "input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
            "input_tokens_details": {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 10},
            "tool_calls_details": {"web_search": {"invocation": 2}},
            "cost": {"currency": "USD", "input_cost": 0.0001, "output_cost": 0.0002, "total_cost": 0.0053},
        },
        **changes,
    }  # fmt: skip


def test_an_agents_answer_is_read_with_its_sources_and_what_it_cost() -> None:
    read = agent_wire.to_answer(json.dumps(agent_answer()).encode())
    assert (read.content, read.finish_reason, read.model) == ("At noon.", "stop", "perplexity/sonar")
    assert read.citations == ("https://cited.example", PAGE["url"])
    assert read.search_results == (RESULT,)
    assert read.tokens == Tokens(
        prompt_tokens=100, completion_tokens=20, cached_tokens=30, cache_write_tokens=10, search_requests=2
    )
    assert read.reported_cost == Decimal("0.0053")


def test_an_agents_call_of_a_tool_is_as_the_chat_completions_have_it() -> None:
    item = {"type": "function_call", "id": "f", "call_id": "call_1", "name": "tide", "arguments": '{"at": "noon"}'}
    read = agent_wire.to_answer(json.dumps(agent_answer(output=[item], status="requires_action")).encode())
    assert (read.content, read.tool_calls, read.finish_reason) == (None, (CALL,), "tool_calls")


@pytest.mark.parametrize("changes", [{"status": "failed"}, {"output": []}, {"output": None}])
def test_an_answer_that_is_none_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedAnswerError):
        agent_wire.to_answer(json.dumps(agent_answer(**changes)).encode())


def agent_events() -> list[dict[str, Any]]:
    return [
        {"type": "response.created", "sequence_number": 0, "response": agent_answer(status="in_progress", output=[])},
        {"type": "response.reasoning.search_results", "sequence_number": 1, "results": [PAGE]},
        {"type": "response.output_text.delta", "sequence_number": 2, "delta": "At "},
        {"type": "response.output_text.delta", "sequence_number": 3, "delta": "noon."},
        {"type": "response.completed", "sequence_number": 4, "response": agent_answer()},
    ]


def test_a_stream_brings_its_text_in_pieces_and_the_same_answer_at_its_end() -> None:
    stream = AgentStream()
    told = [stream.take(event["type"], json.dumps(event)) for event in agent_events()]
    assert [delta for delta in told if delta] == [Delta("At "), Delta("noon.")]
    assert stream.is_complete
    assert stream.answer() == agent_wire.to_answer(json.dumps(agent_answer()).encode())


@given(st.integers(0, 4))
def test_a_stream_that_breaks_off_is_never_an_answer(cut: int) -> None:
    stream = AgentStream(prompt_tokens=7)
    for event in agent_events()[:cut]:
        stream.take(event["type"], json.dumps(event))
    assert not stream.is_complete
    assert stream.used() == (Tokens(prompt_tokens=7, completion_tokens=1 if cut == 3 else 2) if cut > 2 else None)


def test_a_stream_that_says_that_it_has_failed_is_believed() -> None:
    failed = {"type": "response.failed", "sequence_number": 1, "error": {"message": "no", "type": "overloaded_error"}}
    with pytest.raises(ReportedError):
        AgentStream().take("response.failed", json.dumps(failed))


# What no record and no ledger could hold


@pytest.mark.parametrize("content", [r"\ud83d", r"tides \ude00 and more"])
@pytest.mark.parametrize("wire", [perplexity_wire, agent_wire])
def test_half_a_surrogate_pair_which_no_record_could_hold_is_replaced(wire: Any, content: str) -> None:
    choice = f'{{"message": {{"content": "{content}"}}, "finish_reason": "stop"}}'
    part = f'{{"type": "message", "content": [{{"type": "output_text", "text": "{content}"}}]}}'
    whole = f'{{"model": "sonar", "status": "completed", "output": [{part}], "choices": [{choice}]}}'
    read = wire.to_answer(whole.encode())
    assert read.content == re.sub(r"\\u[\da-f]+", "\ufffd", content)


def test_more_tokens_than_anybody_can_use_are_no_count_and_more_dollars_than_that_no_cost() -> None:
    message = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    usage: dict[str, Any] = {"prompt_tokens": 1, "completion_tokens": 1, "cost": {"total_cost": 1e30}}
    answer: dict[str, Any] = {"model": "sonar", "choices": [message], "usage": usage}
    assert perplexity_wire.to_answer(json.dumps(answer).encode()).reported_cost is None
    answer["usage"] = {**usage, "completion_tokens": 10**12}
    assert perplexity_wire.to_answer(json.dumps(answer).encode()).tokens == Tokens(prompt_tokens=1)


async def test_a_request_that_cannot_be_written_was_not_sent_and_is_not_in_doubt() -> None:
    provider = PerplexityProvider(
        Access(KeyRing("AI_PERPLEXITY_API_KEY", "pplx-1"), "http://127.0.0.1:9", "sonar", interface="agent")
    )
    turn = Message(role="assistant", content="", tool_calls=[{"function": "no object"}])
    try:
        found = await provider.call(Call(CompletionRequest(messages=(turn,)), "sonar", timeout=5.0))
    finally:
        await provider.close()
    assert isinstance(found, Failure)
    assert (found.code, found.error_class, found.may_be_billed) == ("unsupported", ErrorClass.FALL_BACK, False)
