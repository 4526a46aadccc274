"""Perplexity through httpx, by one of its two interfaces: AI_PERPLEXITY_INTERFACE.

`agent`: completions by the Agent API, searches by the Search API. `sonar`: both by the older chat completions, which
Perplexity itself has ended, and which others still speak.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import orjson

from app.providers import agent_wire, perplexity_search_wire, perplexity_wire
from app.providers.agent_stream import AgentStream
from app.providers.base import Access, Exchange, Headers, Received, VendorProvider
from app.providers.chat_stream import ChatStream
from app.providers.errors import HttpStatusError, from_status
from app.providers.stream import StreamedAnswer
from app.providers.translation import Translation
from app.providers.transport import CONNECT_TIMEOUT, KEEPALIVE, MAX_CONNECTIONS, ask_at_the_wire
from schemas.request import CommonRequest, CompletionRequest, SearchRequest
from streams.tokens import estimate_tokens

BASE_URL = "https://api.perplexity.ai"
AGENT = "agent"


class PerplexityProvider(VendorProvider):
    """Perplexity at `access.base_url`."""

    name = "perplexity"
    kinds = frozenset({"completion", "search"})

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._base = access.base_url.rstrip("/")
        self._is_agent = access.interface == AGENT
        self._client = httpx.AsyncClient(
            headers={"content-type": "application/json"},
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE
            ),
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            event_hooks={"request": [ask_at_the_wire]},
        )

    def model_for(self, request: CommonRequest) -> str:
        if self._is_agent and isinstance(request, SearchRequest):
            return perplexity_search_wire.MODEL
        return super().model_for(request)

    def _exchanges(self, request: CommonRequest, model: str) -> Sequence[Exchange]:
        if isinstance(request, SearchRequest):
            return (self._search(request, model),)
        assert isinstance(request, CompletionRequest)  # noqa: S101 - see `kinds`
        wire = agent_wire if self._is_agent else perplexity_wire
        translation = Translation()
        body = wire.to_body(request, model, translation)
        return (Exchange(wire.PATH, body, wire.to_answer, translation=translation),)

    def _search(self, request: SearchRequest, model: str) -> Exchange:
        if self._is_agent:
            wire = perplexity_search_wire
            return Exchange(wire.PATH, wire.to_body(request), wire.to_answer)
        body = perplexity_wire.search_body(request, model)
        return Exchange(perplexity_wire.PATH, body, perplexity_wire.to_answer)

    async def _post(self, path: str, content: bytes, headers: Headers) -> Received:
        return _received(await self._client.post(self._base + path, content=content, headers=headers))

    async def _get(self, headers: Headers) -> Received:
        """Perplexity has no list of models. The list of one's asynchronous jobs is free as well, and needs a key.

        Source: docs.perplexity.ai, "List Async Chat Completions".
        """
        return _received(await self._client.get(self._base + "/v1/async/sonar", headers=headers))

    def _streamed(self, request: CompletionRequest) -> StreamedAnswer:
        if self._is_agent:
            return AgentStream(estimate_tokens(request))
        return ChatStream(perplexity_wire.answer_of, estimate_tokens(request), exactly=True)

    async def _open(self, path: str, content: bytes, headers: Headers) -> httpx.Response:
        request = self._client.build_request("POST", self._base + path, content=content, headers=headers)
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
    """The JSON, or the text that came instead, as the SDKs give it."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")
