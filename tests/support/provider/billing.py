"""A provider that keeps its own bill: what each call was charged, by the attempt that made it. With faults that cost
nothing (429, 500, 529, no such model) and one that does: an answer that is billed and never arrives.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp import web

#: US dollars for a million tokens, in and out.
PRICES = {"claude": ("3", "15"), "openai": ("2.50", "10")}
#: Of a hundred calls, so many end like this.
FAULTS = {429: 4, 500: 5, 529: 4, 404: 3}
CUT = 2


@dataclass(frozen=True)
class Charge:
    """What one call was billed."""

    provider: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def cost(self) -> Decimal:
        """In US dollars, by hand: tokens times price."""
        into, out = map(Decimal, PRICES[self.provider])
        return (into * self.prompt_tokens + out * self.completion_tokens).scaleb(-6)


@dataclass
class Biller:
    """The provider's books. `bill` is by attempt id."""

    port: int = 0
    bill: dict[str, list[Charge]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    dice: random.Random = field(default_factory=lambda: random.Random(6))  # noqa: S311 - the same faults in every run

    def environment(self) -> dict[str, str]:
        base = f"http://127.0.0.1:{self.port}"
        return {
            "AI_CLAUDE_API_KEY": "billed",
            "AI_OPENAI_API_KEY": "billed",
            "AI_CLAUDE_BASE_URL": f"{base}/anthropic",
            "AI_OPENAI_BASE_URL": f"{base}/v1",
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        provider = "claude" if "anthropic" in request.path else "openai"
        body = await request.json()
        attempt = request.headers["X-Spillway-Attempt"]
        roll = self.dice.randrange(100)
        await asyncio.sleep(self.dice.uniform(0.01, 0.1))
        for status, share in FAULTS.items():
            if roll < share:
                self.ends[str(status)] += 1
                return web.json_response({"type": "error", "error": _error(status)}, status=status)
            roll -= share
        charge = Charge(provider, self.dice.randint(1, 5_000), self.dice.randint(1, 900))
        self.bill.setdefault(attempt, []).append(charge)
        if roll < CUT and request.transport is not None:
            self.ends["cut off"] += 1
            request.transport.abort()
        else:
            self.ends["answered"] += 1
        return web.json_response(_claude(body, charge) if provider == "claude" else _openai(body, charge))


def _error(status: int) -> dict[str, str]:
    kinds = {429: "rate_limit_error", 404: "not_found_error", 529: "overloaded_error"}
    return {"type": kinds.get(status, "api_error"), "message": "a planned fault"}


def _claude(body: dict[str, Any], charge: Charge) -> dict[str, Any]:
    usage = {"input_tokens": charge.prompt_tokens, "output_tokens": charge.completion_tokens}
    content = [{"type": "text", "text": "billed"}]
    kind = {"id": "msg", "type": "message", "role": "assistant", "model": body["model"]}
    return {**kind, "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


def _openai(body: dict[str, Any], charge: Charge) -> dict[str, Any]:
    into, out = charge.prompt_tokens, charge.completion_tokens
    usage = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
    message = {"role": "assistant", "content": "billed"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": choices,
        "usage": usage,
    }


@asynccontextmanager
async def billing() -> AsyncIterator[Biller]:
    """A running provider on a free port."""
    biller = Biller()
    app = web.Application()
    for path in ("/v1/chat/completions", "/anthropic/v1/messages"):
        app.router.add_post(path, biller.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    biller.port = runner.addresses[0][1]
    try:
        yield biller
    finally:
        await runner.cleanup()
