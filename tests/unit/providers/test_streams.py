"""Streams put together again: the same answer as unstreamed, and never a part of it called whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import openai, sse
from app.providers import perplexity_wire as perplexity
from app.providers.chat_stream import ChatStream
from app.providers.claude_stream import ClaudeStream
from app.providers.claude_wire import answer_of as claude_answer
from app.providers.reported import ReportedError, failure_of
from app.providers.stream import StreamedAnswer
from app.providers.wire import MalformedAnswerError, read_exact_object
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta, ErrorClass

Events = Sequence[dict[str, Any] | str]


@dataclass(frozen=True)
class Golden:
    """A stream as the provider's documentation shows it, and the answer that the same call brings unstreamed."""

    events: Events
    new: Callable[[], StreamedAnswer]
    whole: Callable[[], Answer]

    def wire(self) -> bytes:
        lines = []
        for event in self.events:
            if isinstance(event, dict) and "type" in event:
                lines.append(f"event: {event['type']}\n")
            lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n")
        return "".join(lines).encode()


def openai_stream() -> ChatStream:
    return ChatStream(openai.answer_of, prompt_tokens=40)


def perplexity_stream() -> ChatStream:
    return ChatStream(perplexity.answer_of, prompt_tokens=40, exactly=True)


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": None}
START_USAGE = {"input_tokens": 25, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 3, "output_tokens": 1}
CLAUDE = Golden(
    events=[
        {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": START_USAGE}},
        {"type": "ping"},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Hm."},
            {"type": "signature_delta", "signature": "abc"},
        ),
        *block(
            1,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Let me "},
            {"type": "text_delta", "text": "é"},
        ),
        {"type": "some_event_of_tomorrow", "index": 1},
        *block(
            2,
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"city": "San'},
            {"type": "input_json_delta", "partial_json": ' Jose"}'},
        ),
        *block(3, {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 89}},
        {"type": "message_stop"},
    ],
    new=ClaudeStream,
    whole=lambda: claude_answer(
        {
            **MESSAGE,
            "stop_reason": "tool_use",
            "usage": START_USAGE | {"output_tokens": 89},
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
                {"type": "text", "text": "Let me é"},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "San Jose"}},
                {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
            ],
        }
    ),
)


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **beside: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "gpt-x", "choices": choices, **beside}


