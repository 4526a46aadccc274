"""OpenAI's format in and out: nothing is lost on the way that the stream can carry, and nothing is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from app.client.errors import ClientClosedError, ConnectionLostError, InvalidRequestError, RequestTimedOut
from app.client.outgoing import outgoing
from app.client.pieces import Piece
from app.http.chat_in import completion_fields
from app.http.chat_out import ChunkWriter, completion
from app.http.embeddings import embedding_fields, embedding_list
from app.http.incoming import timeout_of
from app.http.problems import Problem, of_error, of_response
from schemas.response import AttemptSummary, Error, ResponseWarning, Status, Usage
from schemas.usage import Outcome
from tests.unit.client.making import NOW, response

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def fields(dialect: tuple[str, ...] = ("openai", "local"), **body: Any) -> dict[str, Any]:
    return completion_fields({"model": "gpt-4o", "messages": HELLO, **body}, dialect)


def test_a_plain_body_says_only_what_it_says() -> None:
    assert fields() == {"kind": "completion", "model": "gpt-4o", "messages": HELLO}


def test_what_both_have_keeps_its_meaning() -> None:
    found = fields(
        max_completion_tokens=7, max_tokens=9, temperature=0, stop="end", user="u-1", metadata={"a": "b"}, tools=[TOOL]
    )
    assert found["max_tokens"] == 7
    assert found["temperature"] == 0
    assert found["stop"] == ["end"]
    assert found["user_id"] == "u-1"
    assert (found["metadata"], found["tools"]) == ({"a": "b"}, [TOOL])
    assert fields(max_tokens=9)["max_tokens"] == 9


def test_the_default_model_is_no_model() -> None:
    assert "model" not in fields(model="default")


def test_messages_of_every_role_are_taken_by_the_contract() -> None:
    messages = [
        {"role": "developer", "content": "be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "audio": None},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    found = fields(messages=messages)
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant", "tool"]
    made = outgoing(found, workspace_id="acme", timeout=1.0, reply_to=None, now=NOW)
    assert json.loads(made.value)["messages"][2]["content"] == ""


def test_what_the_contract_has_no_field_for_goes_to_those_who_know_it() -> None:
    found = fields(top_p=0.5, seed=7, tool_choice="required", parallel_tool_calls=False)
    told = {"top_p": 0.5, "seed": 7, "tool_choice": "required", "parallel_tool_calls": False}
    assert found["provider_options"]["openai"] == found["provider_options"]["local"] == told
    assert found["provider_options"]["claude"] == {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}


@pytest.mark.parametrize(
    ("choice", "claude"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("any", {"type": "any"}),
        ({"type": "none"}, {"type": "none"}),
        ({"type": "any"}, {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        ({"type": "function", "name": "f"}, {"type": "tool", "name": "f"}),
        ({"type": "tool", "name": "f"}, {"type": "tool", "name": "f"}),
    ],
    ids=str,
)
def test_a_choice_of_tools_is_told_claude_in_its_own_words(choice: Any, claude: dict[str, Any]) -> None:
    assert fields(tool_choice=choice)["provider_options"]["claude"]["tool_choice"] == claude


def test_the_requests_own_options_win() -> None:
    found = fields(top_p=0.5, provider_options={"openai": {"top_p": 0.1}, "claude": {"top_k": 3}})
    assert found["provider_options"]["openai"] == {"top_p": 0.1}
    assert found["provider_options"]["claude"] == {"top_k": 3}


def test_the_contracts_own_fields_pass() -> None:
    own: dict[str, Any] = {
        "preferred_providers": ["claude"],
        "cache": {"enabled": False},
        "priority": "batch",
        "purpose": "tests",
    }
    assert own.items() <= fields(**own).items()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"tool_choice": "f"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"modalities": 5}, "modalities"),
        ({"functions": [{}]}, "functions"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages.0"),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_refused_by_its_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as caught:
        fields(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_the_whole_answer_is_what_the_sdk_reads() -> None:
    used = Usage(
        prompt_tokens=3, completion_tokens=4, total_tokens=7, cached_tokens=1, reasoning_tokens=2, cost="0.001"
    )
    found = ChatCompletion.model_validate(
        completion(response("hi", usage=used, model="m", provider="openai", finish_reason="stop"), "gpt-4o"),
        strict=True,
    )
    assert (found.choices[0].message.content, found.choices[0].finish_reason, found.model) == ("hi", "stop", "m")
    assert found.usage is not None
    assert found.usage.total_tokens == 7
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.prompt_tokens_details.cached_tokens == 1
    assert found.model_extra is not None
    assert found.model_extra["spillway"]["cost"] == "0.001000000"


def test_tool_calls_and_sources_come_back() -> None:
    found = completion(response(None, tool_calls=(CALL,), finish_reason="tool_calls", citations=("https://a",)), "m")
    read = ChatCompletion.model_validate(found)
    assert read.choices[0].message.tool_calls is not None
    assert read.choices[0].message.tool_calls[0].id == "c1"
    assert found["citations"] == ["https://a"]


def test_the_provider_s_own_word_and_what_was_lost_come_beside_the_answer() -> None:
    lost = ResponseWarning(code="text_repaired", message="A mark stands there.")
    told = response("hi", finish_reason="stop", finish_reason_raw="eos", warnings=(lost,))
    last = events(ChunkWriter("r-1", "gpt-4o", 1).end(told))[0]
    for found in (completion(told, "gpt-4o"), last):
        assert found["choices"][0]["finish_reason"] == "stop"
        assert found["spillway"]["finish_reason_raw"] == "eos"
        assert found["spillway"]["warnings"] == [lost.model_dump()]
    assert "warnings" not in completion(response("hi"), "m")["spillway"]


def events(raw: bytes) -> list[Any]:
    return [
        json.loads(line.removeprefix("data: ")) for line in raw.decode().split("\n\n") if line and "[DONE]" not in line
    ]


@pytest.mark.parametrize("include_usage", [True, False])
def test_the_pieces_are_what_the_sdk_reads(include_usage: bool) -> None:
    writer = ChunkWriter("r-1", "gpt-4o", 1, include_usage=include_usage)
    last = response("hi", usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3), finish_reason="length")
    raw = writer.begin() + writer.piece(Piece("hi", ({"index": 0, **CALL},))) + writer.end(last)
    assert raw.endswith(b"data: [DONE]\n\n")
    read = [ChatCompletionChunk.model_validate(one) for one in events(raw)]
    assert {one.id for one in read} == {"chatcmpl-r-1"}
    assert read[0].choices[0].delta.role == "assistant"
    assert read[1].choices[0].delta.content == "hi"
    assert read[2].choices[0].finish_reason == "length"
    assert len(read) == 4 if include_usage else 3
    if include_usage:
        assert read[3].choices == []
        assert read[3].usage is not None
        assert read[3].usage.total_tokens == 3


def test_embeddings_in_and_out() -> None:
    found = embedding_fields({"model": "e", "input": ["a"], "dimensions": 4, "encoding_format": "base64"}, ("openai",))
    assert found == {"kind": "embedding", "model": "e", "input": ["a"], "dimensions": 4, "encoding_format": "base64"}
    read = CreateEmbeddingResponse.model_validate(embedding_list(response(None, embeddings=((0.5, 1.0),)), "e"))
    assert read.data[0].embedding == [0.5, 1.0]


@pytest.mark.parametrize("texts", [None, 3, [1, 2], [[1]], {}], ids=str)
def test_embeddings_are_of_texts(texts: Any) -> None:
    with pytest.raises(Problem) as caught:
        embedding_fields({"model": "e", "input": texts}, ())
    assert (caught.value.status, caught.value.param) == (400, "input")


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (Status.REJECTED, "invalid_request", (400, "invalid_request")),
        (Status.REJECTED, "unknown_model", (404, "model_not_found")),
        (Status.REJECTED, "too_large", (413, "too_large")),
        (Status.REJECTED, "budget_exceeded", (429, "insufficient_quota")),
        (Status.REJECTED, "unsupported_operation", (400, "unsupported_operation")),
        (Status.REJECTED, "something_new", (400, "something_new")),
        (Status.FAILED, "all_providers_failed", (502, "all_providers_failed")),
        (Status.FAILED, "content_refused", (400, "content_filter")),
        (Status.FAILED, "cancelled", (409, "cancelled")),
        (Status.FAILED, "something_new", (502, "something_new")),
        (Status.EXPIRED, "deadline_exceeded", (504, "deadline_exceeded")),
    ],
)
def test_each_failure_has_its_status(status: Status, code: str, answered: tuple[int, str]) -> None:
    problem = of_response(response(None, status=status, error=Error(code=code, message="Why.", retryable=True)))
    assert (problem.status, problem.code) == answered
    assert problem.body()["error"]["message"] == "Why."
    assert problem.headers() == {"x-should-retry": "false"}, "the stream has tried already"


@pytest.mark.parametrize(
    ("codes", "answered"),
    [
        (("invalid_request",), (400, "invalid_request")),
        (("invalid_request", "prompt_too_long"), (400, "context_length_exceeded")),
        (("no_such_model",), (404, "model_not_found")),
        (("key_refused", "field_refused", "invalid_request"), (400, "invalid_request")),
        (("field_refused",), (502, "all_providers_failed")),
        (("invalid_request", "overloaded"), (502, "all_providers_failed")),
        (("bad_key", "invalid_request"), (502, "all_providers_failed")),
    ],
)
def test_a_request_that_every_provider_refuses_is_at_fault(codes: tuple[str, ...], answered: tuple[int, str]) -> None:
    attempts = tuple(
        AttemptSummary(
            attempt=number, provider="p", model="m", outcome=Outcome.FAILED, error=Error(code=code, message="No.")
        )
        for number, code in enumerate(codes, 1)
    )
    error = Error(code="all_providers_failed", message="Why.", retryable=False)
    failed = response(None, status=Status.FAILED, error=error).model_copy(update={"attempts": attempts})
    problem = of_response(failed)
    assert (problem.status, problem.code) == answered


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequestError("x"), 400),
        (ConnectionLostError("x"), 503),
        (ClientClosedError("x"), 503),
        (RequestTimedOut("x"), 504),
    ],
)
def test_what_never_reached_the_stream_has_a_status_too(error: Any, status: int) -> None:
    assert of_error(error).status == status
    assert of_error(error).retry == (status == 503)


@pytest.mark.parametrize(("told", "seconds"), [(None, 600.0), ("1.5", 1.5), ("9999", 600.0), ("inf", 600.0)])
def test_a_request_may_ask_for_less_time_and_not_for_more(told: str | None, seconds: float) -> None:
    assert timeout_of(told, 600.0) == seconds


@pytest.mark.parametrize("told", ["", "0", "-1", "soon", "nan"])
def test_a_time_out_that_is_none_is_refused(told: str) -> None:
    with pytest.raises(Problem, match="x-spillway-timeout"):
        timeout_of(told, 600.0)
