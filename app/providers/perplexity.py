"""Perplexity's Sonar chat completions through httpx.

Its wire is OpenAI's, with three differences: `max_tokens` by its old name, sources beside the answer, and usage that
states the cost of the call (tokens, request fee and searches together).
"""

from __future__ import annotations

from decimal import Decimal

import httpx
import orjson

from app.providers.base import Access, CompletionProvider, Headers, Received
from app.providers.chat_stream import ChatStream
from app.providers.chat_wire import chat_answer, chat_messages, chat_tools
from app.providers.errors import HttpStatusError, from_status
from app.providers.transport import CONNECT_TIMEOUT, KEEPALIVE, MAX_CONNECTIONS
from app.providers.wire import (
    JSON_OBJECT_RULE,
    Body,
    as_object,
    count,
    optional_count,
    read_exact_object,
    with_options,
)
from schemas.request import CompletionRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer
from streams.tokens import estimate_tokens

BASE_URL = "https://api.perplexity.ai"


def to_body(request: CompletionRequest, model: str) -> Body:
    """The request in Perplexity's words. It knows no "some JSON object": the system prompt asks for one instead."""
    body: Body = {
        "model": model,
        "messages": chat_messages(request),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = chat_tools(request)
    if request.response_format is not None:
        _set_format(body, request.response_format)
    return with_options(body, request, "perplexity")


def _set_format(body: Body, wanted: Body) -> None:
    if wanted.get("type") == "json_object":
        body["messages"].insert(0, {"role": "system", "content": JSON_OBJECT_RULE})
    elif wanted.get("type") != "text":
        body["response_format"] = wanted


def to_answer(raw: bytes) -> Answer:
    """The answer with its sources and what it cost; raises MalformedAnswerError."""
    return answer_of(read_exact_object(raw))


def answer_of(answer: Body) -> Answer:
    """The answer out of its parsed object; raises MalformedAnswerError."""
    usage = as_object(answer.get("usage"), "usage")
    return chat_answer(answer, _tokens(usage), citations=_citations(answer), reported_cost=_cost(usage))


def _tokens(usage: Body) -> Tokens:
    # Deep research counts its reasoning beside the completion; Spillway counts it inside, as OpenAI does.
    reasoning = optional_count(usage, "reasoning_tokens")
    return Tokens(
        prompt_tokens=count(usage, "prompt_tokens"),
        completion_tokens=count(usage, "completion_tokens") + reasoning,
        reasoning_tokens=reasoning,
    )


def _citations(answer: Body) -> tuple[str, ...]:
    """The sources' addresses; newer answers list them as search results only."""
    listed = answer.get("citations")
    if not listed:
        results = answer.get("search_results")
        listed = [item.get("url") for item in results if isinstance(item, dict)] if isinstance(results, list) else []
    return tuple(url for url in listed if isinstance(url, str)) if isinstance(listed, list) else ()


def _cost(usage: Body) -> Decimal | None:
    """What the provider says the call cost. Not readable means not stated: the answer is good, and can be priced."""
    stated = usage.get("cost")
    total = stated.get("total_cost") if isinstance(stated, dict) else None
    if isinstance(total, bool) or not isinstance(total, (int, Decimal)) or total < 0:
        return None
    return Decimal(total)


class PerplexityProvider(CompletionProvider):
    """Perplexity at `access.base_url`, which `/chat/completions` is added to."""

    name = "perplexity"

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        base = access.base_url.rstrip("/")
        self._url = base + "/chat/completions"
        self._free_url = base + "/v1/async/sonar"
        self._client = httpx.AsyncClient(
            headers={"content-type": "application/json"},
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE
            ),
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
        )

    def _to_body(self, request: CompletionRequest, model: str) -> Body:
        return to_body(request, model)

    def _to_answer(self, raw: bytes) -> Answer:
        return to_answer(raw)

    async def _post(self, content: bytes, headers: Headers) -> Received:
        return _received(await self._client.post(self._url, content=content, headers=headers))

    async def _get(self, headers: Headers) -> Received:
        """Perplexity has no list of models. The list of one's asynchronous jobs is free as well, and needs a key.

        Source: docs.perplexity.ai, "List Async Chat Completions".
        """
        return _received(await self._client.get(self._free_url, headers=headers))

    def _streamed(self, request: CompletionRequest) -> ChatStream:
        return ChatStream(read_exact_object, answer_of, estimate_tokens(request))

    async def _open(self, content: bytes, headers: Headers) -> httpx.Response:
        request = self._client.build_request("POST", self._url, content=content, headers=headers)
        response = await self._client.send(request, stream=True)
        if not response.is_success:
            try:
                said = await response.aread()
            finally:
                await response.aclose()
            raise _refused(response, said)
        return response

    async def close(self) -> None:
        await self._client.aclose()


def _received(response: httpx.Response) -> Received:
    if not response.is_success:
        raise _refused(response, response.content)
    return Received(response.content, response.headers)


def _refused(response: httpx.Response, said: bytes) -> HttpStatusError:
    failure = from_status(response.status_code, response.headers, _parsed(said))
    return HttpStatusError(failure, response.status_code)


def _parsed(content: bytes) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