def whole(message: dict[str, Any], finish: str, usage: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"model": "gpt-x", "choices": [{"message": message, "finish_reason": finish}], "usage": usage, **beside}


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
TEXT = Golden(
    events=[
        chunk({"role": "assistant", "content": ""}, usage=None),
        chunk({"content": "Hel"}, usage=None),
        chunk({}, usage=None),
        chunk({"content": "lo é"}, usage=None),
        chunk({}, "stop", usage=None),
        chunk(None, usage=USAGE),
        "[DONE]",
    ],
    new=openai_stream,
    whole=lambda: openai.answer_of(whole({"content": "Hello é"}, "stop", USAGE)),
)
CALLS = Golden(
    events=[
        chunk(
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
        chunk(
            {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        chunk({}, "tool_calls"),
        chunk(None, usage=USAGE),
        "[DONE]",
    ],
    new=openai_stream,
    whole=lambda: openai.answer_of(
        whole(
            {
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            "tool_calls",
            USAGE,
        )
    ),
)
REFUSAL = Golden(
    events=[
        chunk({"refusal": "I "}),
        chunk({"refusal": "won't."}),
        chunk({}, "stop"),
        chunk(None, usage=USAGE),
        "[DONE]",
    ],
    new=openai_stream,
    whole=lambda: openai.answer_of(whole({"content": None, "refusal": "I won't."}, "stop", USAGE)),
)
COST = {"prompt_tokens": 5, "completion_tokens": 3, "cost": {"total_cost": 0.005}}
SOURCES = {"citations": ["https://a.example"], "search_results": [{"url": "https://a.example", "title": "A"}]}
PERPLEXITY = Golden(
    events=[
        chunk({"content": "Rain"}, usage={**COST, "completion_tokens": 1}, message={"content": "Rain"}),
        chunk({"content": "."}, "stop", usage=COST, message={"content": "Rain."}, **SOURCES),
        "[DONE]",
    ],
    new=perplexity_stream,
    whole=lambda: perplexity.answer_of(
        read_exact_object(json.dumps(whole({"content": "Rain."}, "stop", COST, **SOURCES)).encode())
    ),
)
GOLDEN = {"claude": CLAUDE, "text": TEXT, "calls": CALLS, "refusal": REFUSAL, "perplexity": PERPLEXITY}


def take_all(golden: Golden, upto: int | None = None) -> tuple[StreamedAnswer, list[Delta]]:
    stream = golden.new()
    told = []
    for event in golden.events[:upto]:
        delta = stream.take(None, event if isinstance(event, str) else json.dumps(event))
        told += [delta] if delta else []
    return stream, told


@pytest.mark.parametrize("name", GOLDEN)
def test_a_stream_brings_the_same_answer_as_the_unstreamed_call(name: str) -> None:
    stream, _ = take_all(GOLDEN[name])
    assert stream.is_complete
    assert stream.answer() == GOLDEN[name].whole()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_pieces_together_are_the_answer(name: str) -> None:
    stream, told = take_all(GOLDEN[name])
    answer = stream.answer()
    assert "".join(delta.content for delta in told) == (answer.content or "")
    arguments: dict[int, str] = {}
    for piece in (piece for delta in told for piece in delta.tool_calls):
        arguments[piece["index"]] = arguments.get(piece["index"], "") + piece["function"].get("arguments", "")
    told_calls = [json.loads(written or "{}") for _, written in sorted(arguments.items())]
    assert told_calls == [json.loads(call["function"]["arguments"]) for call in answer.tool_calls]


def follow(stream: StreamedAnswer, pieces: list[bytes]) -> None:
    """A body that comes in these pieces, and then ends."""
    decoder = sse.Decoder()
    for piece in pieces:
        for name, data in decoder.feed(piece):
            stream.take(name, data)
    for name, data in decoder.end():
        stream.take(name, data)
    stream.end()


@given(
    name=st.sampled_from(sorted(GOLDEN)), cuts=st.lists(st.integers(0, 4_000), max_size=8), end=st.integers(0, 4_000)
)
def test_however_the_network_cuts_it_the_answer_is_whole_or_there_is_none(name: str, cuts: list[int], end: int) -> None:
    golden = GOLDEN[name]
    wire = golden.wire()[:end]
    places = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    stream = golden.new()
    try:
        follow(stream, [wire[a:b] for a, b in pairwise(places)])
    except MalformedAnswerError:
        assert end < len(golden.wire()), "an event may be cut in the middle"
    if stream.is_complete:
        assert stream.answer() == golden.whole()
    else:
        assert end < len(golden.wire())


def test_a_server_that_does_not_say_what_was_used_gets_an_estimate_that_is_marked() -> None:
    stream = openai_stream()
    for event in (chunk({"content": "x" * 80}), chunk({}, "stop")):
        stream.take(None, json.dumps(event))
    early = stream.is_complete
    assert not early, "the usage may still come"
    stream.take(None, "[DONE]")
    assert stream.is_complete
    assert stream.answer().is_estimated
    assert stream.answer().tokens == Tokens(prompt_tokens=40, completion_tokens=20)


def test_what_has_come_before_a_stream_breaks_off_is_known() -> None:
    stream, _ = take_all(CLAUDE, 9)
    assert stream.used() == Tokens(prompt_tokens=35, completion_tokens=3, cached_tokens=7, cache_write_tokens=3)
    assert ClaudeStream().used() is None
    stream, _ = take_all(TEXT, 2)
    assert stream.used() == Tokens(prompt_tokens=40, completion_tokens=1)
    assert openai_stream().used() is None


def test_what_a_provider_says_of_its_usage_before_the_stream_breaks_off_counts_if_it_is_more() -> None:
    stream = perplexity_stream()
    stream.take(None, json.dumps(chunk({"content": "Rain"}, usage={"prompt_tokens": 90, "completion_tokens": 0})))
    assert stream.used() == Tokens(prompt_tokens=90, completion_tokens=1)
    claude, _ = take_all(CLAUDE, len(CLAUDE.events) - 1)
    assert not claude.is_complete
    assert claude.used() == Tokens(prompt_tokens=35, completion_tokens=89, cached_tokens=7, cache_write_tokens=3)


def test_calls_that_a_server_does_not_number_are_told_apart_by_their_ids() -> None:
    stream = openai_stream()
    for name in ("tide", "wind"):
        function = {"name": name, "arguments": "{"}
        stream.take(None, json.dumps(chunk({"tool_calls": [{"index": None, "id": name, "function": function}]})))
        stream.take(None, json.dumps(chunk({"tool_calls": [{"function": {"arguments": "}"}}]})))
    stream.take(None, json.dumps(chunk({}, "tool_calls", usage=USAGE)))
    calls = stream.answer().tool_calls
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("tide", "{}"), ("wind", "{}")]


def test_what_claude_has_thought_is_paid_for_as_well() -> None:
    stream = ClaudeStream()
    stream.take(None, json.dumps(CLAUDE.events[0]))
    for event in block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "x" * 400}):
        assert stream.take(None, json.dumps(event)) is None
    used = stream.used()
    assert used is not None
    assert used.completion_tokens == 100


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (ClaudeStream(), "{"),
        (ClaudeStream(), "[1]"),
        (ClaudeStream(), '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}'),
        (ClaudeStream(), '{"type": "message_start"}'),
        (openai_stream(), "{"),
        (openai_stream(), '{"choices": {"a": 1}}'),
        (openai_stream(), '{"choices": [{"delta": {"content": 7}}]}'),
        (openai_stream(), '{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": 7}}]}}]}'),
    ],
)
def test_an_event_that_makes_no_sense_is_a_malformed_answer(stream: StreamedAnswer, data: str) -> None:
    with pytest.raises(MalformedAnswerError):
        stream.take(None, data)


