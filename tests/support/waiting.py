"""Waiting for a condition, never for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    condition: Callable[[], Awaitable[T] | T], *, within: float = 20.0, every: float = 0.05, what: str = ""
) -> T:
    """The first true result of the condition. Fails after `within` seconds, telling the last result."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        result = condition()
        found: T = await result if isawaitable(result) else result
        if found:
            return found
        if loop.time() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or condition}; the last result was {found!r}")
        await asyncio.sleep(every)
