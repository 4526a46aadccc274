"""A streamed answer put together again: in order, once, and anew where an attempt broke off. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.chunk import Chunk
from schemas.response import Response


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    `restarted`: the attempt before it broke off, and all pieces until now are void; the answer begins anew with this
    one. `tool_calls` are pieces of calls, to be put together by their `index`.
    """

    content: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    attempt: int = 1
    restarted: bool = False


class Assembler:
    """Chunks in, pieces out. What no chunk has brought, the response makes good."""

    def __init__(self) -> None:
        self._attempt = 0
        self._next = 0
        self._text: list[str] = []
        self._has_calls = False
        #: Pieces were handed on since the answer last began; and they are void, which nobody was told yet.
        self._is_begun = False
        self._is_void = False

    @property
    def text(self) -> str:
        return "".join(self._text)

    def take(self, chunk: Chunk) -> Piece | None:
        """None for a chunk that was there before, belongs to an attempt that is over, or comes after a gap."""
        if chunk.attempt > self._attempt:
            self._begin(chunk.attempt)
        if chunk.attempt != self._attempt or chunk.index != self._next:
            return None
        self._next += 1
        return self._piece(chunk.content, chunk.tool_calls)

    def finish(self, response: Response) -> Piece | None:
        """What is still missing when the response is there: all of an answer from the cache, for one.

        An answer that does not go on where the pieces stopped begins anew.
        """
        whole = response.content or ""
        if not whole.startswith(self.text):
            self._begin(max(len(response.attempts), 1))
        self._attempt = self._attempt or 1
        rest = whole.removeprefix(self.text)
        calls = tuple({"index": index, **call} for index, call in enumerate(response.tool_calls))
        missing = () if self._has_calls else calls
        return self._piece(rest, missing) if rest or missing or self._is_void else None

    def _piece(self, content: str, calls: tuple[dict[str, Any], ...]) -> Piece:
        self._text.append(content)
        self._has_calls = self._has_calls or bool(calls)
        restarted, self._is_void, self._is_begun = self._is_void, False, True
        return Piece(content, calls, self._attempt, restarted)

    def _begin(self, attempt: int) -> None:
        """Start anew; what was handed on until now is void."""
        self._attempt, self._next = attempt, 0
        self._text, self._has_calls = [], False
        self._is_void, self._is_begun = self._is_void or self._is_begun, False
