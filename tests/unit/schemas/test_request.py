"""What an application may ask, and what not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.request import (
    KINDS,
    AdmittedRequest,
    CompletionRequest,
    EmbeddingRequest,
    Message,
    Request,
    SearchRequest,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_bare_prompt_is_a_conversation_of_one_message() -> None:
    assert CompletionRequest(prompt="hi").conversation() == (Message(role="user", content="hi"),)


def test_messages_are_the_conversation() -> None:
    messages = (Message(role="system", content="short"), Message(role="user", content="hi"))
    assert CompletionRequest(messages=messages).conversation() == messages


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]},
    ],
)
def test_a_completion_needs_exactly_one_of_messages_and_prompt(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either `messages`"):
        CompletionRequest.model_validate(body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"max_tokens": 0},
        {"temperature": 2.1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"stop": ["x"] * 17},
        {"workspace_id": ""},
        {"workspace_id": "a/b"},
        {"workspace_id": "a b"},
        {"workspace_id": "a\n"},
        {"workspace_id": "-a"},
        {"workspace_id": "a" * 129},
        {"request_id": ""},
        {"request_id": "a b"},
        {"request_id": "a\n"},
        {"request_id": "é"},
        {"request_id": "a" * 201},
        {"preferred_providers": ["Claude"]},
        {"preferred_providers": ["a/b"]},
        {"reply_to": "t" * 250},
        {"reply_to": ""},
        {"deadline": "2026-01-01T00:00:00"},
        {"deadline": "soon"},
        {"metadata": {"a": 1}},
        {"metadata": {str(number): "" for number in range(65)}},
        {"priority": "urgent"},
        {"cache": {"ttl": 0}},
        {"provider_options": {"Bad Name": {}}},
        {"messages": [{"role": "boss", "content": "hi"}], "prompt": None},
    ],
)
def test_a_value_outside_the_contract_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate({"prompt": "hi"} | wrong)


@pytest.mark.parametrize("workspace", ["a", "acme:team@example.com", "A-1._", "0" * 128])
def test_workspace_ids_are_names(workspace: str) -> None:
    assert CompletionRequest(prompt="hi", workspace_id=workspace).workspace_id == workspace


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"kind": "completion", "prompt": "hi"}, CompletionRequest),
        ({"kind": "embedding", "input": ["a", "b"]}, EmbeddingRequest),
        ({"kind": "embedding", "input": "a"}, EmbeddingRequest),
        ({"kind": "search", "query": "news", "recency": "day"}, SearchRequest),
    ],
)
def test_the_kind_tells_the_model(body: dict[str, Any], model: type) -> None:
    assert type(TypeAdapter(Request).validate_python(body)) is model
    assert KINDS[body["kind"]] is model


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (SearchRequest, {"kind": "search", "query": ""}),
        (SearchRequest, {"kind": "search", "query": "x", "recency": "decade"}),
        (SearchRequest, {"kind": "completion", "query": "x"}),
        (EmbeddingRequest, {"kind": "embedding"}),
        (EmbeddingRequest, {"kind": "embedding", "input": "x", "dimensions": 0}),
    ],
)
def test_searches_and_embeddings_have_contracts_too(model: type[SearchRequest], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(body)


def test_a_request_cannot_be_changed() -> None:
    request = CompletionRequest(prompt="hi")
    with pytest.raises(ValidationError, match="frozen"):
        request.prompt = "other"  # type: ignore[misc]


@pytest.mark.parametrize(("seconds", "expired"), [(-1, False), (0, True), (1, True)])
def test_a_request_is_expired_from_its_deadline_on(seconds: int, expired: bool) -> None:
    admitted = AdmittedRequest(
        request=CompletionRequest(prompt="hi"),
        request_id="r-1",
        workspace_id="acme",
        admitted_at=NOW,
        deadline=NOW + timedelta(minutes=1),
    )
    assert admitted.expired(admitted.deadline + timedelta(seconds=seconds)) is expired
