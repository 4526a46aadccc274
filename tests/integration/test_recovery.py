"""What is lost is brought back: the ledger out of Kafka, accounts out of the ledger, settings out of a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from typer.testing import CliRunner, Result

from app.audit.topics import committed
from app.cli.main import app
from app.clickhouse.ledger import ClickHouseLedger
from app.devstack.stack import DevStack
from app.kafka import KafkaUnavailableError, admin_client, cluster_of
from app.recovery.changelogs import latest, owning, write
from app.settings import Settings
from app.topics import build_topology, ensure_topics
from schemas.usage import Outcome, UsageEvent
from streams.accounts import Account, account_key
from streams.records import Record
from streams.rows import decode_row, encode_row
from streams.topology import REQUEST_TABLE, USAGE, ledger_group
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import publish
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

#: No other test spends anything in it.
MONTH = datetime(2031, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
async def own(stack: DevStack, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A deployment with groups and changelogs of its own."""
    name = unique("app")
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("AI_KAFKA_APPLICATION_ID", name)
    found = settings.model_copy(update={"kafka_application_id": name})
    await ensure_topics(found)
    return found


async def spillway(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


@asynccontextmanager
async def at_work(settings: Settings, group: str) -> AsyncIterator[None]:
    """A member of the group."""
    consumer = AIOKafkaConsumer(USAGE, bootstrap_servers=settings.kafka_bootstrap_servers, group_id=group)
    await consumer.start()
    try:
        await eventually(consumer.assignment, what="it is a member")
        yield
    finally:
        await consumer.stop()


async def places(settings: Settings) -> dict[tuple[str, int], int]:
    async with admin_client(cluster_of(settings)) as admin:
        return await committed(cluster_of(settings), admin, ledger_group(settings.kafka_application_id))


async def test_the_sinks_go_back_to_the_beginning_or_to_a_moment(own: Settings) -> None:
    await publish(own.kafka_bootstrap_servers, USAGE, [(b"acme", b"{}")])
    shown = json.loads((await spillway("refill", "--dry-run", "--json")).output)
    assert shown["done"] is False
    [usage] = [one for one in shown["topics"] if one["topic"] == USAGE]
    assert usage["records"] > 0
    assert USAGE not in {topic for topic, _ in await places(own)}, "nothing was changed"
    done = await spillway("refill")
    assert done.exit_code == 0
    assert "Start the workers" in done.output
    begun = await places(own)
    assert {topic for topic, _ in begun} >= {"ai.usage", "ai.responses", "ai.budget.alerts"}
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await spillway("refill", "--since", later)
    assert await places(own) == begun, "never forward: nothing is left out"


@pytest.mark.parametrize(
    ("command", "sink"),
    [
        (("refill",), True),
        (("tables", "--drop", "--yes"), False),
        (("budget", "restore"), False),
        (("repartition", "12", "--yes"), False),
    ],
)
async def test_while_a_worker_runs_nothing_is_touched(own: Settings, command: tuple[str, ...], sink: bool) -> None:
    group = ledger_group(own.kafka_application_id) if sink else own.kafka_application_id
    async with at_work(own, group):
        refused = await spillway(*command)
    assert refused.exit_code == 1
    assert refused.output.startswith(f"Error: Members of the group {group} are at work; stop all workers first.")


async def test_rows_that_no_worker_can_use_are_named_and_removed(own: Settings) -> None:
    topology = build_topology(own)
    topic, home = topology.changelog(REQUEST_TABLE), topology.workspace_partition("acme")
    good = account_key("acme", "2026-11").encode()
    elsewhere = (home + 1) % topology.partitions
    rows = [
        Record(topic, good, encode_row(Account(spent=5)), partition=home),
        Record(topic, b"acme/half", b'{"v": ', partition=home),
        Record(topic, b"\xff", b"{}", partition=home),
        Record(topic, b"acme/lost", encode_row(Account()), partition=elsewhere),
        # Who owns a partition: no row, whatever its value.
        *(Record(topic, b"__faust_owner", b'{"id": 7}', partition=place) for place in (home, elsewhere)),
    ]
    await write(cluster_of(own), rows)
    checked = await spillway("tables", "--json")
    assert checked.exit_code == 1
    [table] = [one for one in json.loads(checked.output)["tables"] if one["table"] == REQUEST_TABLE]
    assert {(row["key"], row["reason"]) for row in table["bad"]} == {
        ("acme/half", "it cannot be read (JSONDecodeError)"),
        ("\\xff", "its key is no text"),
        ("acme/lost", f"it belongs to partition {home}"),
    }
    assert sum(table["rows"].values()) == 4
    assert (await spillway("tables", "--drop", "--yes")).exit_code == 0
    clean = await spillway("tables")
    assert clean.exit_code == 0
    assert "All rows can be used." in clean.output
    async with admin_client(cluster_of(own)) as admin:
        assert list(await latest(cluster_of(own), admin, topic)) == [(good, home)]


@pytest.mark.parametrize(
    ("look", "command"),
    [
        (("tables",), ("tables", "--drop", "--yes")),
        (("budget", "restore", "--month", "2031-04", "--dry-run"), ("budget", "restore", "--month", "2031-04")),
    ],
    ids=["tables", "restore"],
)
async def test_whoever_stood_still_while_tables_were_mended_writes_nothing_more(
    own: Settings, look: tuple[str, ...], command: tuple[str, ...]
) -> None:
    topology, cluster = build_topology(own), cluster_of(own)
    topic, home = topology.changelog(REQUEST_TABLE), topology.workspace_partition("acme")
    key = account_key("acme", "2026-11").encode()

    def row(spent: int) -> list[Record]:
        return [Record(topic, key, encode_row(Account(spent=spent)), partition=home)]

    async with admin_client(cluster) as admin:
        async with owning(cluster, admin, topology) as earlier:
            await earlier.write(row(5))
            # Who only looks takes nothing from anybody.
            assert (await spillway(*look)).exit_code == 0
            await earlier.write(row(6))
            done = await spillway(*command)
            assert done.exit_code == 0, done.output
            with pytest.raises(KafkaUnavailableError):
                await earlier.write(row(7))
        rows = await latest(cluster, admin, topic)
    assert rows == {(key, home): encode_row(Account(spent=6))}


def usage(workspace: str, number: int, cost: str) -> UsageEvent:
    return UsageEvent(
        request_id=f"r-{number}",
        workspace_id=workspace,
        attempt=1,
        provider="claude",
        model="claude-sonnet-5-5",
        outcome=Outcome.SUCCEEDED,
        cost=Decimal(cost),
        requested_at=MONTH,
        started_at=MONTH,
    )


async def test_accounts_are_set_to_what_the_ledger_says(own: Settings) -> None:
    lost, ahead, busy = unique("lost"), unique("ahead"), unique("busy")
    ledger = ClickHouseLedger(own)
    await ledger.write([usage(name, number, "1.25") for name in (lost, ahead, busy) for number in (1, 2)])
    await ledger.close()
    topology = build_topology(own)
    topic = topology.changelog(REQUEST_TABLE)

    def row(name: str, account: Account) -> Record:
        key = account_key(name, "2031-03").encode()
        return Record(topic, key, encode_row(account), partition=topology.workspace_partition(name))

    known = [row(ahead, Account(spent=3 * 10**9)), row(busy, Account(spent=1, reserved=7, open_requests=1))]
    await write(cluster_of(own), known)
    shown = json.loads((await spillway("budget", "restore", "--month", "2031-03", "--dry-run", "--json")).output)
    found = {one["workspace_id"]: one for one in shown["accounts"]}
    assert found[lost] == {"workspace_id": lost, "account": "0.000000000", "ledger": "2.500000000", "left": None}
    assert found[busy]["left"] == "1 requests are open"
    assert "refill" in found[ahead]["left"]
    done = await spillway("budget", "restore", "--month", "2031-03")
    assert done.exit_code == 0
    async with admin_client(cluster_of(own)) as admin:
        rows = await latest(cluster_of(own), admin, topic)
    spent = {key.decode(): decode_row(value).spent for (key, _), value in rows.items()}  # type: ignore[union-attr]
    expected = {lost: 2_500_000_000, ahead: 3_000_000_000, busy: 1}
    assert spent == {account_key(name, "2031-03"): amount for name, amount in expected.items()}
    left = json.loads((await spillway("budget", "restore", "--month", "2031-03", "--json")).output)["accounts"]
    assert lost not in [one["workspace_id"] for one in left], "a second run changes nothing"


async def test_what_operators_have_set_is_saved_and_set_again(own: Settings, tmp_path: Path) -> None:
    assert own.kafka_application_id
    workspace, file = unique("kept"), tmp_path / "set.jsonl"
    await spillway("budget", "set", workspace, "--amount", "25", "--action", "refuse")
    key = json.loads((await spillway("keys", "create", "-w", workspace, "--json")).output)
    saved = await spillway("save", str(file))
    assert saved.exit_code == 0, saved.output
    text = kept(file)
    assert key["key"] not in text
    assert key["key_id"] in text
    assert "0 settings written" in (await spillway("load", str(file))).output

    await spillway("budget", "set", workspace, "--amount", "50")
    await spillway("keys", "revoke", key["key_id"])
    again = (await spillway("load", str(file))).output
    assert "1 settings written" in again, "the key"
    assert "1 are something else now" in again
    assert (await amount(workspace)) == "50.000000000"
    assert "1 settings written" in (await spillway("load", "--overwrite", str(file))).output
    assert (await amount(workspace)) == "25.000000000"
    assert key["key_id"] in (await spillway("keys", "list")).output


def kept(file: Path) -> str:
    assert file.stat().st_mode & 0o077 == 0, "only its owner reads it"
    return file.read_text()


async def amount(workspace: str) -> str:
    found: str = json.loads((await spillway("budget", "show", workspace, "--json")).output)["budget"]
    return found


@pytest.mark.parametrize("line", ["half a line", '{"topic": "ai.requests", "key": "x", "value": {}}', '{"key": 1}'])
async def test_a_file_of_something_else_sets_nothing(own: Settings, tmp_path: Path, line: str) -> None:
    assert own.kafka_application_id
    file = tmp_path / "other.jsonl"
    file.write_text(f"\n{line}\n")
    refused = await spillway("load", str(file))
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: Line 2 is no")
