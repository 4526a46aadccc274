"""The part of a call that is the same at every provider: one attempt, one deadline, everything mapped.

A vendor adds two things: how its wire looks (pure functions, in `*_wire.py` and `*_stream.py`) and how bytes get there
(its client). What a request becomes is an `Exchange`, or several where the provider takes only so much at once.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import orjson

from app.providers import errors
from app.providers.availability import BELIEVED_FOR, Availability, Lookout
from app.providers.keys import Key, KeyRing, judge_key
from app.providers.models import Catalog, model_for
from app.providers.patience import within
from app.providers.reading import as_delta, broken, completed, failure_behind, read_body, read_stream, with_prompt
from app.providers.redact import without_secrets
from app.providers.reported import ReportedError
from app.providers.sse import Decoder
from app.providers.stream import NewStream, OpenResponse, StreamedAnswer
from app.providers.translation import Translation, limit_lowered
from app.providers.transport import Permit, permit
from app.providers.usage_wire import cost_stated
from app.providers.wire import Body, MalformedAnswerError, UnsupportedRequestError
from app.providers.wording import Wording
from schemas.request import CommonRequest, CompletionRequest
from schemas.usage import Tokens
from streams.dispatch.ports import FIELD_REFUSED, Answer, Call, Delta, ErrorClass, Failure, Tell

log = logging.getLogger(__name__)

#: For finding a call again at the provider (and in tests).
ATTEMPT_HEADER = "X-Spillway-Attempt"


@dataclass(frozen=True)
class Access:
    """How one provider is reached. `timeout` is in seconds and caps every call's own.

    `interface` is which of its interfaces is used, for a provider that has several.
    """

    keys: KeyRing
    base_url: str
    default_model: str
    timeout: float = 60.0
    catalog: Catalog = field(default_factory=Catalog)
    embedding_model: str | None = None
    interface: str | None = None


Headers = Mapping[str, str]


class Received(NamedTuple):
    """A successful answer as it came. The headers' names are found in any case."""

    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Exchange:
    """One HTTP exchange: where it goes (below the base URL), what it says, and how its answer is read.

    `to_answer` raises MalformedAnswerError. `headers` are those that this body needs. `translation` is how the request
    became the body.
    """

    path: str
    body: Body
    to_answer: Callable[[bytes], Answer]
    headers: Headers = field(default_factory=dict)
    translation: Translation = field(default_factory=Translation)


class Written(NamedTuple):
    """A request in a provider's words: its exchanges, their bodies as the model takes them, and the bytes of these."""

    exchanges: Sequence[Exchange]
    bodies: list[Body]
    contents: list[bytes]


