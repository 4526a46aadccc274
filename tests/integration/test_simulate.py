"""Ten thousand past requests of the real ledger, run through proposals."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.clickhouse.ledger import ClickHouseLedger
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.money import NANO
from schemas.response import Status
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.account.answered import Answered, AnsweredError
from tests.support.values.names import unique
from tests.support.values.usage import NOVEMBER, usage

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

REQUESTS = 10_000
DAYS = ("--from", "2026-11-05", "--to", "2026-11-07")


@pytest.fixture(autouse=True)
def _here(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[ClickHouseLedger]:
    ledger = ClickHouseLedger(settings)
    yield ledger
    await ledger.close()


def attempts(workspace: str, count: int) -> list[UsageEvent]:
    """A day of requests, some with two attempts, some in doubt, with costs to the last nano-dollar."""
    dice = random.Random(3)  # noqa: S311 - a die, and nothing secret
    found: list[UsageEvent] = []
    for number in range(count):
        at = NOVEMBER + timedelta(milliseconds=dice.randrange(86_400_000))
        begun = at + timedelta(milliseconds=dice.randrange(400))
        same: dict[str, Any] = {
            "request_id": f"r{number}",
            "requested_at": at,
            "latency": dice.randrange(3_000) / 1_000,
        }
        cost = dice.randrange(1, 10**7) * NANO
        tokens = Tokens(prompt_tokens=dice.randrange(1, 900), completion_tokens=dice.randrange(1, 400))
        if number % 10 == 0:
            doubt = number % 20 == 0
            outcome = Outcome.IN_DOUBT if doubt else Outcome.FAILED
            paid: dict[str, Any] = {"cost": cost if doubt else 0, "cost_source": "estimated" if doubt else "computed"}
            found.append(usage(workspace, **same, **paid, outcome=outcome, tokens=Tokens(), started_at=begun))
            begun += timedelta(seconds=same["latency"] + 1)
        number_of = 2 if number % 10 == 0 else 1
        found.append(usage(workspace, **same, attempt=number_of, cost=cost, tokens=tokens, started_at=begun))
    return found


async def simulate(*options: str) -> dict[str, Any]:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["simulate", "--json", *options])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def test_ten_thousand_requests_unchanged_cost_what_the_ledger_says_and_proposals_change_it(
    settings: Settings, ledger: ClickHouseLedger
) -> None:
    workspace = unique("w")
    events = attempts(workspace, REQUESTS)
    for first in range(0, len(events), 2_000):
        await ledger.write(events[first : first + 2_000])
    await ledger.write(events[:500])  # Delivered again.
    async with ClickHouse(settings) as database:
        sql = "SELECT sum(cost) FROM ledger WHERE workspace_id = {w:String}"
        booked = Decimal((await database.query(sql, {"w": workspace})).rows[0][0])
    assert booked == sum(event.cost for event in events)

    for period in (DAYS, ("--month", "2026-11")):
        same = (await simulate(*period, "-w", workspace))["total"]
        assert same["requests"] == REQUESTS
        assert Decimal(same["then"]["cost"]) == Decimal(same["simulated"]["cost"]) == booked
        assert same["then"]["attempts"] == same["simulated"]["attempts"] == len(events)
        assert (same["simulated"]["refused"], same["simulated"]["expired"]) == (0, 0)

    tight = (await simulate("--month", "2026-11", "-w", workspace, "--budget", f"{workspace}=5:refuse"))["total"]
    spent = Decimal(tight["simulated"]["cost"])
    assert 0 < tight["simulated"]["refused"] < REQUESTS
    assert Decimal("4.9") < spent <= 5
    wide = (await simulate("--month", "2026-11", "-w", workspace, "--budget", f"{workspace}=5000:refuse"))["total"]
    assert (Decimal(wide["simulated"]["cost"]), wide["simulated"]["refused"]) == (booked, 0)

    slow = (await simulate(*DAYS, "-w", workspace, "--limit", "openai:rpm=8,rph=none"))["total"]
    assert slow["simulated"]["wait"]["p95"] > slow["then"]["wait"]["p95"]
    cheap = (await simulate(*DAYS, "-w", workspace, "--model", "gpt-4o=gpt-4o-mini"))["total"]
    assert Decimal(cheap["simulated"]["cost"]) < booked
    assert cheap["simulated"]["attempts"] == len(events)


async def test_a_period_within_a_month_begins_with_what_was_spent_before_it(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    early = usage(workspace, cost="4", started_at=NOVEMBER - timedelta(days=2))
    late = [usage(workspace, cost="0.75", started_at=NOVEMBER + timedelta(minutes=n)) for n in range(4)]
    await ledger.write([early, *late])
    found = await simulate(*DAYS, "-w", workspace, "--budget", f"{workspace}=6:refuse")
    assert found["total"]["then"]["cost"] == "3.000000000"
    assert (found["total"]["simulated"]["cost"], found["total"]["simulated"]["refused"]) == ("1.500000000", 2)


async def test_requests_that_were_refused_then_are_told_and_not_guessed(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    refused = Answered(
        request_id="no",
        workspace_id=workspace,
        status=Status.REJECTED,
        error=AnsweredError(code="budget_exceeded"),
        requested_at=NOVEMBER,
        answered_at=NOVEMBER,
    )
    await ledger.write([usage(workspace)])
    await ledger.write_outcomes([refused])
    found = await simulate(*DAYS, "-w", workspace)
    assert found["total"]["requests"] == 1
    assert found["assumptions"] == [
        "Not in it: 1 request that a budget refused then; what they would use is not known."
    ]


async def test_a_proposal_that_cannot_be_tried_is_told_in_a_sentence() -> None:
    for options, told in (
        (("--limit", "clode:rpm=20"), "there is no clode"),
        (("--budget", "acme"), "is no budget"),
        (("--model", "gpt-4o"), "is no change of a model"),
    ):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["simulate", *options])
        assert result.exit_code == 2
        # The terminal's box may break the line anywhere.
        assert told in re.sub(r"[\s│]+", " ", result.output)


async def test_a_model_without_a_price_and_the_table(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    await ledger.write([usage(workspace)])
    options = ["simulate", *DAYS, "-w", workspace]
    unknown = await asyncio.to_thread(CliRunner().invoke, app, [*options, "--model", "gpt-4o=gpt-unheard-of"])
    assert unknown.exit_code == 1
    assert "Nobody knows what openai asks for gpt-unheard-of" in unknown.output + str(unknown.exception or "")
    table = await asyncio.to_thread(CliRunner().invoke, app, [*options, "--budget", f"{workspace}=0.001:refuse"])
    assert table.exit_code == 0
    assert f"- budget of {workspace}: $0.001 a month, refuse" in table.stdout
    row = next(line for line in table.stdout.splitlines() if line.startswith(workspace))
    assert row.split()[1:6] == ["1", "$0.010000000", "$0.000000000", "-$0.010000000", "1"]
