"""Going back to an older version: a newer one's events are read, without the fields that this one does not know."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

import schemas
from schemas.alert import BudgetAlert, BudgetTouched, SpendAnomaly, WorkspaceSpend
from schemas.api_key import ApiKey
from schemas.base import Event
from schemas.budget import BudgetChange, BudgetState
from schemas.cancellation import Cancellation
from schemas.chunk import Chunk
from schemas.codec import decode, encode
from schemas.control import LaneState, LimitChange, LimitState, ModeChange
from schemas.internal import AttemptReport, DispatchCommand
from schemas.request import AdmittedRequest, CommonRequest, CompletionRequest, EmbeddingRequest, SearchRequest
from schemas.response import AttemptSummary, Response
from schemas.usage import Tokens, UsageEvent

AT = "2026-11-30T12:00:00Z"
WHO: dict[str, Any] = {"request_id": "r-1", "workspace_id": "acme"}
USAGE = UsageEvent(
    **WHO,
    attempt=1,
    provider="openai",
    model="m-1",
    outcome="succeeded",
    requested_at=AT,
    started_at=AT,
    tokens=Tokens(prompt_tokens=3),
)
RESPONSE = Response(
    **WHO,
    status="succeeded",
    answered_at=AT,
    attempts=(AttemptSummary(attempt=1, provider="openai", model="m-1", outcome="succeeded", cost="0.5"),),
)
COMMAND = DispatchCommand(
    admitted=AdmittedRequest(**WHO, request=CompletionRequest(prompt="why"), admitted_at=AT, deadline=AT),
    route=("openai",),
)
STATE = LimitState(used=1, limit=60)
EVENTS: tuple[Event, ...] = (
    USAGE,
    RESPONSE,
    COMMAND,
    AttemptReport(**WHO, follow="answer", usage=USAGE, response=RESPONSE, command=COMMAND),
    CompletionRequest(prompt="why", metadata={"k": "v"}),
    EmbeddingRequest(kind="embedding", input=("one", "two")),
    SearchRequest(kind="search", query="why"),
    Chunk(**WHO, attempt=1, index=0, at=AT, content="hel"),
    Cancellation(**WHO),
    LimitChange(target="openai", rpm=60),
    ModeChange(target="openai", mode="paused"),
    LaneState(lane="openai/0", provider="openai", rpm=STATE, rph=STATE, tpm=STATE, tph=STATE, at=AT),
    BudgetChange(workspace_id="acme", amount="5"),
    BudgetState(
        workspace_id="acme",
        month="2026-11",
        limit="5",
        action="alert",
        spent="1",
        reserved="0",
        open_requests=0,
        at=AT,
    ),
    BudgetTouched(workspace_id="acme", month="2026-11"),
    WorkspaceSpend(workspace_id="acme", month="2026-11", spent="1"),
    BudgetAlert(
        kind="ai.budget.alert",
        workspace_id="acme",
        month="2026-11",
        threshold=80,
        spent="4",
        budget="5",
        percent=80,
        observed_at=AT,
    ),
    SpendAnomaly(workspace_id="acme", month="2026-11", hour=AT, spent="4", usual="1", budget="5", observed_at=AT),
    ApiKey(key_id="0123456789ab", sha256="0" * 64, workspaces=("acme",), created_at=AT),
)
#: Only what its kinds have in common.
ABSTRACT = {CommonRequest}


def kinds(of: type[Event] = Event) -> Iterator[type[Event]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def newer(body: Any) -> Any:
    """The same with a field more in each object, but for those whose names are their users'."""
    if isinstance(body, list):
        return [newer(each) for each in body]
    if not isinstance(body, dict):
        return body
    users = {"metadata", "provider_options"}
    return {name: value if name in users else newer(value) for name, value in body.items()} | {"a_new_field": [1]}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_of_a_newer_version_is_read(event: Event) -> None:
    told = orjson.dumps(newer(orjson.loads(encode(event))))
    assert decode(type(event), told) == event


def test_every_kind_of_event_is_among_these() -> None:
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    ours = {kind for kind in kinds() if kind.__module__.startswith("schemas.")}
    assert ours - ABSTRACT == {type(event) for event in EVENTS}
