"""Answers that more than one request gets: those that are kept, and those that identical requests wait for. Pure.

Both are of one workspace alone, and in its partition. What makes two requests identical is what they ask for: not who
asks or how urgently, and not how the answer is delivered.

A **flight** is a call that several identical requests wait for. Its leader is called; the others have joined it. When
the leader has its answer, or fails, they get the same. When it is cancelled or its deadline passes, the next one leads.
A request joins only a leader that is as urgent as itself and whose deadline is not after its own, so that waiting never
costs it its answer, nor its place.

A flight **lands** with the report that ends its leader. That is one row, written with the leader's own end; from then
on everybody aboard is closed by this report, and they are told one piece after another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from schemas.base import Priority
from schemas.chunk import Chunk
from schemas.codec import decode
from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest, CommonRequest, CompletionRequest
from schemas.response import Response, Status, Usage

#: What says nothing about the answer that is wanted.
NOT_ASKED_FOR = {
    "schema_version",
    "request_id",
    "workspace_id",
    "user_id",
    "purpose",
    "cache",
    "priority",
    "deadline",
    "reply_to",
    "metadata",
    "stream",
    "prompt",
}

ANSWERS = "@answer/"
FLIGHTS = "@flight/"
JOINED = "@joined/"
LANDED = "@landed/"


@dataclass(frozen=True)
class CachePolicy:
    """What the deployment allows. `ttl` is in seconds, for requests that name none; `max_bytes` is of one encoded
    response, `max_entries` the number of answers of one workspace.
    """

    enabled: bool = True
    ttl: int = 3_600
    max_bytes: int = 256 * 1024
    max_entries: int = 10_000

    def key(self, request: CommonRequest) -> str | None:
        """What a request's answer is kept under; None if it wants a fresh one, and gives none away."""
        if not (self.enabled and request.cache.enabled):
            return None
        return meaning(request)


NOTHING_IS_KEPT = CachePolicy(enabled=False)


def meaning(request: CommonRequest) -> str:
    """The same for two requests that ask for the same, or name the same key of their own."""
    if request.cache.key is not None:
        asked: dict[str, Any] = {"kind": request.kind, "key": request.cache.key}
    else:
        asked = request.model_dump(mode="json", exclude=NOT_ASKED_FOR, exclude_none=True)
        if isinstance(request, CompletionRequest):
            turns = request.conversation()
            asked["messages"] = [turn.model_dump(mode="json", exclude_none=True) for turn in turns]
    written = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(written, digest_size=16).hexdigest()


# Kept answers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that is kept: the encoded response to the request `leader`. Times are seconds since 1970."""

    leader: str
    kept_at: float
    expires_at: float
    response: bytes

    def is_fresh(self, now: float, ttl: int | None) -> bool:
        """Whether it may still be given, to a request that wants no older one than `ttl` seconds."""
        return now < self.expires_at and (ttl is None or now - self.kept_at < ttl)


def served(answer: Response, admitted: AdmittedRequest, at: datetime) -> Response:
    """Another request's answer for this one: it costs nothing, and says what it saved."""
    saved = answer.attempts[-1].cost if answer.status is Status.SUCCEEDED and answer.attempts else None
    return answer.model_copy(
        update={
            "request_id": admitted.request_id,
            "workspace_id": admitted.workspace_id,
            "cached": answer.status is Status.SUCCEEDED,
            "saved": saved,
            "usage": Usage(),
            "estimated_cost": None,
            "time_to_first_chunk": None,
            "attempts": (),
            "latency": max((at - admitted.admitted_at).total_seconds(), 0.0),
            "metadata": admitted.request.metadata,
            "user_id": admitted.request.user_id,
            "purpose": admitted.request.purpose,
            "requested_at": admitted.admitted_at,
            "month": admitted.month,
            "answered_at": at,
        }
    )


def only_chunk(response: Response, admitted: AdmittedRequest) -> Chunk | None:
    """The whole of an answer that was not written for this request, for one who reads chunks; None for who does not."""
    wants = getattr(admitted.request, "stream", False) and admitted.reply is not None
    if not wants or response.status is not Status.SUCCEEDED:
        return None
    return Chunk(
        request_id=response.request_id,
        workspace_id=response.workspace_id,
        attempt=1,
        index=0,
        content=response.content or "",
        tool_calls=tuple({"index": place, **call} for place, call in enumerate(response.tool_calls)),
        at=response.answered_at,
    )


# Flights -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flight:
    """Who leads, and until when it is answered at the latest (seconds since 1970).

    `number` is the offset of the request that began it, `led_from` that of the report that made this one the leader.
    """

    leader: str
    number: int
    deadline: float
    led_from: int | None = None
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Joined:
    """A request that waits for its flight's leader: its deadline (seconds since 1970), and its own command, should it
    have to lead.
    """

    deadline: float
    command: bytes

    def decoded(self) -> DispatchCommand:
        return decode(DispatchCommand, self.command)


@dataclass(frozen=True, slots=True)
class Landed:
    """A flight that has landed with the report at the offset `by`: those aboard whose deadline is not after `until`
    (None: all) are closed by it, at the time `at`. The row is there until all of them are told. Times are seconds since
    1970.
    """

    by: int
    at: float
    until: float | None = None

    def has_aboard(self, deadline: float) -> bool:
        return self.until is None or deadline <= self.until


def answer_key(workspace_id: str, key: str, leader: str) -> str:
    return f"{ANSWERS}{workspace_id}/{key}/{leader}"


def answers_prefix(workspace_id: str, key: str = "") -> str:
    return f"{ANSWERS}{workspace_id}/{key}/" if key else f"{ANSWERS}{workspace_id}/"


def flight_key(workspace_id: str, key: str) -> str:
    return f"{FLIGHTS}{workspace_id}/{key}"


def joined_key(workspace_id: str, key: str, flight: int, request_id: str) -> str:
    return f"{joined_prefix(workspace_id, key, flight)}{request_id}"


def joined_prefix(workspace_id: str, key: str, flight: int) -> str:
    return f"{JOINED}{workspace_id}/{key}/{flight}/"


def landed_key(workspace_id: str, key: str, flight: int, by: int) -> str:
    return f"{landed_prefix(workspace_id, key, flight)}{by}"


def landed_prefix(workspace_id: str, key: str, flight: int) -> str:
    return f"{LANDED}{workspace_id}/{key}/{flight}/"
