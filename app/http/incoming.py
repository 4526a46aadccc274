"""Reading a request to the door: its body, and how long it may take."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request

from app.http.problems import Problem
from streams.topology import MAX_RECORD_BYTES

TIMEOUT = "x-spillway-timeout"


async def json_of(request: Request) -> dict[str, Any]:
    """The body. Raises Problem for what is too large or no JSON object."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_RECORD_BYTES:
            raise Problem(413, "too_large", f"The request has more than {MAX_RECORD_BYTES:,} bytes.")
        parts.append(part)
    return _object(b"".join(parts))


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Problem(400, "invalid_request", "The body must be a JSON object.")
    return body


def timeout_of(told: str | None, longest: float) -> float:
    """Seconds that a request may take: what its header says, and no more than the deployment allows."""
    try:
        seconds = float(told) if told is not None else longest
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise Problem(400, "invalid_request", f"{TIMEOUT}: must be a number of seconds above 0.", TIMEOUT)
    return min(seconds, longest)
