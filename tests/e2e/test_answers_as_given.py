"""Answers as providers really give them, through the running stack, down to the response and the ledger's row.

The cases are those of tests/support/provider/answers. Those that hold a lane or rest a key, as they should, are left to
the tests of the clients: here all of a provider's cases share a lane and a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.client import SpillwayClient, SpillwayError
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response, Status
from tests.support.clock.waiting import eventually
from tests.support.provider.answers.case import KINDS, TIMEOUT, Case, all_cases
from tests.support.provider.answers.server import AnswerServer, answering
from tests.support.stack.workers import WIDE_LANES, running_worker

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600), pytest.mark.prove]

#: What a failure of these kinds does to its lane or its key is kept for a while.
HOLDING = {"rate_limited", "overloaded", "bad_key", "quota_exhausted", "forbidden", "no_such_model"}
MODELS = {"claude": "claude-sonnet-4-5", "openai": "gpt-4o-mini", "perplexity": "sonar", "named": "llama-x"}
Row = tuple[str, Decimal, int]


def is_plain(case: Case, *, streamed: bool) -> bool:
    given = case.given(streamed=streamed)
    holds = case.expected(streamed=streamed).get("failure") in HOLDING
    is_plain = given is not None and given.status == 200 and not any("ratelimit" in name for name in given.headers)
    return is_plain and not holds and case.timeout == TIMEOUT


def asked(kind: str) -> Iterator[tuple[Case, bool]]:
    """The cases of a provider, whole and streamed."""
    for case in all_cases():
        for streamed in (False, True):
            if kind in case.providers and is_plain(case, streamed=streamed):
                yield case, streamed


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_becomes_what_it_is_in_the_response_and_in_the_ledger(
    settings: Settings, stack: DevStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file = tmp_path / "settings.toml"
    async with answering() as server:
        file.write_text(
            "[providers.named]\n"
            'kind = "openai_compatible"\n'
            f'base_url = "{server.address(None, "named")}"\n'
            'models = ["llama-x"]\n'
            'price = { input_mtok = "1", output_mtok = "1" }\n'
        )
        monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
        monkeypatch.setenv("AI_SETTINGS_FILE", str(file))
        made = await asyncio.to_thread(CliRunner().invoke, app, ["topics"])
        assert made.exit_code == 0, made.output
        with running_worker(stack, 5, **environment(server, kind), AI_SETTINGS_FILE=str(file)):
            mistakes = await mistakes_of(settings, kind)
    assert not mistakes, "\n".join(mistakes)


def environment(server: AnswerServer, asked: str) -> dict[str, str]:
    base = {f"AI_{kind.upper()}_BASE_URL": server.address(None, kind) for kind in ("claude", "openai", "perplexity")}
    keys = {f"AI_{kind.upper()}_API_KEY": "sk-test" for kind in ("claude", "openai", "perplexity")}
    timeouts = {f"AI_{kind.upper()}_TIMEOUT": str(TIMEOUT) for kind in ("claude", "openai", "perplexity")}
    more = {
        "AI_PERPLEXITY_INTERFACE": "sonar",
        "AI_PRIMARY_PROVIDER": asked,
        "AI_FALLBACK_PROVIDERS": "",
        "AI_RETRY_ATTEMPTS": "1",
        "AI_AVAILABILITY_INTERVAL": "0",
    }
    return WIDE_LANES | base | keys | timeouts | more


async def mistakes_of(settings: Settings, kind: str) -> list[str]:
    """What is wrong with what the cases of a provider have become. One after another: a circuit counts failures."""
    found = list(asked(kind))
    assert len(found) > 20
    good = next(case for case, streamed in found if "failure" not in case.expected(streamed=streamed))
    responses: dict[tuple[str, str], Response] = {}
    async with SpillwayClient(settings.kafka_bootstrap_servers, timeout=60.0) as client:
        for case, streamed in found:
            place = (workspace_of(kind, streamed=streamed), case.name)
            responses[place] = response = await respond(client, request(kind, *place, streamed=streamed))
            if response.status is not Status.SUCCEEDED:
                await respond(client, request(kind, f"{case.name}-{place[0]}", good.name, streamed=False))
    rows = await rows_of(settings, responses.keys())
    mistakes: list[str] = []
    for case, streamed in found:
        place = (workspace_of(kind, streamed=streamed), case.name)
        try:
            check(case.expected(streamed=streamed), responses[place], rows[place])
        except AssertionError as error:
            mistakes.append(f"{place}: {error}")
    return mistakes


def workspace_of(kind: str, *, streamed: bool) -> str:
    return f"{kind}-{'streamed' if streamed else 'whole'}"


def request(kind: str, workspace: str, name: str, *, streamed: bool) -> dict[str, Any]:
    """It has the name of its case, by which the server knows what to answer."""
    return {
        "workspace_id": workspace,
        "request_id": name,
        "prompt": f"When is high water? {name}",
        "model": MODELS[kind],
        "preferred_providers": [kind],
        "stream": streamed,
        "cache": {"enabled": False},
    }


async def respond(client: SpillwayClient, body: dict[str, Any]) -> Response:
    if not body["stream"]:
        return await client.request(body)
    async with client.open_stream(body) as answer:
        try:
            async for _ in answer:
                pass
        except SpillwayError as error:
            if error.response is None:
                raise
        return answer.response


async def rows_of(settings: Settings, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], Row]:
    """The ledger's row of each one's only attempt: its outcome, cost and tokens."""
    sql = (
        "SELECT workspace_id, request_id, toString(outcome), cost, total_tokens FROM ledger "
        "WHERE has({w:Array(String)}, workspace_id)"
    )
    found: dict[tuple[str, str], Row] = {}
    async with ClickHouse(settings) as database:

        async def are_there() -> bool:
            rows = (await database.query(sql, {"w": sorted({workspace for workspace, _ in places})})).rows
            found.update({(workspace, name): tuple(row) for workspace, name, *row in rows})
            assert len(found) == len(rows), "one attempt, one row"
            return found.keys() >= set(places)

        await eventually(are_there, within=60, every=0.5, what="a row for every case")
    return found


def check(expected: dict[str, Any], response: Response, row: Row) -> None:
    outcome, cost, tokens = row
    if "failure" in expected:
        error = response.attempts[0].error
        assert error is not None, response
        assert (error.code, response.content) == (expected["failure"], None)
        assert outcome == ("in_doubt" if expected["billed"] else "failed"), row
        assert bool(cost) == expected["billed"], f"{cost} for nothing, or nothing for a bill"
        return
    assert response.status is Status.SUCCEEDED, response.error
    found = {
        "content": response.content,
        "calls": [f"{call['function']['name']} {call['function']['arguments']}" for call in response.tool_calls],
        "finish_reason": response.finish_reason,
        "raw": response.finish_reason_raw,
    }
    assert found == found | {name: value for name, value in expected.items() if name in found}
    assert [warning.code for warning in response.warnings] == expected.get("warnings", [])
    assert outcome == "succeeded"
    assert tokens > 0
    assert cost > 0
