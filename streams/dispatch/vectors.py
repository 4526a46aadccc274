"""Vectors as the request wants them: numbers, or base64 of little-endian float32. Pure."""

from __future__ import annotations

import base64
import struct

from schemas.request import CommonRequest, EmbeddingRequest

#: Digits after the point of a number: finer than float32 is around one, and half as long as all that a double has.
DIGITS = 9


def as_wanted(vectors: tuple[str, ...], request: CommonRequest) -> tuple[str | tuple[float, ...], ...]:
    """The vectors, which come as base64, in the request's `encoding_format`."""
    if isinstance(request, EmbeddingRequest) and request.encoding_format == "float":
        return tuple(map(numbers, vectors))
    return vectors


def numbers(vector: str) -> tuple[float, ...]:
    raw = base64.b64decode(vector)
    return tuple(round(number, DIGITS) for number in struct.unpack(f"<{len(raw) // 4}f", raw))
