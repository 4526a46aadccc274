"""Waiting for a condition, never for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any


async def eventually(condition: Callable[[], Any], *, within: float = 20.0, every: float = 0.05, what: str = "") -> Any:
    """The first true result of the condition, which may be asynchronous. Fails after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        if loop.time() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or condition}; the last result was {found!r}")
        await asyncio.sleep(every)


def until(condition: Callable[[], Any], *, within: float = 20.0, every: float = 0.05, what: str = "") -> Any:
    """As `eventually`, for tests without an event loop."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or condition}; the last result was {found!r}")
        time.sleep(every)
    return found