@pytest.mark.parametrize(
    ("stream", "data", "code"),
    [
        (ClaudeStream(), {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "overloaded"),
        (ClaudeStream(), {"type": "error", "error": {"type": "api_error", "message": "oh"}}, "server_error"),
        (ClaudeStream(), {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}, "rate_limited"),
        (openai_stream(), {"error": {"type": "server_error", "message": "The server had an error"}}, "server_error"),
        (openai_stream(), {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, "rate_limited"),
        (openai_stream(), {"error": {"type": "insufficient_quota", "message": "no money"}}, "quota_exhausted"),
    ],
)
def test_an_error_inside_a_stream_is_the_same_as_outside(
    stream: StreamedAnswer, data: dict[str, Any], code: str
) -> None:
    with pytest.raises(ReportedError) as caught:
        stream.take(None, json.dumps(data))
    before = failure_of(caught.value.body)
    assert (before.code, before.may_be_billed) == (code, False)
    assert before.error_class is (ErrorClass.FALL_BACK if code == "quota_exhausted" else ErrorClass.RETRYABLE)
    assert failure_of(caught.value.body, has_begun=True).may_be_billed


def test_a_stream_of_claudes_that_breaks_off_knows_its_searches_and_what_was_kept_for_an_hour() -> None:
    stream = ClaudeStream()
    creation = {"ephemeral_1h_input_tokens": 300, "ephemeral_5m_input_tokens": 100}
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 400, "cache_creation": creation, "output_tokens": 1}
    start = {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**usage, "speed": "fast"}}}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    for event in (start, *block(0, search), *block(1, {**search, "id": "t"})):
        stream.take(None, json.dumps(event))
    assert stream.used() == Tokens(
        prompt_tokens=410,
        completion_tokens=1,
        cache_write_tokens=400,
        cache_write_1h_tokens=300,
        search_requests=2,
        service_tier="fast",
    )


def test_a_broken_stream_knows_its_tier_and_its_sound() -> None:
    stream = openai_stream()
    usage = {"prompt_tokens": 90, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 70}}
    stream.take(None, json.dumps(chunk({"content": "Rain"}, usage=usage, service_tier="flex")))
    assert stream.used() == Tokens(prompt_tokens=90, completion_tokens=5, audio_prompt_tokens=70, service_tier="flex")
