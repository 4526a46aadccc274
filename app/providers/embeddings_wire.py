"""OpenAI's embeddings, which many others speak as well: texts in, one vector for each, in order.

Vectors are always asked for as base64 of little-endian float32: a quarter of the size of JSON's numbers, and exact.
A server that sends numbers all the same is understood. Source: "Create embeddings" of OpenAI's API reference, with its
limits: 2,048 texts and 300,000 tokens in one call, and no empty text.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from math import isfinite

from app.providers.reported import ReportedError, told_beside
from app.providers.usage_wire import cost_in, count_in, tokens_in, usage_in
from app.providers.wire import (
    Body,
    MalformedAnswerError,
    UnsupportedRequestError,
    as_list,
    as_object,
    read_object,
    with_options,
)
from schemas.request import EmbeddingRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer
from streams.topology import MAX_RECORD_BYTES

MAX_TEXTS = 2_048
#: Of one call, in bytes, so that 300,000 tokens hold it: base64 and identifiers come down to 1.4 bytes a token
#: (docs/decisions/0006-tokens-counted.md).
MAX_BYTES = 400_000
FLOAT_BYTES = 4

#: How long vectors are where the request does not say; the longest that is usual, where nobody knows.
DIMENSIONS = {"text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072, "text-embedding-ada-002": 1_536}
UNKNOWN_DIMENSIONS = 4_096
#: What one number takes in a response: as JSON's number with nine digits, and as base64.
NUMBER_BYTES = {"float": 13.0, "base64": FLOAT_BYTES * 4 / 3}
#: Of a record, for all that is beside the vectors.
MARGIN_BYTES = 64 * 1024


def parts_of(request: EmbeddingRequest, model: str) -> list[tuple[str, ...]]:
    """The texts in as few calls as they fit into, in order. Raises UnsupportedRequestError."""
    texts = (request.input,) if isinstance(request.input, str) else request.input
    _refuse(texts, request, model)
    parts: list[tuple[str, ...]] = []
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode(errors="replace"))
        if part and (len(part) == MAX_TEXTS or size + length > MAX_BYTES):
            parts.append(tuple(part))
            part, size = [], 0
        part.append(text)
        size += length
    return [*parts, tuple(part)]


def _refuse(texts: Sequence[str], request: EmbeddingRequest, model: str) -> None:
    """What no provider answers, and what is too large to be told."""
    if not texts:
        raise UnsupportedRequestError("`input` holds no text; give at least one.")
    empty = next((number for number, text in enumerate(texts) if not text), None)
    if empty is not None:
        raise UnsupportedRequestError(f"`input` holds an empty text (number {empty}, from 0); leave it out.")
    dimensions = request.dimensions or DIMENSIONS.get(model, UNKNOWN_DIMENSIONS)
    fits = int((MAX_RECORD_BYTES - MARGIN_BYTES) / (dimensions * NUMBER_BYTES[request.encoding_format]))
    if len(texts) > fits:
        hint = "" if request.encoding_format == "base64" else ', or ask for `encoding_format: "base64"`'
        raise UnsupportedRequestError(
            f"{len(texts)} vectors of {dimensions} numbers do not fit into one response; send at most {fits} texts at "
            f"once{hint}."
        )


def embedding_body(request: EmbeddingRequest, texts: Sequence[str], model: str, provider: str) -> Body:
    """The request for some of the texts. `provider` is the one whose options are added."""
    body: Body = {"model": model, "input": list(texts), "encoding_format": "base64"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return with_options(body, request, provider)


def vectors_of(expected: int, uncounted: int, raw: bytes) -> Answer:
    """The answer with so many vectors; raises MalformedAnswerError.

    `uncounted` is the estimate of its tokens that counts where it states none, or what can be none.
    """
    answer = read_object(raw)
    if (error := told_beside(answer)) is not None:
        raise ReportedError(error)
    model, usage = answer.get("model"), usage_in(answer)
    # Some say the total alone; there is nothing else in it.
    tokens = tokens_in(usage).prompt_tokens or count_in(usage, "total_tokens")
    try:
        vectors = _all_vectors(answer, expected)
    except MalformedAnswerError as error:
        raise MalformedAnswerError(str(error), Tokens(prompt_tokens=tokens) if tokens else None) from None
    return Answer(
        content=None,
        model=model if isinstance(model, str) else "",
        finish_reason="stop",
        tokens=Tokens(prompt_tokens=tokens or uncounted),
        embeddings=vectors,
        reported_cost=cost_in(usage),
        is_estimated=not tokens,
    )


def _all_vectors(answer: Body, expected: int) -> tuple[str, ...]:
    vectors = dict(_vectors(answer))
    if sorted(vectors) != list(range(expected)):
        raise MalformedAnswerError(f"it holds {len(vectors)} vectors for {expected} texts")
    return tuple(vectors[index] for index in range(expected))


def _vectors(answer: Body) -> Iterator[tuple[int, str]]:
    for place, listed in enumerate(as_list(answer.get("data"), "data")):
        item = as_object(listed, "data[]")
        index = item.get("index", place)
        if isinstance(index, bool) or not isinstance(index, int):
            raise MalformedAnswerError("data[].index is not a count")
        yield index, _as_base64(item.get("embedding"))


def _as_base64(vector: object) -> str:
    """The vector as it was sent, or packed; raises MalformedAnswerError. Numbers that JSON has not are no vector."""
    if isinstance(vector, str):
        try:
            packed = base64.b64decode(vector, validate=True)
        except ValueError:  # binascii.Error is one, and so is a text that is not ASCII.
            packed = b""
        if not packed or len(packed) % FLOAT_BYTES:
            raise MalformedAnswerError("data[].embedding is not base64 of float32")
    else:
        numbers = as_list(vector, "data[].embedding")
        try:
            packed = struct.pack(f"<{len(numbers)}f", *numbers)
        except (struct.error, OverflowError):
            raise MalformedAnswerError("data[].embedding is not a list of numbers") from None
    if not all(map(isfinite, struct.unpack(f"<{len(packed) // FLOAT_BYTES}f", packed))):
        raise MalformedAnswerError("data[].embedding holds what is no finite number")
    return vector if isinstance(vector, str) else base64.b64encode(packed).decode()
