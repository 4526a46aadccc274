"""What the stages tell whoever traces: a port like `streams/metrics.py`, each word said at one or two places.

A trace is continued by the header `traceparent` (W3C Trace Context). Every record of a request that a stage sends
carries the context of its own sending, so that the next stage's span has that for its parent, in whatever process it
runs. No state is kept for a trace: what must outlive a process is in the records. docs/decisions/0008 says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from schemas.codec import STRUCTURED_CONTENT_TYPE, Headers, header
from schemas.usage import Tokens

if TYPE_CHECKING:
    from asyncio import Future
    from types import TracebackType

    from streams.records import Record
    from streams.runtime.incoming import Incoming

TRACEPARENT = "traceparent"
#: Characters of one, and of a `tracestate`; those of the version that there is have 55. What is longer is no trace's.
LONGEST_CONTEXT = 512

#: What a span may be told besides ids: counts, names of a bounded set, yes or no. Never a text of a request.
Fact = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of a provider that is about to be made."""

    provider: str
    kind: str
    model: str
    lane: str
    attempt: int
    max_tokens: int | None = None
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class CallEnded:
    """What came of it. `error` is a code; `first_chunk` the seconds until the first piece of a streamed answer."""

    model: str | None = None
    finish_reason: str | None = None
    tokens: Tokens | None = None
    error: str | None = None
    in_doubt: bool = False
    first_chunk: float | None = None


class CallSpan(Protocol):
    def ended(self, end: CallEnded) -> None: ...


class Sending(Protocol):
    """A record on its way to the broker. As a context it covers handing it to the producer."""

    @property
    def record(self) -> Record:
        """The record with the context that its reader shall continue."""
        ...

    def until(self, sent: Future[Any]) -> None:
        """The sending ends when this is done."""
        ...

    def __enter__(self) -> Sending: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Traces(Protocol):
    """No method raises; those that return a context cover what happens in it."""

    def processing(self, incoming: Incoming) -> AbstractContextManager[object]:
        """A stage works on a record. What is said of it in between belongs to this span. Said by the event loop."""
        ...

    def about(self, workspace_id: str, request_id: str, **facts: Fact) -> None:
        """Which request it is, and what else there is to know of it. Said by every stage."""
        ...

    def here(self, told: str | None) -> str | None:
        """What a request shall carry along from here on; `told` is what it came with. Said by admission."""
        ...

    def follows(self, other: str | None) -> None:
        """It depends on another request, which came with this. Said by admission."""
        ...

    def waited(self, incoming: Incoming, lane: str) -> None:
        """A command has had to wait for its turn, since it was published. Said by dispatch."""
        ...

    def waiting(self, lane: str) -> AbstractContextManager[object]:
        """It waits in the lane for its next attempt. Said by dispatch."""
        ...

    def calling(self, begun: CallBegun) -> AbstractContextManager[CallSpan]:
        """A provider is called. Said by dispatch."""
        ...

    def sending(self, record: Record) -> Sending | None:
        """A record goes out; None where it belongs to no trace. Said by the outbox."""
        ...

    def buried(self, code: str) -> None:
        """A dead letter goes out. Said by the outbox."""
        ...

    def stored(self, records: Sequence[Any], since: float) -> None:
        """Kafka's records are rows of the ledger now; their batch began at `since` (seconds). Said by the sinks."""
        ...


class _NoCall:
    def ended(self, end: CallEnded) -> None: ...


_NOTHING = nullcontext()
_NO_CALL = nullcontext(_NoCall())


class NoTraces:
    """Nobody traces: what a request came with is passed on as it is."""

    def processing(self, incoming: Incoming) -> AbstractContextManager[object]:  # noqa: ARG002
        return _NOTHING

    def about(self, workspace_id: str, request_id: str, **facts: Fact) -> None: ...

    def here(self, told: str | None) -> str | None:
        return told

    def follows(self, other: str | None) -> None: ...

    def waited(self, incoming: Incoming, lane: str) -> None: ...

    def waiting(self, lane: str) -> AbstractContextManager[object]:  # noqa: ARG002
        return _NOTHING

    def calling(self, begun: CallBegun) -> AbstractContextManager[CallSpan]:  # noqa: ARG002
        return _NO_CALL

    def sending(self, record: Record) -> Sending | None:  # noqa: ARG002
        return None

    def buried(self, code: str) -> None: ...

    def stored(self, records: Sequence[Any], since: float) -> None: ...


NO_TRACES = NoTraces()


def now() -> float:
    """Seconds since 1970, for spans."""
    return time.time()


def traceparent_in(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> str | None:
    """The traceparent of a record: its header, or that of a CloudEvent in structured mode."""
    told = header(headers, TRACEPARENT)
    if told is not None:
        return told.decode("ascii", errors="replace")
    if value is None or not (header(headers, "content-type") or b"").lower().startswith(STRUCTURED_CONTENT_TYPE):
        return None
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    inside = found.get(TRACEPARENT) if isinstance(found, dict) else None
    return inside if isinstance(inside, str) else None


def with_traceparent(headers: Headers, traceparent: str, tracestate: str) -> Headers:
    """The headers with this context, and no other."""
    others = tuple(pair for pair in headers if pair[0].lower() not in (TRACEPARENT, "tracestate"))
    state = (("tracestate", tracestate.encode()),) if tracestate else ()
    return (*others, (TRACEPARENT, traceparent.encode()), *state)
