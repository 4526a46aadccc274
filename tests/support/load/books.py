"""Whether accounts are the ledger: as their owners say, and as their changelog would bring them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from app.clickhouse.client import ClickHouse
from app.settings import Settings
from app.topics import build_topology
from schemas.budget import BudgetState
from schemas.codec import decode
from schemas.money import usd
from streams.accounts import ACCOUNTS, Account, nanos, of_key
from streams.rows import decode_row
from streams.topology import BUDGET_STATE, REQUEST_TABLE
from tests.support.reader.topics import reading

Wanted = Callable[[str], bool]


def _any(_: str) -> bool:
    return True


async def not_alike(settings: Settings, wanted: Wanted = _any) -> list[str]:
    """In words, each workspace that is wanted and whose account is not the sum of its attempts in the ledger, or still
    holds something.
    """
    ledger = await _ledger(settings, wanted)
    changelog = build_topology(settings).changelog(REQUEST_TABLE)
    anew = await _newest(settings, changelog, lambda key: key.startswith(ACCOUNTS) and wanted(of_key(key)[0]))
    said = await _newest(settings, BUDGET_STATE, lambda key: wanted(key.partition("/")[0]))
    return [
        *_differences("the changelog", ledger, ((of_key(key)[0], *_account(value)) for key, value in anew.items())),
        *_differences("the owner", ledger, (_state(value) for value in said.values())),
    ]


def _differences(who: str, ledger: Counter[str], accounts: Iterable[tuple[str, int, int]]) -> Iterable[str]:
    spent: Counter[str] = Counter()
    for workspace, so_far, reserved in accounts:
        spent[workspace] += so_far
        if reserved:
            yield f"{who} of {workspace}: {reserved} reserved"
    for workspace in sorted({*ledger, *spent}):
        if ledger[workspace] != spent[workspace]:
            yield f"{who} of {workspace}: {spent[workspace]} spent, {ledger[workspace]} in the ledger"


async def _ledger(settings: Settings, wanted: Wanted) -> Counter[str]:
    async with ClickHouse(settings) as database:
        rows = (await database.query("SELECT workspace_id, sum(cost) FROM ledger GROUP BY workspace_id")).rows
    return Counter({workspace: nanos(usd(cost)) for workspace, cost in rows if wanted(workspace)})


async def _newest(settings: Settings, topic: str, wanted: Wanted) -> dict[str, bytes]:
    """The newest value of each key that is wanted."""
    newest: dict[str, bytes] = {}
    async with reading(settings.kafka_bootstrap_servers, topic, from_start=True) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                for record in batch:
                    key = record.key.decode()
                    if wanted(key):
                        newest.pop(key, None)
                        if record.value is not None:
                            newest[key] = record.value
    return newest


def _account(value: bytes) -> tuple[int, int]:
    account = decode_row(value)
    assert isinstance(account, Account)
    return account.spent, account.reserved


def _state(value: bytes) -> tuple[str, int, int]:
    state = decode(BudgetState, value)
    return state.workspace_id, nanos(state.spent), nanos(state.reserved)
