"""Embeddings and searches, all the way on the running stack."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Status
from tests.support.clock.waiting import eventually
from tests.support.reader.one import answer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180), pytest.mark.usefixtures("worker")]


async def test_vectors_as_numbers_and_as_base64_are_in_the_response_and_in_the_ledger(settings: Settings) -> None:
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


async def test_vectors_are_never_asked_of_who_makes_none(settings: Settings) -> None:
    found = await answer(settings, kind="embedding", input="a", preferred_providers=["claude", "perplexity"])
    assert {attempt.provider for attempt in found.attempts} == {"openai"}


async def test_a_search_finds_pages_pictures_and_what_it_cost(settings: Settings) -> None:
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


def test_both_can_be_asked_from_the_command_line(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    vectors = CliRunner().invoke(app, ["embed", "a harbour", "low tide"])
    assert vectors.exit_code == 0, vectors.output
    assert "1,536" in vectors.output
    pages = CliRunner().invoke(app, ["search", "tides", "--include", "shom.fr", "--images"])
    assert pages.exit_code == 0, pages.output
    assert "[1] Mock result for tides" in pages.output
