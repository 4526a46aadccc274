"""What the streams of all providers have in common.

A stream is a success only when the provider has said that it is complete: one that ends before is a failure that may
have been billed, however whole its text may look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import httpx
import httpx2

from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta

#: A response whose body has not been read yet.
OpenResponse = httpx.Response | httpx2.Response


class StreamedAnswer(Protocol):
    """Puts the events of one stream together again. Pure."""

    @property
    def is_complete(self) -> bool:
        """Whether the provider has said that this is all."""
        ...

    def take(self, event: str | None, data: str) -> Delta | None:
        """One server-sent event; the piece of the answer in it, if there is one.

        Raises MalformedAnswerError, and ReportedError for the provider's own word that it has failed.
        """
        ...

    def end(self, *, is_cut: bool = False) -> Delta | None:
        """What is left to be told when all events have come. `is_cut`: the last one, or the connection, broke off."""
        ...

    def answer(self) -> Answer:
        """The whole answer; raises MalformedAnswerError and ReportedError."""
        ...

    def used(self) -> Tokens | None:
        """What it has used so far: from here on the call may be billed. None if nobody has said anything."""
        ...


#: Makes what puts one stream together again.
NewStream = Callable[[], StreamedAnswer]
