"""Every alert fires and resolves on a real Prometheus that scrapes a real worker; in its rules a minute is a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from app.devstack.child import Child
from app.devstack.ports import choose
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.budget import BudgetChange
from schemas.codec import encode
from schemas.control import LimitChange
from streams.topology import BUDGETS, CONTROL, REQUESTS
from tests.support.clock.months import in_one_month
from tests.support.clock.pace import Pace
from tests.support.clock.waiting import eventually
from tests.support.provider.simulator import Simulator
from tests.support.reader.topics import publish
from tests.support.stack.prometheus import Prometheus, is_installed
from tests.support.stack.workers import running_worker
from tests.support.values.names import unique

pytestmark = [
    pytest.mark.stack,
    pytest.mark.prove,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason="prometheus is not installed (Debian: prometheus)"),
]

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana/dashboards/spillway.json"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Simulator.running(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(stack: DevStack, simulator: Simulator) -> Iterator[Child]:
    told = {
        "AI_OPS_PORT": str(choose(0, "")),
        "AI_AVAILABILITY_INTERVAL": "1",
        "AI_FALLBACK_PROVIDERS": "",
        "AI_RETRY_ATTEMPTS": "1",
        "AI_REQUESTS_PER_MINUTE": "6000",
        "AI_TOKENS_PER_MINUTE": "100000000",
    }
    with running_worker(stack, **simulator.environment(), **told) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(stack: DevStack, worker: Child, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    address = (stack.folder / worker.name / "ops").read_text().strip()
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), address)
    running.process.start()
    running.process.wait_ready(30)
    yield running
    running.process.stop()


async def send(settings: Settings, number: int, workspace: str, **fields: object) -> None:
    bodies = [
        {
            "workspace_id": workspace,
            "preferred_providers": ["claude"],
            "prompt": unique("p"),
            "max_tokens": 10,
            **fields,
        }
        for _ in range(number)
    ]
    await publish(
        settings.kafka_bootstrap_servers, REQUESTS, [(workspace.encode(), json.dumps(body).encode()) for body in bodies]
    )


@asynccontextmanager
async def sending(settings: Settings, each: int, **fields: object) -> AsyncIterator[None]:
    """So many requests a second, for as long as the block lasts."""

    async def go_on() -> None:
        workspace, pace = unique("steady"), Pace(1)
        while True:
            await send(settings, each, workspace, **fields)
            await pace.step()

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def fires(prometheus: Prometheus, name: str, **labels: str) -> None:
    await eventually(lambda: prometheus.fires(name, **labels), within=90, every=0.5, what=f"{name} fires")


async def resolves(prometheus: Prometheus, name: str, **labels: str) -> None:
    async def silent() -> bool:
        return not await prometheus.fires(name, **labels)

    await eventually(silent, within=120, every=0.5, what=f"{name} resolves")


async def test_dead_letters_are_told_and_forgotten(settings: Settings, prometheus: Prometheus) -> None:
    await resolves(prometheus, "AIDeadLetters", code="not_json")
    await publish(settings.kafka_bootstrap_servers, REQUESTS, [(b"acme", b"no JSON")])
    await fires(prometheus, "AIDeadLetters", code="not_json")
    await resolves(prometheus, "AIDeadLetters", code="not_json")


async def test_a_budget_that_is_spent_is_told_until_there_is_more(settings: Settings, prometheus: Prometheus) -> None:
    workspace, servers = unique("rich"), settings.kafka_bootstrap_servers
    await in_one_month(60)

    async def grant(amount: str) -> None:
        change = BudgetChange(workspace_id=workspace, amount=Decimal(amount))
        await publish(servers, BUDGETS, [(workspace.encode(), encode(change))])

    await grant("0.000001")
    await send(settings, 1, workspace)
    await fires(prometheus, "AIBudgetExceeded", workspace=workspace)
    await grant("100")
    await resolves(prometheus, "AIBudgetExceeded", workspace=workspace)


async def test_a_provider_that_is_gone_is_told_by_its_looks_its_circuit_and_the_errors(
    settings: Settings, prometheus: Prometheus, simulator: Simulator
) -> None:
    simulator.process.kill()
    try:
        # What is not interactive would wait until the circuit closes, and not fail.
        async with sending(settings, 4, priority="interactive"):
            await fires(prometheus, "AIProviderDown", provider="claude")
            await fires(prometheus, "AICircuitOpen", provider="claude")
            await fires(prometheus, "AIHighErrorRate")
            simulator.process.start()
            simulator.process.wait_ready(30)
            await resolves(prometheus, "AIProviderDown", provider="claude")
            # The breaker lets a probe through a minute after it opened.
            await resolves(prometheus, "AICircuitOpen", provider="claude")
            await resolves(prometheus, "AIHighErrorRate")
    finally:
        if not simulator.process.alive():
            simulator.process.start()


async def test_a_ledger_that_is_away_is_told_until_it_takes_rows_again(
    stack: DevStack, settings: Settings, prometheus: Prometheus
) -> None:
    stack.clickhouse.kill()
    try:
        async with sending(settings, 2):
            await fires(prometheus, "AISinkFailing", reason="unavailable")
    finally:
        stack.clickhouse.start()
        stack.clickhouse.wait_ready(60)
    await resolves(prometheus, "AISinkFailing", reason="unavailable")


async def test_a_lane_that_is_too_slow_and_its_backlog_are_told_until_it_may_go_faster(
    settings: Settings, prometheus: Prometheus
) -> None:
    async def limit(rpm: int) -> None:
        change = LimitChange(target="claude", rpm=rpm, tpm=100_000_000)
        await publish(settings.kafka_bootstrap_servers, CONTROL, [(change.key.encode(), encode(change))])

    await limit(10)
    async with sending(settings, 60):
        await fires(prometheus, "AIBacklogGrowing", topic="ai.dispatch.claude")
        await fires(prometheus, "AILaneSlow", lane="claude/0")
    await limit(100_000)
    await resolves(prometheus, "AILaneSlow", lane="claude/0")
    await resolves(prometheus, "AIBacklogGrowing", topic="ai.dispatch.claude")
    await publish(settings.kafka_bootstrap_servers, CONTROL, [(b"limits/claude", None)])


async def test_every_panel_of_the_dashboard_has_something_to_show(prometheus: Prometheus) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        found = []
        for target in panel["targets"]:
            found += await prometheus.query(target["expr"].replace("$__rate_interval", "5m"))
        # No lane is paused and nothing waits at the end: what shows only the unusual may be empty.
        assert found or any(target["expr"].endswith("> 0") for target in panel["targets"]), panel["title"]


async def test_a_worker_that_is_gone_is_told_until_it_is_back(prometheus: Prometheus, worker: Child) -> None:
    assert worker.stop()
    await fires(prometheus, "AIWorkerDown")
    await fires(prometheus, "AINoWorkerReady")
    worker.start()
    await resolves(prometheus, "AIWorkerDown")
    await resolves(prometheus, "AINoWorkerReady")
