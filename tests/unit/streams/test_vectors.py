"""Vectors in the form that the request wants."""

from __future__ import annotations

import base64
import struct

from hypothesis import given
from hypothesis import strategies as st

from schemas.request import CompletionRequest, EmbeddingRequest
from streams.dispatch.vectors import as_wanted

NUMBERS = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20)


def packed(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@given(NUMBERS)
def test_numbers_are_the_vector_to_nine_digits(numbers: list[float]) -> None:
    request = EmbeddingRequest(kind="embedding", input="a")
    [found] = as_wanted((packed(numbers),), request)
    assert isinstance(found, tuple)
    assert all(abs(one - other) <= 1e-9 for one, other in zip(found, numbers, strict=True))


@given(NUMBERS)
def test_base64_is_passed_on_exactly(numbers: list[float]) -> None:
    request = EmbeddingRequest(kind="embedding", input="a", encoding_format="base64")
    assert as_wanted((packed(numbers),), request) == (packed(numbers),)


def test_other_kinds_have_none() -> None:
    assert as_wanted((), CompletionRequest(prompt="a")) == ()
