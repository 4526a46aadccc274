"""The webhook between the real broker and a real HTTP server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from app.alerts import webhook
from app.alerts.webhook import Webhook
from app.settings import Settings
from schemas.alert import BudgetAlert
from schemas.codec import encode
from streams.topology import BUDGET_ALERTS, partition_of
from tests.support.clock.waiting import eventually
from tests.support.reader.hook import Hook
from tests.support.reader.topics import publish
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_WAIT", "LONGEST_WAIT", "KAFKA_RETRY"):
        monkeypatch.setattr(webhook, name, 0.05)


@pytest.fixture
def own(settings: Settings) -> Settings:
    """Settings of a deployment whose webhook has never read anything."""
    return settings.model_copy(update={"kafka_application_id": unique("app")})


@pytest.fixture
def workspace() -> str:
    return unique("w")


def alert(workspace: str, threshold: int) -> BudgetAlert:
    return BudgetAlert(
        kind="ai.budget.alert",
        workspace_id=workspace,
        month="2026-11",
        threshold=threshold,
        spent="85",
        budget="100",
        percent=85.0,
        forecast="170",
        observed_at=datetime.now(UTC),
    )


async def announce(settings: Settings, workspace: str, *thresholds: int) -> None:
    values = [encode(alert(workspace, threshold)) for threshold in thresholds]
    await publish(settings.kafka_bootstrap_servers, BUDGET_ALERTS, [(workspace.encode(), value) for value in values])


@asynccontextmanager
async def posting(settings: Settings, hook: Hook) -> AsyncIterator[Webhook]:
    running = Webhook(settings, SecretStr(hook.address))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


def in_partition(settings: Settings, partition: int) -> str:
    """A workspace whose alerts are in this one."""
    name = unique("w")
    while partition_of(name.encode(), settings.partitions) != partition:
        name = unique("w")
    return name


def delivered(hook: Hook, workspace: str) -> list[str]:
    return [name.rpartition("/")[2] for name in hook.ids if name.startswith(workspace)]


async def test_alerts_from_the_start_on_are_posted_once_and_in_order(own: Settings, workspace: str) -> None:
    await announce(own, workspace, 50)
    async with Hook().open() as hook, posting(own, hook):
        await announce(own, workspace, 80, 90)
        await eventually(lambda: delivered(hook, workspace) == ["80", "90"], what="both are posted")
        assert "Budget alert" in hook.texts[0]
        assert workspace in hook.texts[0]


async def test_whoever_comes_next_goes_on_where_the_last_delivery_ended(own: Settings, workspace: str) -> None:
    async with Hook().open() as hook:
        async with posting(own, hook):
            await announce(own, workspace, 50)
            await eventually(lambda: delivered(hook, workspace) == ["50"], what="the first is posted")
        await announce(own, workspace, 80)
        async with posting(own, hook):
            await eventually(lambda: delivered(hook, workspace)[-1] == "80", what="what came meanwhile is posted")
        # The stop may have come between a delivery and its commit.
        assert delivered(hook, workspace) in (["50", "80"], ["50", "50", "80"])


async def test_while_nobody_answers_alerts_wait(
    own: Settings, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook = Hook()
    async with posting(own, hook):
        await announce(own, workspace, 50, 80)
        await eventually(lambda: caplog.text.count("webhook_away") > 2, what="it tries and tries")
        async with hook.open():
            await eventually(lambda: delivered(hook, workspace) == ["50", "80"], what="both are posted")
    assert "secret" not in caplog.text


async def test_what_passes_is_tried_again_and_what_does_not_is_dropped(
    own: Settings, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Hook(answers=[500, 503, 200, 404, 302, 429, 200], headers={"retry-after": "0"}).open() as hook:
        async with posting(own, hook):
            await announce(own, workspace, 50, 60, 70, 80)
            await eventually(lambda: delivered(hook, workspace) == ["50", "80"], what="the others are dropped")
        assert len(hook.tries) == 7
    refused = [record.getMessage() for record in caplog.records if record.getMessage().startswith("alert_refused")]
    assert refused == [
        f"alert_refused: {workspace}/2026-11/60: the webhook answered 404, and is not asked again",
        f"alert_refused: {workspace}/2026-11/70: the webhook answered 302, and is not asked again",
    ]
    assert "secret" not in caplog.text


async def test_what_is_no_alert_is_passed_over(own: Settings, workspace: str) -> None:
    async with Hook().open() as hook, posting(own, hook):
        await publish(own.kafka_bootstrap_servers, BUDGET_ALERTS, [(workspace.encode(), b"nonsense")])
        await announce(own, workspace, 50)
        await eventually(lambda: delivered(hook, workspace) == ["50"], what="the alert behind it is posted")


async def test_two_share_the_work_and_a_stuck_one_leaves_it_to_the_other(own: Settings) -> None:
    # Some of each partition: whichever of them a member has, there is work for it.
    names = [in_partition(own, number % own.partitions) for number in range(12)]
    away = Hook()
    async with Hook().open() as hook, posting(own, hook):
        async with posting(own, away):
            for name in names:
                await announce(own, name, 50)
            await eventually(lambda: len(set(hook.ids)) >= 1, what="one of them posts")
        await eventually(
            lambda: {f"{name}/2026-11/50" for name in names} <= set(hook.ids), within=40, what="all are posted"
        )
