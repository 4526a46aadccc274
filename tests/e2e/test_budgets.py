"""Budgets set from the command line, on a real worker: its alerts, the webhook, a kill, and the topic once more."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from typer.testing import CliRunner

from app.cli.main import app
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.alert import BudgetAlert, WorkspaceSpend, read_alert
from schemas.codec import encode, header
from streams.topology import BUDGET_ALERTS, REQUESTS, RESPONSES, SPEND
from tests.support.clock.months import in_one_month, this_month
from tests.support.clock.waiting import eventually
from tests.support.reader.hook import Hook
from tests.support.reader.offsets import rewind, waiting
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES, start
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]

FOUR = ["50", "80", "90", "100"]


@pytest.fixture(autouse=True)
def _here(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("NO_COLOR", "1")


async def spillway(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def request(workspace: str, number: int = 0) -> tuple[bytes | None, bytes | None]:
    body = {"request_id": f"{workspace}-{number}", "workspace_id": workspace, "prompt": "hello", "max_tokens": 16}
    return workspace.encode(), json.dumps(body).encode()


async def spent(settings: Settings, workspace: str, *figures: str) -> None:
    """What the sink would say of the workspace."""
    events = [WorkspaceSpend(workspace_id=workspace, month=this_month(), spent=figure) for figure in figures]
    await publish(settings.kafka_bootstrap_servers, SPEND, [(workspace.encode(), encode(event)) for event in events])


async def announced(consumer: AIOKafkaConsumer, workspace: str, count: int) -> list[Any]:
    return await consume_until(
        consumer,
        lambda records: len(records) >= count,
        only=lambda record: record.key == workspace.encode(),
        within=60,
    )


def thresholds(ids: list[str], workspace: str) -> list[str]:
    return [name.rpartition("/")[2] for name in ids if name.startswith(workspace)]


async def all_is_read(settings: Settings) -> bool:
    return not await waiting(settings.kafka_bootstrap_servers, settings.kafka_application_id, SPEND)


@pytest.mark.prove
async def test_a_workspaces_own_budget_is_announced_once_across_a_kill_and_a_replay(
    stack: DevStack, settings: Settings, workers: list[Child]
) -> None:
    month, servers = await in_one_month(150), settings.kafka_bootstrap_servers
    paying, jumping = unique("paying"), unique("jumping")
    await spillway("budget", "set", jumping, "--amount", "100", "--time-zone", "Europe/Vienna")
    async with Hook().open() as hook, reading(servers, BUDGET_ALERTS) as consumer:
        environment = WIDE_LANES | {"AI_ALERT_WEBHOOK_URL": hook.address}
        start(stack, workers, 1, environment)

        # A request that is really made, and a budget that the running worker has to hear of.
        await spillway("budget", "set", paying, "--amount", "0.00001", "--thresholds", "50,100,400")
        numbers = iter(range(1_000))

        async def pay() -> bool:
            await publish(servers, REQUESTS, [request(paying, next(numbers))])
            return len(thresholds(hook.ids, paying)) >= 3

        await eventually(pay, within=60, every=1, what="the webhook has heard of all three thresholds")
        records = await announced(consumer, paying, 3)
        assert [header(record.headers, "ce_type") for record in records] == [
            b"ai.budget.alert",
            b"ai.budget.exceeded",
            b"ai.budget.exceeded",
        ]
        assert {read_alert(record.value).budget for record in records} == {Decimal("0.00001")}

        # From 45 % to 101 %.
        await spent(settings, jumping, "45", "101")
        records = await announced(consumer, jumping, 4)
        alerts = [read_alert(record.value) for record in records]
        assert [alert.event_id for alert in alerts] == [f"{jumping}/{month}/{threshold}" for threshold in FOUR]
        assert [header(record.headers, "ce_id") for record in records] == [alert.event_id.encode() for alert in alerts]
        assert {alert.spent for alert in alerts} == {101}
        assert all(isinstance(alert, BudgetAlert) and alert.forecast is not None for alert in alerts)
        await eventually(lambda: len(thresholds(hook.ids, jumping)) >= 4, what="the webhook has heard of it")
        assert thresholds(hook.ids, jumping) == FOUR

        # Killed, and everything that was ever observed read again.
        workers[0].kill()
        await rewind(servers, settings.kafka_application_id, SPEND)
        start(stack, workers, 1, environment)
        await spent(settings, jumping, "102")
        await eventually(lambda: all_is_read(settings), within=60, every=0.5, what="the topic is read again")

        # The budget is raised above what was spent, and reached again.
        await spillway("budget", "set", jumping, "--amount", "200")
        await eventually(lambda: _is_heard(settings), within=30, what="the worker has heard of it")
        await spent(settings, jumping, "200")
        records = await announced(consumer, jumping, 3)
        assert [read_alert(record.value).event_id for record in records] == [
            f"{jumping}/{month}/{threshold}/2" for threshold in ("80", "90", "100")
        ], "the replay announced nothing; 50 % of the raised budget was spent before it was raised"
    async with reading(servers, BUDGET_ALERTS, from_start=True) as consumer:
        records = await announced(consumer, jumping, 7)
        assert [read_alert(record.value).event_id.rpartition(f"/{month}/")[2] for record in records] == [
            *FOUR,
            *("80/2", "90/2", "100/2"),
        ]
    log = workers[0].log.read_text()
    assert "secret" not in log, "the webhook's address is nowhere in the log"
    assert "alert_posted" in log


async def _is_heard(settings: Settings) -> bool:
    """Whether a worker knows of a budget that is set now, hence of all that were set before it.

    It is set below what was spent, and announced without another cost.
    """
    probe = unique("probe")
    async with reading(settings.kafka_bootstrap_servers, BUDGET_ALERTS) as consumer:
        await spent(settings, probe, "2")
        await spillway("budget", "set", probe, "--amount", "1", "--thresholds", "100")
        return bool(await announced(consumer, probe, 1))


async def test_with_alerts_switched_off_nothing_is_announced(
    stack: DevStack, settings: Settings, workers: list[Child]
) -> None:
    servers, workspace = settings.kafka_bootstrap_servers, unique("silent")
    await spillway("budget", "set", workspace, "--amount", "0.00001")
    async with Hook().open() as hook, reading(servers, BUDGET_ALERTS, SPEND, RESPONSES) as consumer:
        start(
            stack,
            workers,
            1,
            WIDE_LANES | {"AI_ALERT_WEBHOOK_URL": hook.address, "AI_BUDGET_ALERTS_ENABLED": "false"},
        )
        await publish(servers, REQUESTS, [request(workspace)])
        await consume_until(
            consumer,
            bool,
            only=lambda record: record.topic == RESPONSES and record.key == workspace.encode(),
        )
        await eventually(lambda: _in_ledger(workspace), what="its cost is in the ledger")
        for topic in (SPEND, BUDGET_ALERTS):
            await publish(servers, topic, [(workspace.encode(), b"the end")])
        found = await consume_until(
            consumer,
            lambda records: sum(record.value == b"the end" for record in records) == 2,
            only=lambda record: record.topic != RESPONSES and record.key == workspace.encode(),
        )
        assert [record.value for record in found] == [b"the end"] * 2
    assert hook.tries == []


async def _in_ledger(workspace: str) -> bool:
    return workspace in await spillway("sql", "SELECT DISTINCT workspace_id FROM ledger")
