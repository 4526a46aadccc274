"""What dispatch needs from outside: providers that can be called, and prices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from schemas.request import CommonRequest
from schemas.response import Image, ResponseWarning, SearchResult
from schemas.usage import Tokens


class ErrorClass(StrEnum):
    """What a failure asks for. Source: the error classes of the provider contract (docs/contract.md)."""

    #: The same provider may answer a later attempt (429, 5xx, 529, time-outs, connections).
    RETRYABLE = "retryable"
    #: This provider will not answer, another one may (any refusal: bad key, no such model, quota gone, invalid there).
    FALL_BACK = "fall_back"
    #: No provider shall be asked (content refused, cancelled, refused by our own validation).
    TERMINAL = "terminal"


#: The seconds of the minute that limits count in, unless a test has set another (AI_MINUTE_SECONDS).
MINUTE = 60.0
#: A limit that takes longer than this to become whole again is not one per minute, in minutes.
LONGEST_MINUTE = 1.5


@dataclass(frozen=True, slots=True)
class Reading:
    """What a provider's answer says of one of its limits. `reset` is the seconds until all of it is there again;
    `minute` is the seconds of a minute.
    """

    limit: int
    remaining: int
    reset: float | None = None
    minute: float = MINUTE

    @property
    def is_per_minute(self) -> bool:
        return self.reset is None or self.reset <= LONGEST_MINUTE * self.minute

    @property
    def rate(self) -> float:
        """What comes back, per second."""
        if self.is_per_minute or not self.reset:
            return self.limit / self.minute
        return (self.limit - self.remaining) / self.reset

    def shard(self, count: int) -> Reading:
        """The part of one of so many lanes that share the limit."""
        if count == 1:
            return self
        return replace(self, limit=self.limit // count, remaining=self.remaining // count)


@dataclass(frozen=True, slots=True)
class Readings:
    """The provider's word on its quota, as far as it gave it."""

    requests: Reading | None = None
    tokens: Reading | None = None

    def counted_in(self, minute: float) -> Readings:
        """The same for limits whose minute has so many seconds."""
        if minute == MINUTE:
            return self
        parts = (part and replace(part, minute=minute) for part in (self.requests, self.tokens))
        return Readings(*parts)


UNREAD = Readings()


@dataclass(frozen=True)
class Answer:
    """A complete answer. `reported_cost` is in US dollars, where the provider states it.

    `embeddings` are base64 of little-endian float32, in the order of the inputs. `is_estimated` says that the cost
    can only be estimated: the tokens are ours, because the provider told none, or the price book does not know what all
    of them cost.
    """

    content: str | None
    model: str
    finish_reason: str
    tokens: Tokens
    tool_calls: tuple[dict[str, Any], ...] = ()
    citations: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    related_questions: tuple[str, ...] = ()
    search_results: tuple[SearchResult, ...] = ()
    reported_cost: Decimal | None = None
    readings: Readings = UNREAD
    is_estimated: bool = False
    #: The provider's own word for the reason.
    finish_reason_raw: str | None = None
    #: What was dropped, or put in other words.
    warnings: tuple[ResponseWarning, ...] = ()
    #: The model has told thoughts, which are no part of the answer.
    has_thought: bool = False


#: The provider has refused the key, and there is another one: the next attempt takes that.
KEY_REFUSED = "key_refused"
#: The provider has refused a field that only Spillway has said: the next attempt is asked in other words.
FIELD_REFUSED = "field_refused"


@dataclass(frozen=True)
class Failure:
    """A call that brought no answer.

    `may_be_billed` says that the provider may have done the work all the same (the answer was cut off, or did not
    come in time). `retry_after` is in seconds, from the provider. `message` holds no key and no prompt. `tokens` is
    what it used all the same, where that is known or better estimated than before the call. `fields` are those of the
    body that a refusal speaks of.
    """

    error_class: ErrorClass
    code: str
    message: str
    retry_after: float | None = None
    may_be_billed: bool = False
    readings: Readings = UNREAD
    tokens: Tokens | None = None
    fields: tuple[str, ...] = ()

    @property
    def is_rate_limit(self) -> bool:
        """The provider is well, and has had enough for now."""
        return self.code == "rate_limited"

    @property
    def is_key_refusal(self) -> bool:
        """Only the key was wrong, and another one is left: the provider is well, and nothing is to be waited for."""
        return self.code == KEY_REFUSED

    @property
    def is_refusal(self) -> bool:
        """The provider did not take the request as it was asked; it may take another one."""
        return self.code in ("invalid_request", "prompt_too_long") and self.error_class is ErrorClass.FALL_BACK

    @property
    def is_field_refusal(self) -> bool:
        """Only our own words were wrong: the provider is well, and nothing is to be waited for."""
        return self.code == FIELD_REFUSED

    @property
    def is_not_sent(self) -> bool:
        """There was no call."""
        return self.code == NOT_SENT.code

    @property
    def is_reached(self) -> bool:
        """The provider was there, so that what went wrong may be the request's own fault."""
        return self.code != "connection"

    @property
    def is_outage(self) -> bool:
        """It says that the provider, and not this request, is the trouble."""
        if self.error_class is ErrorClass.RETRYABLE:
            return not (self.is_rate_limit or self.is_key_refusal or self.is_field_refusal)
        return self.code in ("bad_key", "forbidden", "quota_exhausted", "unexpected_status")


#: No byte was sent, because the call was no longer permitted at the last moment.
NOT_SENT = Failure(ErrorClass.RETRYABLE, "not_sent", "The call was not made: the worker could not be sure that it may.")


def always() -> bool:
    return True


@dataclass(frozen=True)
class Call:
    """One attempt. `timeout` is in seconds, for the whole call. `may_send` is asked once, right before the first byte
    goes out; where it says no, nothing goes out, and the result is NOT_SENT.
    """

    request: CommonRequest
    model: str
    timeout: float
    attempt_id: str = field(default="")
    may_send: Callable[[], bool] = always


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer that is being written; `tool_calls` as in OpenAI's chunks."""

    content: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()


#: Takes the pieces of a streamed answer, in order.
Tell = Callable[[Delta], Awaitable[None]]


class Provider(Protocol):
    """One provider behind its SDK. It never retries by itself: each call is one attempt."""

    name: str
    #: Kinds of request that it answers.
    kinds: frozenset[str]

    @property
    def timeout(self) -> float:
        """Seconds that a call takes at most; a stream may take longer, if it is never silent for so long."""
        ...

    def model_for(self, request: CommonRequest) -> str:
        """The model that a request gets from this provider: its own wish, or the default."""
        ...

    async def call(self, call: Call, tell: Tell | None = None) -> Answer | Failure:
        """Make the call, if `call.may_send`. Never raises for what a provider can do; cancellation passes through.

        With `tell` the answer is streamed, and told piece by piece before it is returned whole. What `tell` raises
        passes through.
        """
        ...

    async def close(self) -> None: ...


class PriceBook(Protocol):
    """US dollars for tokens, by model and date. None: the price is not known."""

    def cost(self, provider: str, model: str, tokens: Tokens, at: datetime) -> Decimal | None: ...

    def lacking(self, provider: str, model: str, tokens: Tokens, at: datetime) -> str | None:
        """What of these tokens has no price of its own, for people, so that `cost` is an estimate; None: nothing."""
        ...

    def estimate(self, provider: str, model: str, request: CommonRequest, at: datetime) -> Decimal | None:
        """What a call will cost at most: the prompt's estimated tokens, and all of `max_tokens`."""
        ...
