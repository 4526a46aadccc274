"""Embeddings: texts in as few calls as they fit into, vectors in the texts' order, exact."""

from __future__ import annotations

import base64
import struct
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.base import joined
from app.providers.embeddings_wire import MAX_BYTES, MAX_TEXTS, embedding_body, parts_of, vectors_of
from app.providers.reported import ReportedError
from app.providers.wire import MalformedAnswerError, UnsupportedRequestError
from schemas.request import EmbeddingRequest
from schemas.usage import Tokens

SMALL = "text-embedding-3-small"


def request(*texts: str, **fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest(kind="embedding", **{"input": texts, "dimensions": 8, **fields})


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def answer(*items: tuple[int, Any], **usage: int) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in items]
    return orjson.dumps({"object": "list", "data": data, "model": SMALL, "usage": {"prompt_tokens": 5} | usage})


def test_one_text_is_a_batch_of_one() -> None:
    assert parts_of(request(input="Hello"), SMALL) == [("Hello",)]
    body = embedding_body(request(input="Hello"), ("Hello",), SMALL, "openai")
    assert body == {"model": SMALL, "input": ["Hello"], "encoding_format": "base64", "dimensions": 8}


def test_dimensions_are_only_sent_where_they_are_wished() -> None:
    assert "dimensions" not in embedding_body(request("a", dimensions=None), ("a",), SMALL, "openai")


@given(st.lists(st.integers(1, 250_000), min_size=1, max_size=60))
def test_all_texts_are_in_one_part_each_in_order_and_no_part_is_too_large(lengths: list[int]) -> None:
    texts = tuple("é" * (length // 2) + "x" for length in lengths)
    parts = parts_of(request(*texts), SMALL)
    assert tuple(text for part in parts for text in part) == texts
    assert all(part for part in parts)
    assert all(sum(len(text.encode()) for text in part) <= MAX_BYTES for part in parts)
    # And as few as this way of filling can make: no part would have had room for the next text.
    for part, following in pairwise(parts):
        assert sum(len(text.encode()) for text in (*part, following[0])) > MAX_BYTES


def test_a_part_holds_no_more_texts_than_the_provider_takes() -> None:
    parts = parts_of(request(*["a"] * (2 * MAX_TEXTS + 1)), SMALL)
    assert [len(part) for part in parts] == [MAX_TEXTS, MAX_TEXTS, 1]


@pytest.mark.parametrize(
    ("texts", "fields", "said"),
    [
        ([], {}, "holds no text"),
        (["a", ""], {}, "number 1, from 0"),
        (
            ["a"] * 300,
            {"dimensions": 3_072},
            r"at most \d+ texts at once, or ask for `encoding_format: \"base64\"`",
        ),
        (["a"] * 2_000, {"dimensions": None, "encoding_format": "base64"}, "vectors of 1536 numbers"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_is_paid_for(
    texts: list[str], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedRequestError, match=said):
        parts_of(request(*texts, **fields), SMALL)


def test_vectors_come_back_in_the_order_of_the_texts_whatever_the_order_of_the_answer() -> None:
    read = vectors_of(3, 0, answer((2, packed(3.0)), (0, packed(1.0)), (1, packed(2.0))))
    assert read.embeddings == (packed(1.0), packed(2.0), packed(3.0))
    assert (read.tokens, read.content, read.model) == (Tokens(prompt_tokens=5), None, SMALL)


def test_numbers_where_base64_was_asked_for_are_the_same_vector() -> None:
    read = vectors_of(1, 0, answer((0, [0.5, -1, 0.25])))
    assert read.embeddings == (packed(0.5, -1.0, 0.25),)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [(0, packed(1.0)), (0, packed(1.0))],
        [(0, packed(1.0)), (2, packed(1.0))],
        [(0, "AA"), (1, packed(1.0))],
        [(0, "%%"), (1, packed(1.0))],
        [(0, ["a"]), (1, packed(1.0))],
        [(0, [1e300]), (1, packed(1.0))],
        [(0, packed(1.0, float("nan"))), (1, packed(1.0))],
        [(0, packed(float("inf"))), (1, packed(1.0))],
        [(0, "é"), (1, packed(1.0))],
        [(0, None), (1, packed(1.0))],
        [(True, packed(1.0)), (1, packed(1.0))],
    ],
)
def test_an_answer_that_does_not_fit_the_texts_is_malformed(items: list[tuple[int, Any]]) -> None:
    with pytest.raises(MalformedAnswerError):
        vectors_of(2, 0, answer(*items))


@pytest.mark.parametrize(
    ("usage", "tokens", "estimated"),
    [
        (None, 7, True),
        ({}, 7, True),
        ({"prompt_tokens": -1}, 7, True),
        ({"prompt_tokens": 5.0}, 5, False),
        ({"total_tokens": 5}, 5, False),
        ({"input_tokens": 5}, 5, False),
    ],
)
def test_an_answer_without_a_count_is_estimated(usage: object, tokens: int, estimated: bool) -> None:
    read = vectors_of(1, 7, orjson.dumps({"data": [{"embedding": packed(1.0)}], "usage": usage}))
    assert (read.tokens, read.is_estimated, read.model) == (Tokens(prompt_tokens=tokens), estimated, "")


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": -1}, {"prompt_tokens": "x"}])
def test_usage_that_is_none_costs_no_vectors(usage: object) -> None:
    read = vectors_of(1, 7, orjson.dumps({"data": [{"embedding": packed(1.0)}], "usage": usage}))
    assert (read.tokens, read.is_estimated) == (Tokens(prompt_tokens=7), True)
    counted = vectors_of(1, 7, orjson.dumps({"data": [{"embedding": packed(1.0)}], "usage": {"prompt_tokens": 9.0}}))
    assert (counted.tokens, counted.is_estimated) == (Tokens(prompt_tokens=9), False)


def test_vectors_that_do_not_fit_cost_what_is_stated_and_an_error_costs_nothing() -> None:
    with pytest.raises(MalformedAnswerError) as caught:
        vectors_of(2, 7, answer((0, packed(1.0)), prompt_tokens=9))
    assert caught.value.tokens == Tokens(prompt_tokens=9)
    with pytest.raises(ReportedError):
        vectors_of(1, 7, orjson.dumps({"error": {"code": 429, "message": "slow down"}}))


def test_parts_are_put_together_in_order_with_all_that_they_used() -> None:
    parts = [vectors_of(1, 0, answer((0, packed(float(n))), prompt_tokens=n)) for n in (1, 2, 3)]
    whole = joined(parts)
    assert whole.embeddings == (packed(1.0), packed(2.0), packed(3.0))
    assert whole.tokens == Tokens(prompt_tokens=6)
    assert whole.reported_cost is None
