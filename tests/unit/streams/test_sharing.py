"""Which requests ask for the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from schemas.request import CompletionRequest, EmbeddingRequest, Message, SearchRequest
from streams.rows import decode_row, encode_row
from streams.sharing import CachePolicy, Flight, Joined, Kept, Landed, meaning

SAME: list[dict[str, Any]] = [
    {"request_id": "another"},
    {"workspace_id": "another"},
    {"user_id": "u", "purpose": "p", "metadata": {"k": "v"}},
    {"deadline": datetime(2026, 1, 1, tzinfo=UTC), "priority": "batch", "reply_to": "t"},
    {"stream": True},
    {"cache": {"ttl": 5}},
]
OTHER: list[dict[str, Any]] = [
    {"prompt": "ho"},
    {"system": "be brief"},
    {"model": "gpt-4o"},
    {"max_tokens": 5},
    {"temperature": 0.0},
    {"stop": ("x",)},
    {"preferred_providers": ("openai",)},
    {"response_format": {"type": "json_object"}},
    {"tools": ({"type": "function", "function": {"name": "f"}},)},
    {"provider_options": {"openai": {"seed": 1}}},
    {"cache": {"key": "mine"}},
]


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "hi", **fields})


@pytest.mark.parametrize("fields", SAME)
def test_who_asks_and_how_urgently_makes_no_other_question(fields: dict[str, Any]) -> None:
    assert meaning(completion(**fields)) == meaning(completion())


@pytest.mark.parametrize("fields", OTHER)
def test_whatever_changes_the_answer_makes_another_question(fields: dict[str, Any]) -> None:
    assert meaning(completion(**fields)) != meaning(completion())


def test_a_bare_prompt_is_the_one_message_of_the_user() -> None:
    spelled_out = CompletionRequest(messages=(Message(role="user", content="hi"),))
    assert meaning(spelled_out) == meaning(completion())


def test_the_order_of_names_in_free_objects_says_nothing() -> None:
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert meaning(completion(response_format=one)) == meaning(completion(response_format=other))


def test_a_key_of_ones_own_is_all_that_counts_within_a_kind() -> None:
    mine = {"cache": {"key": "mine"}}
    assert meaning(completion(**mine)) == meaning(completion(prompt="something else", **mine))
    embedding = EmbeddingRequest.model_validate({"kind": "embedding", "input": "hi", **mine})
    assert meaning(embedding) != meaning(completion(**mine))


def test_each_kind_has_questions_of_its_own() -> None:
    asked = [
        EmbeddingRequest(kind="embedding", input="hi"),
        EmbeddingRequest(kind="embedding", input=("hi",), dimensions=8),
        SearchRequest(kind="search", query="hi"),
        SearchRequest(kind="search", query="hi", recency="day"),
        completion(),
    ]
    assert len({meaning(one) for one in asked}) == len(asked)


def test_nothing_is_kept_where_the_request_or_the_deployment_says_so() -> None:
    assert CachePolicy().key(completion()) == meaning(completion())
    assert CachePolicy().key(completion(cache={"enabled": False})) is None
    assert CachePolicy(enabled=False).key(completion()) is None


@pytest.mark.parametrize(
    ("now", "ttl", "fresh"),
    [(100.0, None, True), (159.9, None, True), (160.0, None, False), (109.9, 10, True), (110.0, 10, False)],
)
def test_an_answer_is_given_until_it_is_too_old_for_its_keeper_or_for_who_asks(
    now: float, ttl: int | None, fresh: bool
) -> None:
    assert Kept("r-1", 100.0, 160.0, b"{}").is_fresh(now, ttl) is fresh


@pytest.mark.parametrize(
    "row",
    [
        Kept("r/1", 1.5, 2.5, '{"content":"ä"}'.encode()),
        Flight("r-1", 7, 9.5),
        Flight("r-1", 7, 9.5, led_from=3),
        Joined(5.0, b'{"a":1}'),
        Landed(3, 5.5),
        Landed(3, 5.5, 4.25),
    ],
)
def test_rows_survive_their_table(row: Kept | Flight | Joined | Landed) -> None:
    assert decode_row(encode_row(row)) == row


def test_a_version_without_landings_reads_one_as_a_flight_that_a_sweep_takes() -> None:
    body = orjson.loads(encode_row(Landed(3, 5.5)))
    del body["l"]
    assert decode_row(orjson.dumps(body)) == Flight("", 3, 5.5)
