"""What the page is made from in tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.dlq.letters import Letter, Place
from app.settings import load_settings
from app.topics import build_topology
from app.web.facts import Answered, Flow, HourCost, Ledger, Minute, Seen, Streams, Tried
from schemas.budget import BudgetAction, BudgetChange, BudgetState
from schemas.codec import encode
from schemas.control import LaneState, LimitState
from schemas.dead_letter import Origin
from streams.budgets import Budget, BudgetBook

NOW = datetime(2026, 11, 25, 15, 4, 5, tzinfo=UTC)
HOSTILE = "</script><script>alert('x')</script>\"'&\u202e\x00"
LANES = tuple(lane for name in ("claude", "openai") for lane in build_topology(load_settings()).lanes_of(name))


def lane_state(lane: str = "claude/0", **fields: Any) -> LaneState:
    limits = {name: LimitState(used=30, limit=50) for name in ("rpm", "rph", "tpm")}
    return LaneState(**{"lane": lane, "provider": "claude", "at": NOW, **limits, "tph": LimitState(used=7), **fields})


def tried(**fields: Any) -> Tried:
    values: dict[str, Any] = {
        "number": 1,
        "provider": "claude",
        "model": "m",
        "lane": "claude/0",
        "outcome": "succeeded",
        "error_code": None,
        "tokens": 15,
        "cost": Decimal("0.5"),
        "cost_source": "computed",
        "started_at": NOW,
        "latency": 1.25,
    }
    return Tried(**{**values, **fields})


def answered(**fields: Any) -> Answered:
    values: dict[str, Any] = {
        "workspace": "acme",
        "request_id": "r-1",
        "kind": "completion",
        "status": "succeeded",
        "error_code": None,
        "provider": "claude",
        "model": "m",
        "purpose": "chat",
        "cached": False,
        "tokens": 15,
        "cost": Decimal("0.5"),
        "saved": Decimal(0),
        "requested_at": NOW,
        "answered_at": NOW,
        "latency": 1.5,
        "tried": (tried(),),
    }
    return Answered(**{**values, **fields})


def letter(**fields: Any) -> Letter:
    values: dict[str, Any] = {
        "place": Place(3, 17),
        "buried_at": int(NOW.timestamp() * 1000),
        "code": "not_json",
        "message": "The value is not JSON.",
        "origin": Origin("ai.requests", 1, 2, 0),
        "size": 9,
    }
    return Letter(**{**values, **fields})


def cost(model: str = "m", dollars: str = "0.5", hours_ago: int = 0, provider: str = "claude") -> HourCost:
    hour = NOW.replace(minute=0, second=0) - timedelta(hours=hours_ago)
    return HourCost(hour, provider, model, 2, 30, Decimal(dollars))


def book(workspace: str = "acme", amount: str = "10") -> BudgetBook:
    found = BudgetBook(Budget(Decimal(1000)))
    change = BudgetChange(workspace_id=workspace, amount=Decimal(amount), action=BudgetAction.REFUSE)
    found.hear(workspace.encode(), encode(change))
    return found


def budget_state(workspace: str = "acme", spent: str = "8", reserved: str = "1") -> BudgetState:
    return BudgetState(
        workspace_id=workspace,
        month="2026-11",
        limit=Decimal(10),
        action=BudgetAction.REFUSE,
        spent=Decimal(spent),
        reserved=Decimal(reserved),
        open_requests=1,
        at=NOW,
    )


def flow() -> Flow:
    minutes = tuple(Minute(NOW - timedelta(minutes=back), 8, 2, 1) for back in (1, 0))
    return Flow(minutes, answered=18, succeeded=16, cached=4, failed=2, p50=0.25, p95=2.5)


def streams(**fields: Any) -> Streams:
    state = budget_state()
    values: dict[str, Any] = {
        "book": book(),
        "lanes": {"claude/0": lane_state()},
        "states": {state.key: state},
        "letters": (letter(),),
        "waiting": {"admission": 3, "settlement": 0, "the ledger": 12},
        "lane_backlog": {"claude/0": 1234},
        "arriving": 77,
        "at": NOW,
    }
    return Streams(**{**values, **fields})


def ledger(**fields: Any) -> Ledger:
    return Ledger(**{"flow": flow(), "costs": (cost(),), "latest": (answered(),), "at": NOW, **fields})


def seen(of_streams: Streams | None = None, of_ledger: Ledger | None = None) -> Seen:
    return Seen(NOW, of_streams or streams(), of_ledger or ledger(), LANES)


def nothing() -> Seen:
    """Before anybody has answered."""
    return Seen(NOW, Streams(BudgetBook(Budget(Decimal(1000)))), Ledger(), LANES)
