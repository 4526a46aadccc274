"""Which providers can be called, found out for nothing: each is asked for the list of its models once a minute.

A list costs nothing and needs a key, so it tells a wrong key and a dead address apart from a provider that is well.
What it cannot tell is whether a completion would work: an empty account has a list, too. The lane's circuit breaker
knows that, from the calls themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

import orjson

from app.providers import errors
from app.providers.keys import Key, KeyRing, judge_key
from app.providers.redact import without_keys
from streams.dispatch.ports import Failure

log = logging.getLogger(__name__)

#: Seconds for which what was found is taken to be true, and for which an answer is waited.
BELIEVED_FOR = 60.0
PATIENCE = 10.0
#: Models of one provider that are listed; gateways have thousands.
LISTED = 1_000

#: The address is right and somebody is there, but has no such list (a server that only completes).
_NO_LIST = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)

Look = Callable[[Key | None], Awaitable[bytes]]


@dataclass(frozen=True)
class Availability:
    """What a look has found. `note` says why it is not available, or what could not be found out.

    `models` are the provider's own, as far as it tells them.
    """

    available: bool
    note: str = ""
    models: tuple[str, ...] = ()


class Lookout:
    """Looks at one provider, and not again while what was found is new enough for whoever asks."""

    def __init__(self, look: Look, keys: KeyRing) -> None:
        self._look = look
        self._keys = keys
        self._lock = asyncio.Lock()
        self._seen: Availability | None = None
        self._seen_at = 0.0

    async def see(self, max_age: float = BELIEVED_FOR) -> Availability:
        now = asyncio.get_running_loop().time
        async with self._lock:
            if self._seen is None or now() - self._seen_at >= max_age:
                self._seen = await self._try_keys()
                self._seen_at = now()
            return self._seen

    async def _try_keys(self) -> Availability:
        """With one key after another, until one is not refused: they are found here before a request meets them."""
        found = await self._once(self._keys.take())
        for _ in range(len(self._keys) - 1):
            if not isinstance(found, Failure) or not found.is_key_refusal:
                break
            found = await self._once(self._keys.take())
        if not isinstance(found, Failure):
            return found
        note = without_keys(found.message, self._keys.secrets())
        # Who says that it has been asked too much is there.
        return Availability(found.is_rate_limit, note)

    async def _once(self, key: Key | None) -> Availability | Failure:
        try:
            async with asyncio.timeout(PATIENCE):
                content = await self._look(key)
        except Exception as error:
            if getattr(error, "status_code", None) in _NO_LIST:
                return Availability(True, "it has no list of its models, so its key is not checked")
            failure = errors.from_exception(error)
            if failure is None:
                raise
            return judge_key(failure, key, self._keys)
        if key is not None:
            self._keys.accept(key)
        return Availability(True, models=read_models(content))


def read_models(content: bytes) -> tuple[str, ...]:
    """The names in a list of models, which OpenAI, Anthropic and the compatible servers write alike.

    None where it is no such list: that it came at all is enough.
    """
    try:
        listed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ()
    items = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(items, list):
        return ()
    names = (item.get("id") for item in items[:LISTED] if isinstance(item, dict))
    return tuple(name for name in names if isinstance(name, str))


@dataclass(frozen=True)
class Standing:
    """How a provider stands, and since when it is so."""

    available: bool
    note: str
    since: datetime
    seen_at: datetime


class AvailabilityBoard:
    """How each provider stands. Metrics read it; `watch` writes it."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    @property
    def standings(self) -> Mapping[str, Standing]:
        """By provider; one that nobody has looked at yet is not in it."""
        return self._standings

    def hear(self, provider: str, found: Availability, now: datetime) -> None:
        was = self._standings.get(provider)
        changed = was is None or was.available != found.available
        since = now if was is None or changed else was.since
        self._standings[provider] = Standing(found.available, found.note, since, now)
        if changed and not found.available:
            log.warning("provider_unavailable: %s: %s", provider, found.note)
        elif changed and was is not None:
            log.info("provider_available: %s", provider)


class Watched(Protocol):
    """A provider that can be looked at."""

    async def available(self, max_age: float = BELIEVED_FOR) -> Availability: ...


async def watch(providers: Mapping[str, Watched], board: AvailabilityBoard, every: float) -> None:
    """Look at all providers, every so many seconds, until cancelled."""
    while True:
        looks = (_look_at(name, provider, board, every / 2) for name, provider in providers.items())
        await asyncio.gather(*looks)
        await asyncio.sleep(every)


async def _look_at(name: str, provider: Watched, board: AvailabilityBoard, max_age: float) -> None:
    try:
        found = await provider.available(max_age)
    except Exception:
        # A fault of ours: the others are looked at all the same, and this one again in a minute.
        log.exception("provider_not_seen: %s", name)
        return
    board.hear(name, found, datetime.now(UTC))