class VendorProvider(ABC):
    """Implements `streams.dispatch.ports.Provider`."""

    name: str
    kinds: frozenset[str] = frozenset({"completion"})

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lookout = Lookout(self._look, access.keys)
        self._wording_of_models: Wording | None = None

    @property
    def access(self) -> Access:
        return self._access

    @property
    def timeout(self) -> float:
        return self._access.timeout

    @property
    def _wording(self) -> Wording:
        """Made when it is first of use: a named provider has its name then."""
        if self._wording_of_models is None:
            self._wording_of_models = Wording(self.name)
        return self._wording_of_models

    def model_for(self, request: CommonRequest) -> str:
        """See `app.providers.models`: a model of another vendor becomes this provider's default for the kind."""
        return model_for(self.name, request, self._default_model(request), self._access.catalog)

    def _default_model(self, request: CommonRequest) -> str:
        if request.kind == "embedding" and self._access.embedding_model:
            return self._access.embedding_model
        return self._access.default_model

    async def available(self, max_age: float = BELIEVED_FOR) -> Availability:
        """Whether it can be reached and takes a key, found out for nothing. What is `max_age` seconds old will do."""
        return await self._lookout.see(max_age)

    async def call(self, call: Call, tell: Tell | None = None) -> Answer | Failure:
        """One attempt; never raises for the provider. It may take `call.timeout` seconds and the provider's own limit;
        a stream may take longer than that limit, if it is never silent for so long.
        """
        request, written = call.request, self._written(call, is_stream=tell is not None)
        if isinstance(written, Failure):
            return written
        exchanges, bodies, contents = written
        limit = call.timeout if tell is not None else min(call.timeout, self._access.timeout)
        if limit <= 0:
            return errors.timed_out(sent=False)
        keys = self._access.keys
        key = keys.take()
        headers = {ATTEMPT_HEADER: call.attempt_id, **self._auth(key)}
        if tell is None or not isinstance(request, CompletionRequest):
            new_stream = partial(self._streamed, request) if isinstance(request, CompletionRequest) else None
            attempt = self._attempt(exchanges, contents, headers, new_stream)
        else:
            [exchange], [content] = exchanges, contents
            tell = _named(tell, exchange.translation)
            attempt = self._attempt_stream(exchange, content, headers, self._streamed(request), tell)
        permitted = permit.set(Permit(call.may_send))
        try:
            result = await self._within(limit, attempt)
        finally:
            permit.reset(permitted)
        if isinstance(result, Answer):
            if key is not None:
                keys.accept(key)
            result = completed(result, request, call.model)
        if isinstance(result, Failure):
            failure = without_secrets(judge_key(with_prompt(result, request), key, keys), keys.secrets(), request)
            return self._judge_field(failure, call, bodies[0])
        return self._as_asked(result, exchanges[0].translation, call, bodies[0])

    def _written(self, call: Call, *, is_stream: bool) -> Written | Failure:
        """The request in this provider's words, or why it has none for it."""
        request = call.request
        if request.kind not in self.kinds:
            return errors.unsupported(f"{self.name} is not set up here for {request.kind} requests.")
        try:
            exchanges = self._exchanges(request, call.model)
            said = (self._streaming(one.body) if is_stream else one.body for one in exchanges)
            bodies = [self._wording.said(call.model, body, request) for body in said]
            return Written(exchanges, bodies, [orjson.dumps(body) for body in bodies])
        except UnsupportedRequestError as error:
            return errors.unsupported(f"The request cannot be put to {self.name}: {error}.")
        except orjson.JSONEncodeError as error:
            return errors.invalid_request(str(error))
        except Exception:
            # A form that nobody has thought of, such as a tool that is none. Nothing was sent, nothing can be billed.
            log.exception("request_unwritten: %s", self.name)
            return errors.unsupported(f"The request holds something that has no place in what {self.name} takes.")

    def _as_asked(self, answer: Answer, translation: Translation, call: Call, body: Body) -> Answer:
        """The answer in the application's words, with what the request has lost on its way."""
        most = self._wording.lowered(body, call.request)
        if most is not None:
            translation.note(limit_lowered(most))
        return translation.whole(answer)

    def _judge_field(self, failure: Failure, call: Call, body: Body) -> Failure:
        """A refusal of a field that only we have said is one of this body: the next attempt is asked in other words.

        Its message quotes no prompt any more, so that nobody can teach the others' words with a request.
        """
        if failure.is_refusal and self._wording.learn(call.model, body, call.request, failure):
            return replace(failure, error_class=ErrorClass.RETRYABLE, code=FIELD_REFUSED)
        return failure

    async def _within(self, limit: float, attempt: Coroutine[Any, Any, Answer | Failure]) -> Answer | Failure:
        """The attempt's result, whatever the provider does."""
        try:
            async with within(limit):
                return await attempt
        except Exception as error:
            failure = errors.from_exception(error)
            if failure is None:
                raise
            return failure

    async def _attempt(
        self, exchanges: Sequence[Exchange], contents: Sequence[bytes], headers: Headers, new_stream: NewStream | None
    ) -> Answer | Failure:
        """All exchanges, one after another, and their answers as one. One that fails, fails the attempt."""
        answers: list[Answer] = []
        for exchange, content in zip(exchanges, contents, strict=True):
            try:
                received = await self._post(exchange.path, content, {**headers, **exchange.headers})
                result = read_body(received.content, received.headers, exchange.to_answer, new_stream)
            except Exception as error:
                failure = errors.from_exception(error)
                if failure is None:
                    raise
                result = failure
            if isinstance(result, Failure):
                return _after(answers, result)
            # Of a whole answer: at the head of a stream nobody knows its cost.
            answers.append(cost_stated(result, received.headers))
        return answers[0] if len(answers) == 1 else joined(answers)

    async def _attempt_stream(
        self, exchange: Exchange, content: bytes, headers: Headers, answer: StreamedAnswer, tell: Tell
    ) -> Answer | Failure:
        async with within(self._access.timeout):
            response = await self._open(exchange.path, content, {**headers, **exchange.headers})
        decoder = Decoder()
        try:
            await self._follow(response, decoder, answer, tell)
        except (MalformedAnswerError, ReportedError) as error:
            return broken(failure_behind(error, answer), response.headers, answer)
        except Exception as error:
            answer.end(is_cut=True)
            failure = None if answer.is_complete else errors.from_exception(error)
            if failure is None and not answer.is_complete:
                raise
            if failure is not None:
                return broken(failure, response.headers, answer)
        finally:
            await response.aclose()
        if decoder.body:
            # The other framing: an answer in one piece, or an error.
            result = read_body(decoder.body, response.headers, exchange.to_answer, lambda: answer)
            if isinstance(result, Failure):
                return result
            if (delta := as_delta(result)) is not None:
                await tell(delta)
            return cost_stated(result, response.headers)
        return read_stream(answer, response.headers, has_mark=decoder.has_mark)

    async def _follow(self, response: OpenResponse, decoder: Decoder, answer: StreamedAnswer, tell: Tell) -> None:
        """Tell the pieces as they come, to the end of the stream; a long silence is a time-out. Whatever comes ends
        a silence, also what says nothing.
        """
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(self._access.timeout) as silence:
            async for piece in response.aiter_bytes():
                silence.reschedule(clock() + self._access.timeout)
                for name, data in decoder.feed(piece):
                    await _tell(tell, answer.take(name, data))
                silence.reschedule(clock() + self._access.timeout)
            for name, data in decoder.end():
                await _tell(tell, answer.take(name, data))
            await _tell(tell, answer.end(is_cut=decoder.is_cut))

    @abstractmethod
    def _exchanges(self, request: CommonRequest, model: str) -> Sequence[Exchange]:
        """What the provider is asked, for a request of one of its kinds. Raises UnsupportedRequestError."""

    def _auth(self, key: Key | None) -> Headers:
        """The headers by which a call shows its key."""
        return {"Authorization": f"Bearer {key.value}"} if key is not None else {}

    @abstractmethod
    async def _post(self, path: str, content: bytes, headers: Headers) -> Received:
        """Send the body; what a 2xx holds comes back. Raises what the client raises, or HttpStatusError."""

    def _streaming(self, body: Body) -> Body:
        """The body of a call that is streamed."""
        return {**body, "stream": True}

    @abstractmethod
    def _streamed(self, request: CompletionRequest) -> StreamedAnswer:
        """What puts one stream together again."""

    @abstractmethod
    async def _open(self, path: str, content: bytes, headers: Headers) -> OpenResponse:
        """As `_post`, with the body still to be read."""

    async def _look(self, key: Key | None) -> bytes:
        """Ask for something that is free, with this key; raises as `_post` does."""
        return (await self._get({ATTEMPT_HEADER: "look", **self._auth(key)})).content

    @abstractmethod
    async def _get(self, headers: Headers) -> Received:
        """What the provider gives away for nothing: the list of its models, if it has one."""

    @abstractmethod
    async def close(self) -> None: ...


def joined(answers: Sequence[Answer]) -> Answer:
    """The parts of a request that was too large for one exchange, in order, with all that they used."""
    tokens = sum((answer.tokens for answer in answers), start=Tokens())
    costs = [answer.reported_cost for answer in answers if answer.reported_cost is not None]
    return replace(
        answers[-1],
        embeddings=tuple(vector for answer in answers for vector in answer.embeddings),
        tokens=tokens,
        reported_cost=sum(costs, start=Decimal(0)) if len(costs) == len(answers) else None,
        is_estimated=any(answer.is_estimated for answer in answers),
    )


def _after(answers: Sequence[Answer], failure: Failure) -> Failure:
    """The failure of a later part: the parts before it were answered, and are paid for."""
    if not answers:
        return failure
    return replace(failure, may_be_billed=True, tokens=joined(answers).tokens)


def _named(tell: Tell, translation: Translation) -> Tell:
    """Tells the pieces with the application's names of the tools."""
    if not translation.renames:
        return tell

    async def tell_named(delta: Delta) -> None:
        await tell(translation.given(delta))

    return tell_named


async def _tell(tell: Tell, delta: Delta | None) -> None:
    if delta is not None:
        await tell(delta)
