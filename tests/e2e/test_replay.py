"""Past requests published again on the real broker, to a real worker, with a real ledger."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from streams.topology import REQUESTS
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _here(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))


async def replay(workspace: str, since: datetime, *options: str) -> dict[str, Any]:
    period = ("--from", since.isoformat(), "--to", (datetime.now(UTC) + timedelta(seconds=5)).isoformat())
    command = ["replay", *period, "--filter", f"workspace_id={workspace}", "--json", *options]

    async def invoked() -> Result | None:
        """None while the sinks have not said yet that they have written what is in the ledger."""
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        return None if "not in the ledger yet" in result.output else result

    result = await eventually(invoked, every=0.5, what="the ledger is up to date")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def outcomes(database: ClickHouse, workspace: str) -> dict[str, str]:
    sql = "SELECT request_id, toString(status) FROM outcomes FINAL WHERE workspace_id = {w:String}"
    return dict((await database.query(sql, {"w": workspace})).rows)


async def paid(database: ClickHouse, workspace: str) -> set[str]:
    sql = "SELECT request_id FROM ledger WHERE workspace_id = {w:String}"
    return {row[0] for row in (await database.query(sql, {"w": workspace})).rows}


async def test_what_was_answered_is_not_paid_again_unless_it_gets_a_new_id(
    settings: Settings,
    worker: Child,  # noqa: ARG001 - it answers
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace, since = unique("w"), datetime.now(UTC) - timedelta(seconds=5)
    same = {"workspace_id": workspace, "cache": {"enabled": False}}
    good = [{"request_id": f"good{n}", "prompt": "hi", **same} for n in range(3)]
    bad = {"request_id": "bad", "prompt": "hi", "model": "nobody-has-this", **same}
    records = [(workspace.encode(), json.dumps(body).encode()) for body in (*good, bad)]
    names = {body["request_id"] for body in good}
    async with (
        ClickHouse(settings) as database,
        reading(settings.kafka_bootstrap_servers, REQUESTS) as requests,
    ):
        await publish(settings.kafka_bootstrap_servers, REQUESTS, records)
        await eventually(lambda: _has(outcomes(database, workspace), 4), what="all are in the ledger")
        assert await outcomes(database, workspace) == {**dict.fromkeys(names, "succeeded"), "bad": "rejected"}

        # Admission still knows all of them.
        known = await replay(workspace, since, "--send")
        assert (known["requests"], known["skipped"]) == ([], {"succeeded": 3, "known": 1})

        # As after AI_DEDUP_WINDOW: what has succeeded stays, the other one may go, byte for byte.
        monkeypatch.setenv("AI_DEDUP_WINDOW", "0.001")
        plan = await replay(workspace, since)
        assert [each["request_id"] for each in plan["requests"]] == ["bad"]
        assert (plan["sent"], plan["skipped"]) == (False, {"succeeded": 3})
        sent = await replay(workspace, since, "--send", "--filter", "status=rejected")
        assert (len(sent["requests"]), sent["skipped"]) == (1, {})
        seen = await consume_until(requests, lambda found: len(found) == 5, only=lambda r: r.key == workspace.encode())
        assert sorted(record.value for record in seen) == sorted([*(value for _, value in records), records[3][1]])
        assert await paid(database, workspace) == names

        # Told so, they are asked once more, under new ids.
        again = await replay(workspace, since, "--filter", "request_id=good*", "--again", "--suffix", ".2", "--send")
        assert {each["request_id"] for each in again["requests"]} == {f"{name}.2" for name in names}
        await eventually(lambda: _has(paid(database, workspace), 6), what="the new ones are in the ledger")
        assert await paid(database, workspace) == names | {f"{name}.2" for name in names}


async def _has(found: Any, count: int) -> bool:
    return len(await found) >= count


async def test_a_filter_that_is_none_is_told() -> None:
    command = ["replay", "--from", "2026-11-01", "--to", "2026-11-02", "--filter", "colour=red"]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 2
    assert "is no filter" in result.output
    alone = await asyncio.to_thread(CliRunner().invoke, app, [*command[:5], "--suffix", ".2"])
    assert alone.exit_code == 2
