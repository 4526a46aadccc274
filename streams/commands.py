"""Dispatch commands as records: where a command goes, and what its lane must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import orjson

from schemas.base import Priority
from schemas.codec import Headers, event_headers, header
from schemas.codec import encode as encode_event
from schemas.internal import DispatchCommand
from schemas.request import CommonRequest
from streams.lifecycle import request_key
from streams.records import Record
from streams.tokens import reserved_tokens
from streams.topology import Lane, Topology, dispatch_topic

PLACE_HEADER = "spillway-place"


#: How often a request goes back to providers that have passed it on: each time costs a record and a row per provider.
MOST_RETURNS = 3
#: The reason why a lane passes one on that goes back.
GONE_BACK = "gone_back"


@dataclass(frozen=True, slots=True)
class Place:
    """What a lane must know of a command to give it its turn, without decoding it: thousands may wait.

    `deadline` is in seconds since 1970, `tokens` what its call reserves; `attempt` is the number of its next attempt,
    which must not be made before `not_before`. At the last provider of its route, `back` are those that it may go back
    to: they have passed it on without a call.
    """

    key: str
    workspace: str
    priority: Priority
    deadline: float
    tokens: int
    attempt: int
    has_fallback: bool
    not_before: float = 0.0
    back: tuple[str, ...] = ()

    def encode(self) -> bytes:
        told = [self.key, self.workspace, self.priority, self.deadline, self.tokens, self.attempt, self.has_fallback]
        more = [self.not_before, self.back] if self.back else [self.not_before] if self.not_before else []
        return orjson.dumps([*told, *more])

    @classmethod
    def read(cls, headers: Headers) -> Place | None:
        """The place in a record's headers; None where there is none, or none that can be read."""
        try:
            key, workspace, priority, deadline, tokens, attempt, fallback, *more = orjson.loads(
                header(headers, PLACE_HEADER) or b""
            )
            told = key, workspace, Priority(priority), float(deadline), int(tokens), int(attempt), bool(fallback)
            # An older version tells less, a newer one may tell more.
            not_before, back = (*more, *(0.0, ())[len(more) :])[:2]
            return cls(*told, float(not_before), tuple(map(str, back)))
        except (ValueError, TypeError):
            return None

    @classmethod
    def of(cls, command: DispatchCommand) -> Place:
        admitted = command.admitted
        return cls(
            key=request_key(admitted.workspace_id, admitted.request_id),
            workspace=admitted.workspace_id,
            priority=admitted.request.priority,
            deadline=admitted.deadline.timestamp(),
            tokens=reserved_tokens(admitted.request, command.route[0] if command.route else ""),
            attempt=command.next_attempt,
            has_fallback=len(command.route) > 1,
            not_before=command.not_before.timestamp() if command.not_before else 0.0,
            back=command.passed_by if len(command.route) == 1 and command.returns < MOST_RETURNS else (),
        )


@dataclass(frozen=True)
class Router:
    """Finds a command's lane. `model_of` says which model a provider would answer a request with."""

    topology: Topology
    model_of: Callable[[str, CommonRequest], str]

    def lane(self, command: DispatchCommand) -> Lane:
        return self.lane_at(
            command.provider, command.admitted.request, command.admitted.workspace_id, command.admitted.request_id
        )

    def lane_at(self, provider: str, request: CommonRequest, workspace_id: str, request_id: str) -> Lane:
        """The lane of a request at a provider."""
        return self.topology.lane(provider, self.model_of(provider, request), workspace_id, request_id)

    def record(self, command: DispatchCommand, now: datetime) -> Record:
        """The command on its lane's partition."""
        admitted = command.admitted
        lane = self.lane(command)
        headers = event_headers(
            event_id=f"{admitted.request_id}/{command.next_attempt}",
            event_type=command.ce_type,
            workspace_id=admitted.workspace_id,
            time=now,
            traceparent=admitted.traceparent,
        )
        place = (PLACE_HEADER, Place.of(command).encode())
        topic = dispatch_topic(command.provider)
        return Record(topic, lane.name.encode(), encode_event(command), (*headers, place), lane.partition)
