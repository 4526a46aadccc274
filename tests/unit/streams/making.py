"""Values that many tests of the stages need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest, CompletionRequest, ReplyAddress
from schemas.response import AttemptSummary
from schemas.usage import Outcome, Tokens
from streams.dispatch.decide import Attempt
from streams.dispatch.ports import Answer

NOW = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
ESTIMATE = Decimal("0.5")
REPLY = ReplyAddress(topic="my.replies", correlation_id="c-1", dialect="spring", partition=2)


def admitted(*, within: float = 600.0, **fields: Any) -> AdmittedRequest:
    """A request admitted at NOW, with so many seconds until its deadline."""
    values: dict[str, Any] = {
        "request": CompletionRequest(prompt="hi", user_id="u-1", purpose="test", metadata={"k": "v"}),
        "request_id": "r-1",
        "workspace_id": "acme",
        "admitted_at": NOW,
        "deadline": NOW + timedelta(seconds=within),
        "reply": REPLY,
        "traceparent": "00-abc-def-01",
    }
    return AdmittedRequest(**(values | fields))


def command(*route: str, attempts: tuple[AttemptSummary, ...] = (), within: float = 600.0) -> DispatchCommand:
    return DispatchCommand(admitted=admitted(within=within), route=route or ("claude", "openai"), attempts=attempts)


def summary(number: int, provider: str = "claude", cost: str = "0") -> AttemptSummary:
    return AttemptSummary(attempt=number, provider=provider, model="m", outcome=Outcome.FAILED, cost=Decimal(cost))


def attempt(to_do: DispatchCommand | None = None, *, estimate: Decimal | None = ESTIMATE) -> Attempt:
    return Attempt(to_do or command(), "m-1", "claude/0", NOW, estimate)


def answer(**fields: Any) -> Answer:
    values: dict[str, Any] = {
        "content": "hello",
        "model": "m-1-exact",
        "finish_reason": "stop",
        "tokens": Tokens(prompt_tokens=3, completion_tokens=5, cached_tokens=1),
    }
    return Answer(**(values | fields))
