"""What the tasks of a process wait for: places in code with their counts, and nothing of what they work on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from types import CoroutineType, FrameType
from typing import Any

#: Levels of a task that are shown, from where it waits, beside the one that it began with.
LEVELS = 12


def waits(tasks: Iterable[asyncio.Task[Any]]) -> list[tuple[int, str]]:
    """How many tasks wait at each place, the most first."""
    found = Counter(_place(task) for task in tasks if not task.done())
    return sorted(((count, place) for place, count in found.items()), reverse=True)


def _place(task: asyncio.Task[Any]) -> str:
    told = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in _frames(task.get_coro())]
    inner = told[:0:-1][:LEVELS]
    # What the task is comes last, however deep it waits.
    return " < ".join([*inner, *told[:1]]) or task.get_name()


def _frames(awaited: object) -> Iterable[FrameType]:
    """From the task's own coroutine inwards to the one that waits."""
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            if awaited.cr_frame is not None:
                yield awaited.cr_frame
            awaited = awaited.cr_await
        elif (frame := getattr(awaited, "ag_frame", None) or getattr(awaited, "gi_frame", None)) is not None:
            yield frame
            awaited = getattr(awaited, "ag_await", None) or getattr(awaited, "gi_yieldfrom", None)
        else:
            return
