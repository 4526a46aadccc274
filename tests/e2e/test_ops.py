"""What a real worker says of itself, compared with what was sent and with what came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aiokafka import ConsumerRecord
from prometheus_client.parser import text_string_to_metric_families

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response
from schemas.usage import UsageEvent
from streams.topology import BUDGETS, RESPONSES, USAGE
from tests.support.clock.months import in_one_month
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

#: Nobody listens there.
NOWHERE = {"AI_OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "AI_RETRY_ATTEMPTS": "2", "AI_RETRY_DELAY": "0.05"}


@pytest.fixture(scope="module")
def worker(stack: DevStack) -> Iterator[Child]:
    with running_worker(stack, **WIDE_LANES, **NOWHERE, AI_AVAILABILITY_INTERVAL="1") as running:
        yield running


@pytest.fixture
def address(stack: DevStack, worker: Child) -> str:
    return "http://" + (stack.folder / worker.name / "ops").read_text().strip()


async def get(address: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(address) as reply:
        return reply.status, await reply.text()


async def scrape(address: str) -> Samples:
    status, text = await get(f"{address}/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels."""
    return sum(value for (known, own), value in samples.items() if known == name and own >= set(labels.items()))


def bodies(workspace: str) -> list[dict[str, Any]]:
    """Three answers, one of them for two; one that fails; one that is no request; one without money."""
    common = {"workspace_id": workspace, "preferred_providers": ["claude"]}
    asked: list[dict[str, Any]] = [{"prompt": f"mark-prompt {number}"} for number in (1, 2, 3, 3)]
    failing = {"kind": "embedding", "input": "mark-prompt", "preferred_providers": ["openai"]}
    wrong = {"kind": "telepathy", "prompt": "mark-prompt"}
    each = [*asked, failing, wrong, {"prompt": "mark-prompt", "workspace_id": f"{workspace}-poor"}]
    return [{**common, "request_id": f"{workspace}-mark-{number}", **one} for number, one in enumerate(each)]


async def send_all(settings: Settings, workspace: str) -> tuple[list[Response], list[UsageEvent]]:
    """One after the other, so that the last of the four is answered from what is kept."""
    servers, sent = settings.kafka_bootstrap_servers, bodies(workspace)
    poor = {"workspace_id": f"{workspace}-poor", "amount": "0.000001", "action": "refuse"}
    await publish(servers, BUDGETS, [(poor["workspace_id"].encode(), json.dumps(poor).encode())])

    def own(record: ConsumerRecord) -> bool:
        return f"{workspace}-mark-".encode() in (record.value or b"")

    async with reading(servers, RESPONSES) as answers, reading(servers, USAGE) as usages:
        found = []
        for body in sent:
            await publish(servers, "ai.requests", [(body["workspace_id"].encode(), json.dumps(body).encode())])
            found += await consume_until(answers, bool, only=own)
        responses = [Response.model_validate_json(record.value) for record in found]
        attempts = sum(len(response.attempts) for response in responses)
        used = await consume_until(usages, lambda records: len(records) >= attempts, only=own)
    return responses, [UsageEvent.model_validate_json(record.value) for record in used]


