"""What the streams of all providers have in common.

A stream is a success only when the provider has said that it is complete: one that ends before is a failure that may
have been billed, however whole its text may look.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import httpx
import httpx2
from anthropic import AsyncStream

from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta

#: A response whose body has not been read yet.
OpenResponse = httpx.Response | httpx2.Response


class StreamedAnswer(Protocol):
    """Puts the events of one stream together again. Pure."""

    @property
    def has_begun(self) -> bool:
        """Whether the provider has begun to answer: from here on the call may be billed."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the provider has said that this is all."""
        ...

    def take(self, event: str | None, data: str) -> Delta | None:
        """One server-sent event; the piece of the answer in it, if there is one.

        Raises MalformedAnswerError, and StreamError for the provider's own word that it has failed.
        """
        ...

    def answer(self) -> Answer:
        """The whole answer; raises MalformedAnswerError."""
        ...

    def used(self) -> Tokens | None:
        """What it has used so far; None if nobody has said anything."""
        ...


class StreamError(Exception):
    """The provider says inside the stream that it has failed; `body` is its error object."""

    def __init__(self, body: Mapping[str, object]) -> None:
        super().__init__("the stream reports an error")
        self.body = body


async def events(response: OpenResponse) -> AsyncIterator[tuple[str | None, str]]:
    """Name and data of each server-sent event. The SDK's decoder asks a response for its bytes, and nothing else."""
    async for event in AsyncStream.raw_events(response):  # type: ignore[arg-type]
        if event.data:
            yield event.event, event.data
