"""Servers that speak OpenAI's chat completions more or less: what they leave out costs no answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.compatible import meant_for_openai
from app.providers.compatible_wire import to_answer, to_body
from app.providers.reading import completed
from app.providers.usage_wire import UNCOUNTED
from app.providers.wire import MalformedAnswerError
from schemas.request import CompletionRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer

FULL = {
    "model": "llama-4",
    "choices": [{"message": {"role": "assistant", "content": "Low tide."}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


def read(**changes: Any) -> Answer:
    return to_answer(orjson.dumps({name: value for name, value in {**FULL, **changes}.items() if value is not ...}))


def said(**message: Any) -> Answer:
    """The answer with this message, of which nothing but it is there."""
    return read(choices=[{"message": message}], usage=..., model=...)


def test_a_full_answer_is_read_as_openais() -> None:
    answer = read()
    assert (answer.content, answer.model, answer.finish_reason) == ("Low tide.", "llama-4", "length")
    assert answer.tokens == Tokens(prompt_tokens=7, completion_tokens=3)


def test_an_answer_may_be_a_message_and_nothing_else() -> None:
    answer = said(content="Low tide.")
    assert (answer.content, answer.model, answer.finish_reason, answer.tokens) == ("Low tide.", "", "stop", UNCOUNTED)


@pytest.mark.parametrize("reason", [None, "", 7, "eos", ...])
def test_an_end_that_is_not_named_is_a_stop(reason: object) -> None:
    choice = {"message": {"content": "x"}, "finish_reason": reason}
    assert read(choices=[{k: v for k, v in choice.items() if v is not ...}]).finish_reason == "stop"


def test_calls_of_tools_without_id_and_with_an_object_of_arguments_are_put_right() -> None:
    answer = said(content=None, tool_calls=[{"function": {"name": "tide", "arguments": {"port": "Brest"}}}])
    assert answer.finish_reason == "tool_calls"
    call = {"id": "call_0", "type": "function", "function": {"name": "tide", "arguments": '{"port":"Brest"}'}}
    assert answer.tool_calls == (call,)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "Low.", "reasoning_content": "Let me think."}, "Low."),
        ({"content": None, "reasoning_content": "Let me think."}, ""),
        ({"reasoning_content": "Let me think."}, ""),
        ({"content": [{"type": "text", "text": "Low"}, {"type": "text", "text": "."}, {"type": "image"}]}, "Low."),
        ({"content": None, "refusal": "No."}, "No."),
        ({"content": None, "tool_calls": None}, ""),
    ],
)
def test_the_text_is_the_answer_without_the_thoughts(message: dict[str, Any], content: str) -> None:
    assert said(**message).content == content


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, UNCOUNTED),
        ({}, UNCOUNTED),
        ({"prompt_tokens": None, "completion_tokens": None}, UNCOUNTED),
        ({"prompt_tokens": -1, "completion_tokens": 3}, Tokens(completion_tokens=3)),
        ({"prompt_tokens": 2.5, "completion_tokens": 3}, Tokens(completion_tokens=3)),
        ({"prompt_tokens": 7.0, "completion_tokens": "3"}, Tokens(prompt_tokens=7, completion_tokens=3)),
        ({"prompt_tokens": 7, "total_tokens": 9}, Tokens(prompt_tokens=7, completion_tokens=2)),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": -1},
            },
            Tokens(prompt_tokens=7, completion_tokens=5, cached_tokens=4),
        ),
        (
            {"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": None},
            Tokens(prompt_tokens=7, completion_tokens=5),
        ),
    ],
)
def test_counts_are_believed_when_they_are_counts(usage: dict[str, Any] | None, tokens: Tokens) -> None:
    assert read(usage=usage).tokens == tokens


@pytest.mark.parametrize(
    "choices", [None, [], "x", [None], [{}], [{"message": None}], [{"message": {"content": 7}}], ...]
)
def test_an_answer_without_a_message_is_malformed(choices: object) -> None:
    with pytest.raises(MalformedAnswerError):
        read(choices=choices)
    with pytest.raises(MalformedAnswerError):
        read(choices=...)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON, JSON)
def test_whatever_comes_is_an_answer_or_malformed(usage: Any, calls: Any, content: Any, reason: Any) -> None:
    choice = {"message": {"content": content, "tool_calls": calls}, "finish_reason": reason}
    try:
        answer = to_answer(orjson.dumps({"choices": [choice], "usage": usage}))
    except MalformedAnswerError:
        return
    assert isinstance(answer.content, str) or answer.tool_calls
    assert answer.tokens.total_tokens >= 0


def test_an_answer_without_counts_is_counted_by_the_rule_of_the_limits() -> None:
    request = CompletionRequest(prompt="x" * 400)
    answer = completed(said(content="y" * 40), request, "asked-for")
    assert isinstance(answer, Answer)
    assert (answer.model, answer.tokens.completion_tokens) == ("asked-for", 10)
    assert answer.tokens.prompt_tokens >= 100
    assert completed(read(), request, "asked-for") == read()


def test_a_request_is_in_words_that_all_servers_know() -> None:
    request = CompletionRequest(
        prompt="Hi", system="Be short.", stop=("END",), provider_options={"local": {"top_k": 3}, "openai": {"seed": 1}}
    )
    assert to_body(request, "gpt-5-at-home", "local") == {
        "model": "gpt-5-at-home",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 4096,
        "temperature": 0.7,
        "stop": ["END"],
        "top_k": 3,
    }


def test_what_the_environment_holds_for_openai_is_meant_for_openai() -> None:
    environment = {"OPENAI_CUSTOM_HEADERS": "X-Team: 7\nAuthorization: Bearer x\nnothing"}
    assert meant_for_openai(environment) == ("OpenAI-Organization", "OpenAI-Project", "X-Team")