async def test_the_figures_are_those_of_the_responses_and_the_usage_that_were_published(
    settings: Settings, address: str
) -> None:
    async def at_rest() -> Samples | None:
        """Whatever other tests have left on the topics is none of this one's."""
        samples = await scrape(address)
        known = {dict(labels)["reader"] for name, labels in samples if name == "ai_backlog_records"}
        return samples if known == {"stages", "sinks"} and not total(samples, "ai_backlog_records") else None

    workspace = unique("ops")
    await in_one_month(60)
    before = await eventually(at_rest, within=60, what="nothing waits")
    responses, used = await send_all(settings, workspace)
    assert Counter((r.status.value, r.cached) for r in responses) == {
        ("succeeded", False): 3, ("succeeded", True): 1, ("failed", False): 1, ("rejected", False): 2,
    }  # fmt: skip

    async def settled() -> Samples | None:
        """The last response is on the wire a moment before it is counted, and the ledger has it after a second."""
        now = await scrape(address)
        grown = {key: value - before.get(key, 0.0) for key, value in now.items()}
        done = total(grown, "ai_requests_total") == len(responses) and total(
            grown, "ai_sink_rows_total", table="attempts"
        ) == len(used)
        return grown if done and total(now, "ai_monthly_cost_usd", workspace=workspace) else None

    grown = await eventually(settled, what="all of it is counted")
    assert total(grown, "ai_requests_total", cached="true", provider="claude") == 1
    assert total(grown, "ai_requests_total", status="rejected", provider="none") == 2
    assert total(grown, "ai_request_duration_seconds_count", status="succeeded") == 4
    assert total(grown, "ai_errors_total", stage="request", code="budget_exceeded") == 1
    assert total(grown, "ai_errors_total", stage="attempt", provider="openai") == 2
    assert total(grown, "ai_attempts_total") == len(used)
    assert total(grown, "ai_tokens_total") == sum(one.tokens.total_tokens for one in used)
    cost = sum((one.cost for one in used), Decimal(0))
    assert total(grown, "ai_cost_usd_total") == pytest.approx(float(cost))
    assert total(await scrape(address), "ai_monthly_cost_usd", workspace=workspace) == pytest.approx(float(cost))
    assert total(grown, "ai_dead_letters_total", code="unknown_kind") == 1
    assert total(await scrape(address), "ai_lane_used", provider="claude", limit="rpm") >= 3


async def test_no_request_and_no_prompt_is_in_the_metrics(address: str) -> None:
    _, text = await get(f"{address}/metrics")
    assert "ai_requests_total{" in text
    assert "mark-" not in text


async def test_a_worker_that_works_is_alive_and_ready_and_knows_which_provider_is_there(address: str) -> None:
    assert await get(f"{address}/health") == (200, '{"alive":true}')
    status, body = await get(f"{address}/ready")
    assert (status, json.loads(body)["checks"]) == (
        200,
        {"partitions": "ok", "progress": "ok", "stages": "ok", "clock": "ok", "kafka": "ok", "clickhouse": "ok"},
    )

    async def looked() -> bool:
        samples = await scrape(address)
        available = {dict(own)["provider"]: v for (name, own), v in samples.items() if name == "ai_provider_available"}
        return (available.get("claude"), available.get("openai")) == (1, 0)

    assert await eventually(looked, what="claude is there, and nobody where openai should be")


async def test_a_worker_says_that_clickhouse_is_away_and_that_it_is_back_and_stays_alive_meanwhile(
    stack: DevStack, address: str
) -> None:
    async def ready(wanted: int) -> dict[str, str] | None:
        status, body = await get(f"{address}/ready")
        return dict(json.loads(body)["checks"]) if status == wanted else None

    stack.clickhouse.kill()
    try:
        found = await eventually(lambda: ready(503), what="it is not ready")
        assert (found["kafka"], found["partitions"]) == ("ok", "ok")
        assert "ClickHouse" in found["clickhouse"]
        assert (await get(f"{address}/health"))[0] == 200
    finally:
        stack.clickhouse.start()
        stack.clickhouse.wait_ready(60)
    assert await eventually(lambda: ready(200), what="it is ready again")


async def test_a_worker_whose_port_is_taken_ends_and_names_the_setting(stack: DevStack, address: str) -> None:
    port = address.rpartition(":")[2]
    second = stack.worker(2, AI_OPS_PORT=port)
    second.start()
    try:
        await eventually(lambda: not second.alive(), within=60, what="it gives up")
        assert second.exit_code() == 1
        assert f"AI_OPS_PORT: 127.0.0.1:{port} is taken" in second.last_words()
    finally:
        second.stop()
