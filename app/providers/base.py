"""The part of a call that is the same at every provider: one attempt, one deadline, everything mapped.

A vendor adds two things: how its wire looks (pure functions, in `*_wire.py`) and how bytes get there (its client).
Embeddings and searches will be further kinds here, each with its own pair of wire functions; a stream will be a
method beside `call`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from app.providers import errors
from app.providers.availability import BELIEVED_FOR, Availability, Lookout
from app.providers.keys import Key, KeyRing, judge_key
from app.providers.limits import read_limits
from app.providers.models import Catalog, model_for
from app.providers.redact import without_secrets
from app.providers.wire import Body, MalformedAnswerError, UnsupportedRequestError
from schemas.request import CommonRequest, CompletionRequest
from streams.dispatch.ports import UNREAD, Answer, Call, Failure, Tell

#: For finding a call again at the provider (and in tests).
ATTEMPT_HEADER = "X-Spillway-Attempt"


@dataclass(frozen=True)
class Access:
    """How one provider is reached. `timeout` is in seconds and caps every call's own."""

    keys: KeyRing
    base_url: str
    default_model: str
    timeout: float = 60.0
    catalog: Catalog = field(default_factory=Catalog)
    embedding_model: str | None = None


Headers = Mapping[str, str]


class Received(NamedTuple):
    """A successful answer as it came. The headers' names are found in any case."""

    content: bytes
    headers: Mapping[str, str]


class CompletionProvider(ABC):
    """Implements `streams.dispatch.ports.Provider` for completions."""

    name: str
    kinds = frozenset({"completion"})

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lookout = Lookout(self._look, access.keys)

    @property
    def access(self) -> Access:
        return self._access

    def model_for(self, request: CommonRequest) -> str:
        """See `app.providers.models`: a model of another vendor becomes this provider's default."""
        return model_for(self.name, request, self._access.default_model, self._access.catalog)

    async def available(self, max_age: float = BELIEVED_FOR) -> Availability:
        """Whether it can be reached and takes a key, found out for nothing. What is `max_age` seconds old will do."""
        return await self._lookout.see(max_age)

    async def call(self, call: Call, tell: Tell | None = None) -> Answer | Failure:  # noqa: ARG002 - not yet
        """One attempt, at most `call.timeout` seconds and the provider's own limit; never raises for the provider."""
        request = call.request
        if not isinstance(request, CompletionRequest):
            return errors.unsupported(f"{self.name} is not set up here for {request.kind} requests.")
        try:
            content = orjson.dumps(self._to_body(request, call.model))
        except (UnsupportedRequestError, orjson.JSONEncodeError) as error:
            return errors.invalid_request(str(error))
        keys = self._access.keys
        key = keys.take()
        result = await self._attempt(content, call, key)
        if isinstance(result, Failure):
            return without_secrets(judge_key(result, key, keys), keys.secrets(), request)
        if key is not None:
            keys.accept(key)
        return result

    async def _attempt(self, content: bytes, call: Call, key: Key | None) -> Answer | Failure:
        timeout = min(call.timeout, self._access.timeout)
        if timeout <= 0:
            return errors.timed_out(sent=False)
        try:
            async with asyncio.timeout(timeout):
                received = await self._post(content, {ATTEMPT_HEADER: call.attempt_id, **self._auth(key)})
        except Exception as error:
            failure = errors.from_exception(error)
            if failure is None:
                raise
            return failure
        readings = read_limits(received.headers, datetime.now(UTC))
        try:
            answer = self._to_answer(received.content)
        except MalformedAnswerError as error:
            return replace(errors.malformed(str(error)), readings=readings)
        return answer if readings is UNREAD else replace(answer, readings=readings)

    @abstractmethod
    def _to_body(self, request: CompletionRequest, model: str) -> Body: ...

    @abstractmethod
    def _to_answer(self, raw: bytes) -> Answer: ...

    def _auth(self, key: Key | None) -> Headers:
        """The headers by which a call shows its key."""
        return {"Authorization": f"Bearer {key.value}"} if key is not None else {}

    @abstractmethod
    async def _post(self, content: bytes, headers: Headers) -> Received:
        """Send the body; what a 2xx holds comes back. Raises what the client raises, or HttpStatusError."""

    async def _look(self, key: Key | None) -> bytes:
        """Ask for something that is free, with this key; raises as `_post` does."""
        return (await self._get({ATTEMPT_HEADER: "look", **self._auth(key)})).content

    @abstractmethod
    async def _get(self, headers: Headers) -> Received:
        """What the provider gives away for nothing: the list of its models, if it has one."""

    @abstractmethod
    async def close(self) -> None: ...
