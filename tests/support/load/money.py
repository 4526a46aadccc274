"""Rounds against a budget that refuses: one price for all requests, many at once, and a count of everything."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.settings import Settings
from schemas.budget import BudgetChange, BudgetState
from schemas.codec import decode, encode
from schemas.money import usd
from schemas.response import Response
from streams.topology import BUDGET_STATE, BUDGETS, RESPONSES
from tests.support.clock.months import in_one_month
from tests.support.clock.waiting import eventually
from tests.support.provider.instant import Provider
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES
from tests.support.values.names import unique

#: What each request costs, whatever its tokens: the estimate is the price.
PRICE = Decimal(1)


def priced(folder: Path) -> dict[str, str]:
    """The environment of workers that ask OpenAI alone, at one dollar a request."""
    file = folder / f"{unique('prices')}.toml"
    file.write_text(f'[prices.openai]\ninput_mtok = "0"\noutput_mtok = "0"\nrequest = "{PRICE}"\n')
    alone = {"AI_PRIMARY_PROVIDER": "openai", "AI_FALLBACK_PROVIDERS": "", "AI_MAX_IN_FLIGHT": "256"}
    return {**WIDE_LANES, **alone, "AI_SETTINGS_FILE": str(file)}


@dataclass
class BudgetRound:
    """What one round came to, in US dollars where it is money."""

    workspace: str
    limit: Decimal
    statuses: Counter[str] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)
    called: int = 0
    in_doubt: int = 0
    ledger: Decimal = Decimal(0)
    state: BudgetState | None = None
    #: The most that was ever said to be spent and reserved together.
    most: Decimal = Decimal(0)


async def set_budget(settings: Settings, change: BudgetChange) -> None:
    await publish(settings.kafka_bootstrap_servers, BUDGETS, [(change.workspace_id.encode(), encode(change))])


async def run_budget_round(
    settings: Settings,
    provider: Provider,
    *,
    requests: int,
    room_for: int,
    accident: Callable[[], None] | None = None,
    within: float = 120.0,
) -> BudgetRound:
    """So many requests at once of a new workspace with room for fewer; the accident happens while they are called."""
    await in_one_month(within)
    workspace = unique("budget")
    done = BudgetRound(workspace, room_for * PRICE)
    await set_budget(settings, BudgetChange(workspace_id=workspace, amount=done.limit, action="refuse"))
    servers = settings.kafka_bootstrap_servers
    prefix = unique("b")
    async with reading(servers, RESPONSES) as answers, reading(servers, BUDGET_STATE) as states:
        await publish(servers, "ai.requests", _requests(workspace, prefix, requests))
        if accident is not None:
            await eventually(lambda: _calls(provider, prefix) > room_for // 4, within=60, what="calls are made")
            await asyncio.to_thread(accident)
        await _collect(answers, done, prefix, requests, within)
        done.called = _calls(provider, prefix)
        await eventually(lambda: _is_at_rest(settings, states, done), within=60, every=0.2, what=f"it rests: {done}")
    return done


def _requests(workspace: str, prefix: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    found: list[tuple[bytes | None, bytes | None]] = []
    for number in range(count):
        body = {"request_id": f"{prefix}-{number}", "workspace_id": workspace, "prompt": f"{number}", "max_tokens": 16}
        found.append((workspace.encode(), json.dumps(body).encode()))
    return found


def _calls(provider: Provider, prefix: str) -> int:
    return sum(event["event"] == "start" and (event["id"] or "").startswith(prefix) for event in provider.events())


async def _collect(consumer: AIOKafkaConsumer, done: BudgetRound, prefix: str, count: int, within: float) -> None:
    found: dict[str, Response] = {}

    def is_new(record: object) -> bool:
        value: bytes = record.value  # type: ignore[attr-defined]
        if prefix.encode() not in value:
            return False
        response = decode(Response, value)
        return found.setdefault(response.request_id, response) is response

    await consume_until(consumer, lambda _: len(found) >= count, only=is_new, within=within)
    for response in found.values():
        code = response.error.code if response.error else ""
        done.statuses[f"{response.status} {code}".strip()] += 1
        if code == "budget_exceeded" and response.error:
            done.refusals.append(response.error.message)


async def _is_at_rest(settings: Settings, states: AIOKafkaConsumer, done: BudgetRound) -> bool:
    """Whether every call has its row, nothing is reserved, and the account is the ledger's sum.

    Both are read anew: an attempt that is in doubt may come late, and without a call.
    """
    for records in (await states.getmany(timeout_ms=100)).values():
        for record in records:
            if record.key.decode().startswith(f"{done.workspace}/"):
                done.state = decode(BudgetState, record.value)
                done.most = max(done.most, done.state.spent + done.state.reserved)
    rows = await _read_ledger(settings, done)
    state = done.state
    return state is not None and rows >= done.called and state.reserved == 0 and state.spent == done.ledger


async def _read_ledger(settings: Settings, done: BudgetRound) -> int:
    sql = "SELECT count(), sum(cost), countIf(outcome = 'in_doubt') FROM ledger WHERE workspace_id = {w:String}"
    async with ClickHouse(settings) as database:
        try:
            [(rows, cost, done.in_doubt)] = (await database.query(sql, {"w": done.workspace})).rows
        except ClickHouseError:
            return 0
    done.ledger = usd(cost)
    return int(rows)
