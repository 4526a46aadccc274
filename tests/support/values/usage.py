"""Usage events and price books for tests of money."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas.usage import Outcome, Tokens, UsageEvent
from tests.support.values.names import unique

NOVEMBER = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)


def usage(workspace: str = "w", **fields: Any) -> UsageEvent:
    """An attempt that has succeeded: a hundred tokens in, twenty out."""
    defaults: dict[str, Any] = {
        "request_id": unique("r"),
        "workspace_id": workspace,
        "attempt": 1,
        "provider": "openai",
        "model": "gpt-4o",
        "outcome": Outcome.SUCCEEDED,
        "tokens": Tokens(prompt_tokens=100, completion_tokens=20),
        "cost": Decimal("0.01"),
        "requested_at": NOVEMBER,
        "started_at": NOVEMBER,
        "lane": "openai/0",
    }
    return UsageEvent(**{**defaults, **fields})


class PerToken:
    """A price book with one price for every token of every model but `unheard-of`."""

    def __init__(self, dollars: str) -> None:
        self.dollars = Decimal(dollars)

    def cost(self, provider: str, model: str, tokens: Tokens, at: datetime) -> Decimal | None:  # noqa: ARG002
        return None if model == "unheard-of" else self.dollars * tokens.total_tokens

    def lacking(self, provider: str, model: str, tokens: Tokens, at: datetime) -> str | None:  # noqa: ARG002
        return "audio tokens" if tokens.audio_prompt_tokens else None
