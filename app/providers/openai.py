"""OpenAI's chat completions and embeddings through the `openai` SDK.

The SDK authenticates, builds the request and raises typed errors; it does not retry. Its general `post` is used
instead of `chat.completions.create`, with the body already encoded: building and validating its models takes more
than half of a call's CPU time (bench/sdk_transport.py), and `to_answer` checks all that is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import httpx2
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, Omit

from app.providers.base import Access, Exchange, Headers, Received, VendorProvider
from app.providers.chat_answer import chat_answer
from app.providers.chat_stream import ChatStream
from app.providers.chat_wire import chat_body, chat_cost, chat_format, chat_tokens, with_choice, without_marks
from app.providers.embeddings_wire import embedding_body, parts_of, vectors_of
from app.providers.translation import JSON_IN_WORDS, Translation, left_out, stops_dropped
from app.providers.transport import KEY_OF_THE_CALL, TIMEOUT, UNTOLD, sdk_client
from app.providers.wire import JSON_OBJECT_RULE, Body, asks_for_temperature, read_object, with_options
from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest
from streams.dispatch.ports import Answer
from streams.tokens import estimate_text, estimate_tokens

BASE_URL = "https://api.openai.com/v1"
#: What it takes of stop sequences. Source: "Create chat completion" of its API reference.
MOST_STOPS = 4
COMPLETIONS, EMBEDDINGS = "/chat/completions", "/embeddings"

# The o series and the models from gpt-5 on reason, and refuse any temperature but their own; their chat variants
# take one. What an application wants all the same it can say in `provider_options`.
_REASONING = re.compile(r"(openai/)?(ft:)?(o\d|gpt-([5-9]|\d\d)(?!.*-chat))", re.IGNORECASE)


#: What the SDK would add to a call.
_UNWANTED: Mapping[str, Omit] = dict.fromkeys(("Authorization", *UNTOLD), Omit())


def to_body(request: CompletionRequest, model: str, translation: Translation | None = None) -> Body:
    """The request in OpenAI's words. `max_completion_tokens`, since the newer models refuse `max_tokens`.

    Raises UnsupportedRequestError.
    """
    translation = translation or Translation()
    body = without_marks(chat_body(request, model, translation, max_completion_tokens=request.max_tokens))
    if _REASONING.match(model):
        _leave_out(body, request, translation)
    else:
        body["temperature"] = request.temperature
        if len(request.stop) > MOST_STOPS:
            body["stop"] = list(request.stop[:MOST_STOPS])
            translation.note(stops_dropped(MOST_STOPS))
    if request.response_format is not None:
        body["response_format"] = chat_format(request.response_format)
        if request.response_format.get("type") == "json_object" and not _says_json(body["messages"]):
            translation.note(JSON_IN_WORDS)
            body["messages"].insert(0, {"role": "system", "content": JSON_OBJECT_RULE})
    return with_choice(with_options(body, request, "openai"), translation)


def _leave_out(body: Body, request: CompletionRequest, translation: Translation) -> None:
    """What models that reason refuse. What the application passes through all the same is its own affair."""
    passed = request.provider_options.get("openai") or {}
    lost = ["temperature"] if asks_for_temperature(request) and "temperature" not in passed else []
    if body.pop("stop", None) is not None and "stop" not in passed:
        lost.append("stop")
    if lost:
        translation.note(left_out("sampling_dropped", lost))


def _says_json(messages: Sequence[Body]) -> bool:
    """OpenAI refuses to be asked for an object by a conversation without this word."""
    return any("json" in _text_of(message["content"]).lower() for message in messages)


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def to_answer(raw: bytes) -> Answer:
    """The answer; raises MalformedAnswerError."""
    return answer_of(read_object(raw))


def answer_of(answer: Body) -> Answer:
    """The answer out of its parsed object; raises MalformedAnswerError."""
    return chat_answer(answer, chat_tokens(answer), reported_cost=chat_cost(answer))


class OpenAIProvider(VendorProvider):
    """OpenAI, or anything that speaks its chat completions and embeddings at `access.base_url`."""

    name = "openai"
    kinds = frozenset({"completion", "embedding"})

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._client = AsyncOpenAI(
            api_key=KEY_OF_THE_CALL,
            base_url=access.base_url,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=sdk_client(DefaultAioHttpClient),
        )

    def _exchanges(self, request: CommonRequest, model: str) -> Sequence[Exchange]:
        if isinstance(request, EmbeddingRequest):
            return [self._embedding(request, texts, model) for texts in parts_of(request, model)]
        assert isinstance(request, CompletionRequest)  # noqa: S101 - see `kinds`
        return (self._completion(request, model),)

    def _embedding(self, request: EmbeddingRequest, texts: Sequence[str], model: str) -> Exchange:
        body = embedding_body(request, texts, model, self.name)
        uncounted = sum(map(estimate_text, texts))
        return Exchange(EMBEDDINGS, body, partial(vectors_of, len(texts), uncounted))

    def _completion(self, request: CompletionRequest, model: str) -> Exchange:
        translation = Translation()
        return Exchange(COMPLETIONS, to_body(request, model, translation), to_answer, translation=translation)

    def _headers(self, headers: Headers) -> Mapping[str, str | Omit]:
        """Those of a call, with what the SDK shall not add. Without a key its header goes: the SDK has a key, too."""
        return {**_UNWANTED, **headers}

    async def _post(self, path: str, content: bytes, headers: Headers) -> Received:
        response = await self._client.post(
            path, cast_to=httpx2.Response, content=content, options={"headers": self._headers(headers)}
        )
        return Received(response.content, response.headers)

    async def _get(self, headers: Headers) -> Received:
        response = await self._client.get(
            "/models", cast_to=httpx2.Response, options={"headers": self._headers(headers)}
        )
        return Received(response.content, response.headers)

    def _streaming(self, body: Body) -> Body:
        return {**body, "stream": True, "stream_options": {"include_usage": True}}

    def _streamed(self, request: CompletionRequest) -> ChatStream:
        return ChatStream(answer_of, estimate_tokens(request))

    async def _open(self, path: str, content: bytes, headers: Headers) -> httpx2.Response:
        opened: object = await self._client.post(
            path,
            cast_to=httpx2.Response,
            content=content,
            options={"headers": self._headers(headers)},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        # The type says a stream of parsed events; for this `cast_to` the SDK gives the response itself.
        return cast(httpx2.Response, opened)

    async def close(self) -> None:
        await self._client.close()
