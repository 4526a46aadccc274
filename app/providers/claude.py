"""Claude's Messages through the `anthropic` SDK; its wire is in `claude_wire.py`.

As in `openai.py`, the SDK's general `post` sends a body that is already encoded, and nothing is retried here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import httpx2
from anthropic import AsyncAnthropic, AsyncStream, DefaultAioHttpClient, Omit

from app.providers.base import Access, Exchange, Headers, Received, VendorProvider
from app.providers.claude_stream import ClaudeStream
from app.providers.claude_wire import to_answer, to_body, version_headers
from app.providers.keys import Key
from app.providers.translation import Translation
from app.providers.transport import KEY_OF_THE_CALL, TIMEOUT, UNTOLD, sdk_client
from schemas.request import CommonRequest, CompletionRequest

BASE_URL = "https://api.anthropic.com"

_UNTOLD: Mapping[str, Omit] = dict.fromkeys(UNTOLD, Omit())


class ClaudeProvider(VendorProvider):
    """Claude at `access.base_url`, which `/v1/messages` is added to."""

    name = "claude"

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._client = AsyncAnthropic(
            api_key=KEY_OF_THE_CALL,
            base_url=access.base_url,
            max_retries=0,
            timeout=TIMEOUT,
            # Spillway traces its calls itself, and the SDK's spans could be set to hold prompts.
            open_telemetry=False,
            http_client=sdk_client(DefaultAioHttpClient),
        )

    def _exchanges(self, request: CommonRequest, model: str) -> Sequence[Exchange]:
        assert isinstance(request, CompletionRequest)  # noqa: S101 - see `kinds`
        translation = Translation()
        body = to_body(request, model, translation)
        return (Exchange("/v1/messages", body, to_answer, version_headers(body), translation),)

    def _auth(self, key: Key | None) -> Headers:
        """As the SDK shows a key, which it has changed before."""
        return self._client.with_options(api_key=key.value).auth_headers if key is not None else {}

    def _headers(self, headers: Headers) -> Mapping[str, str | Omit]:
        """Those of a call, with what the SDK shall not add."""
        return {**_UNTOLD, **headers}

    async def _post(self, path: str, content: bytes, headers: Headers) -> Received:
        response = await self._client.post(
            path, cast_to=httpx2.Response, content=content, options={"headers": self._headers(headers)}
        )
        return Received(response.content, response.headers)

    async def _get(self, headers: Headers) -> Received:
        response = await self._client.get(
            "/v1/models", cast_to=httpx2.Response, options={"headers": self._headers(headers)}
        )
        return Received(response.content, response.headers)

    def _streamed(self, request: CompletionRequest) -> ClaudeStream:  # noqa: ARG002 - Claude counts by itself
        return ClaudeStream()

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
