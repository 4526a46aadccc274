"""Embeddings, searches and a provider added by configuration, all the way on the running stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response, Status
from streams.topology import RESPONSES
from tests.support.names import unique
from tests.support.records import consume_until, publish, reading
from tests.support.rounds import WIDE_LANES
from tests.support.simulator import Simulator
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


async def answer(settings: Settings, **fields: Any) -> Response:
    """Publish one request and wait for its response."""
    request_id = unique("kind")
    body = {"request_id": request_id, "workspace_id": "kinds", **fields}
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        await publish(settings.kafka_bootstrap_servers, "ai.requests", [(b"kinds", json.dumps(body).encode())])
        [found] = await consume_until(consumer, bool, only=lambda record: request_id.encode() in record.value)
    return Response.model_validate_json(found.value)


@pytest.mark.usefixtures("worker")
class TestKinds:
    async def test_vectors_as_numbers_and_as_base64_are_in_the_response_and_in_the_ledger(
        self, settings: Settings
    ) -> None:
        texts = ["a harbour", "low tide"]
        numbers = await answer(settings, kind="embedding", input=texts)
        assert (numbers.status, numbers.provider, numbers.kind) == (Status.SUCCEEDED, "openai", "embedding")
        assert [len(vector) for vector in numbers.embeddings] == [1536, 1536]
        packed = await answer(settings, kind="embedding", input=texts, encoding_format="base64")
        assert [len(vector) for vector in packed.embeddings] == [8192, 8192]
        async with ClickHouse(settings) as database:

            async def ledger() -> Any:
                found = await database.query(
                    "SELECT kind, model, cost_source FROM ledger WHERE request_id = {request:String}",
                    {"request": packed.request_id},
                )
                return list(found.rows)

            rows = await eventually(ledger, what="its row")
        assert [tuple(row) for row in rows] == [("embedding", "text-embedding-3-small", "computed")]

    async def test_vectors_are_never_asked_of_who_makes_none(self, settings: Settings) -> None:
        found = await answer(settings, kind="embedding", input="a", preferred_providers=["claude", "perplexity"])
        assert {attempt.provider for attempt in found.attempts} == {"openai"}

    async def test_a_search_finds_pages_pictures_and_what_it_cost(self, settings: Settings) -> None:
        found = await answer(
            settings, kind="search", query="tides", domains_include=["shom.fr"], recency="week", return_images=True
        )
        assert (found.status, found.provider, found.model) == (Status.SUCCEEDED, "perplexity", "sonar")
        assert found.content
        assert found.search_results[0].url
        assert found.citations == (found.search_results[0].url,)
        assert found.images[0].width == 640
        assert found.usage.cost > 0
        assert found.estimated_cost is not None
        assert found.estimated_cost >= found.usage.cost

    def test_both_can_be_asked_from_the_command_line(self, stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
        vectors = CliRunner().invoke(app, ["embed", "a harbour", "low tide"])
        assert vectors.exit_code == 0, vectors.output
        assert "1,536" in vectors.output
        pages = CliRunner().invoke(app, ["search", "tides", "--include", "shom.fr", "--images"])
        assert pages.exit_code == 0, pages.output
        assert "[1] Mock result for tides" in pages.output


async def test_a_server_with_openais_interface_is_added_by_configuration_alone(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = Simulator.start(tmp_path)
    name = f"local-{unique('x')}"[:40].lower()
    file = tmp_path / "settings.toml"
    file.write_text(
        f'[providers.{name}]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:{simulator.port}/v1"\n'
        'models = ["llama-4", "llama-*"]\nembedding_model = "nomic-embed"\n'
        'price = { input_mtok = "10", output_mtok = "20", request = "0.5" }\n'
    )
    told = {"AI_SETTINGS_FILE": str(file), **WIDE_LANES}
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("AI_SETTINGS_FILE", str(file))
    try:
        made = CliRunner().invoke(app, ["topics"])
        assert made.exit_code == 0, made.output
        listed = CliRunner().invoke(app, ["providers", "--json"])
        [local] = [one for one in json.loads(listed.stdout)["providers"] if one["provider"] == name]
        assert (local["available"], local["keys"], local["kinds"]) == (True, 0, ["completion", "embedding"])
        workers.append(stack.worker(1, **told))
        workers[0].start()
        workers[0].wait_ready(90)
        found = await answer(settings, prompt="Hello", model="llama-4-scout")
        assert (found.status, found.provider, found.model) == (Status.SUCCEEDED, name, "llama-4-scout")
        usage = found.usage
        dollars = (10 * usage.prompt_tokens + 20 * usage.completion_tokens) / 1_000_000 + 0.5
        assert float(usage.cost) == pytest.approx(dollars, abs=1e-9)
        vectors = await answer(settings, kind="embedding", input="a", preferred_providers=[name])
        assert (vectors.provider, vectors.model) == (name, "nomic-embed")
        assert len(simulator.calls()) == 2
        unknown = await answer(settings, prompt="Hello", model="nobody-has-this")
        assert unknown.status is Status.REJECTED
        assert unknown.error is not None
        assert unknown.error.code == "unknown_model"
        assert f"{name} (llama-4, llama-*" in unknown.error.message
    finally:
        simulator.stop()
