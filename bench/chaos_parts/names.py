"""What the parts of a round agree on: names, prices, budgets. Written down here, and not taken from the product."""

from __future__ import annotations

from decimal import Decimal

PARTITIONS = 6
PROVIDERS = ("claude", "openai", "local")
#: The topic of streamed answers.
REPLIES = "chaos.replies"
WORKSPACES = [f"w{number}" for number in range(18)]
#: Budgets in dollars: those that refuse, and those that only tell.
TIGHT = {f"tight{number}": amount for number, amount in enumerate(("0.004", "0.006", "0.010", "0.015"))}
ALERTING = {"al0": "0.010", "al1": "0.030"}
#: Dollars for a million tokens of a prompt, and of an answer.
PRICES = {
    "claude": (Decimal("2.00"), Decimal("6.00")),
    "openai": (Decimal("1.50"), Decimal("4.00")),
    "local": (Decimal("1.00"), Decimal("3.00")),
}
#: The workers' consumer groups, and the topic of timers, which is never read to its end.
GROUPS = ("spillway", "spillway-ledger")
TICKS = "ai.ticks"
CHANGELOG = "spillway-requests-changelog"
#: A row of a changelog that says who owns its partition. It belongs to no request.
OWNER_ROW = "__faust_owner"


def cost(provider: str, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """Dollars."""
    prompt, completion = PRICES[provider]
    return (prompt * prompt_tokens + completion * completion_tokens) / Decimal(1_000_000)
