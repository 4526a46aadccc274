"""Checks of what a worker depends on: asked only when somebody wants to know, and not again for a few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

#: Seconds for which what was found counts, and for which an answer is waited.
BELIEVED_FOR = 5.0
PATIENCE = 3.0

#: Looks at one thing: None where it is well, else what is wrong, in words without a secret.
Look = Callable[[], Awaitable[str | None]]


class Check:
    """At most one look is under way, and all who ask meanwhile wait for it. It cannot take longer than the patience."""

    def __init__(self, look: Look, *, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE) -> None:
        self._look = look
        self._clock = clock
        self._patience = patience
        self._found: str | None = None
        self._found_at = float("-inf")
        self._under_way: asyncio.Task[None] | None = None

    async def see(self) -> str | None:
        if self._under_way is None and self._clock() - self._found_at >= BELIEVED_FOR:
            self._under_way = asyncio.create_task(self._look_once())
        if self._under_way is not None:
            # Whoever asked may lose patience; the look goes on for the others.
            await asyncio.shield(self._under_way)
        return self._found

    async def _look_once(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                self._found = await self._look()
        except TimeoutError:
            self._found = f"no answer within {self._patience:g} seconds"
        except Exception as error:  # noqa: BLE001 - a check that fails is an answer, too
            self._found = type(error).__name__
        finally:
            self._found_at = self._clock()
            self._under_way = None

    async def stop(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.wait({self._under_way})


@dataclass(frozen=True)
class Readiness:
    """What each check has found. Ready is a worker of which nothing is wrong."""

    found: Mapping[str, str | None]

    @property
    def ready(self) -> bool:
        return all(reason is None for reason in self.found.values())

    def as_data(self) -> dict[str, object]:
        return {"ready": self.ready, "checks": {name: reason or "ok" for name, reason in self.found.items()}}


async def readiness(own: Mapping[str, str | None], checks: Mapping[str, Check]) -> Readiness:
    """All checks at the same time. `own` says what the worker lacks itself, by name; None: nothing."""
    found = await asyncio.gather(*(check.see() for check in checks.values()))
    return Readiness({**own, **dict(zip(checks, found, strict=True))})
