"""Accounts of a month brought back out of the ledger, where Kafka has lost them or never had them.

A budget's account lives in the workers' table; what it has spent is, without corrections, what the ledger's attempts of
the month have cost. While no worker runs and nothing is open the one can be made of the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from app.clickhouse.client import ClickHouse
from app.clickhouse.months import around
from app.kafka import admin_client, cluster_of
from app.recovery.changelogs import Rows, latest, owning
from app.recovery.groups import refuse_at_work
from app.settings import Settings
from app.topics import build_topology
from streams.accounts import UNTOUCHED, Account, account_key, dollars, nanos
from streams.records import Record
from streams.rows import decode_row, encode_row
from streams.topology import REQUEST_TABLE, Topology

#: Seconds for the sum over a month.
TIMEOUT = 120.0

_SPENT = """
SELECT workspace_id, sum(ifNull(original_cost, cost))
FROM attempts FINAL
WHERE budget_month = {month:String}
  AND started_at >= {start:DateTime64(3, 'UTC')} AND started_at < {end:DateTime64(3, 'UTC')}
GROUP BY workspace_id
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


@dataclass(frozen=True)
class Restored:
    """An account that differs from the ledger, in US dollars. `left` says why it stays as it is, if it does."""

    workspace_id: str
    account: Decimal
    ledger: Decimal
    left: str = ""


async def restore_accounts(settings: Settings, month: str, now: datetime, *, dry_run: bool = False) -> list[Restored]:
    """Raises GroupAtWorkError, KafkaUnavailableError, ClickHouseError."""
    topology, cluster = build_topology(settings), cluster_of(settings)
    topic = topology.changelog(REQUEST_TABLE)
    start, end = around({month})
    async with ClickHouse(settings, timeout=TIMEOUT) as database:
        spent = await database.query(_SPENT, {"month": month, "start": start, "end": end})
    async with admin_client(cluster) as admin:
        await refuse_at_work(cluster, admin, topology.application_id)
        if dry_run:
            return _restored(spent.rows, await latest(cluster, admin, topic), topology, month, now)[0]
        async with owning(cluster, admin, topology) as owner:
            rows = await latest(cluster, admin, topic)
            found, records = _restored(spent.rows, rows, topology, month, now)
            await owner.write(records)
    return found


def _restored(
    spent: Iterable[tuple[str, Decimal]], rows: Rows, topology: Topology, month: str, now: datetime
) -> tuple[list[Restored], list[Record]]:
    """What differs from what the ledger has spent, and the rows that put it right."""
    topic, found, records = topology.changelog(REQUEST_TABLE), list[Restored](), list[Record]()
    for workspace_id, cost in sorted(spent):
        home = topology.workspace_partition(workspace_id)
        key = account_key(workspace_id, month).encode()
        account = _account(rows, key, home)
        one = compared(workspace_id, account, nanos(cost))
        if one is None:
            continue
        found.append(one)
        if not one.left:
            row = replace(account, spent=nanos(cost), touched_at=now.timestamp())
            records.append(Record(topic, key, encode_row(row), partition=home))
    return found, records


def _account(rows: Rows, key: bytes, home: int) -> Account:
    value = rows.get((key, home))
    row = decode_row(value) if value is not None else UNTOUCHED
    return row if isinstance(row, Account) else UNTOUCHED


def compared(workspace_id: str, account: Account, ledger: int) -> Restored | None:
    """What is to be done with an account whose month has this in the ledger (nano-dollars); None: nothing. Pure."""
    if account.spent == ledger:
        return None
    left = ""
    if account.open_requests:
        left = f"{account.open_requests} requests are open"
    elif account.spent > ledger:
        left = "the ledger knows less; `spillway refill` first"
    return Restored(workspace_id, dollars(account.spent), dollars(ledger), left)
