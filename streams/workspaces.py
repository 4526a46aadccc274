"""What is kept of workspaces, as admission and settlement read and write it: one table, with a type for each row."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from schemas.base import Month
from streams.accounts import ACCOUNTS, Account, account_key
from streams.lifecycle import RequestRecord, request_key
from streams.rows import Row, kept_at
from streams.runtime.lives import Life
from streams.runtime.tables import DurableTable
from streams.runtime.transport import DrainSignal
from streams.sharing import (
    ANSWERS,
    Flight,
    Joined,
    Kept,
    Landed,
    answer_key,
    answers_prefix,
    flight_key,
    joined_key,
    joined_prefix,
    landed_prefix,
)

#: Accounts that are looked at before others have their turn.
TOGETHER = 250

OneRow = TypeVar("OneRow", RequestRecord, Account, Kept, Flight, Joined)
Writes = Mapping[str, Row | None]


class Workspaces:
    """The table's rows by what they are. Everything of a workspace is in its own partition."""

    def __init__(self, table: DurableTable[Row], drain: DrainSignal) -> None:
        self._table = table
        #: The keys of each workspace's kept answers, the oldest first, once one was kept here.
        self._answers: dict[str, dict[str, None]] = {}
        #: Accounts that have changed and have not been told of: key and partition.
        self._changed: dict[str, int] = {}
        drain.on_drain(self._answers.clear)

    def request(self, workspace_id: str, request_id: str, partition: int) -> RequestRecord | None:
        """A request's record. Whoever is aboard a flight that has landed is closed by that, also before it is told."""
        record = self.row_of_request(workspace_id, request_id, partition)
        if record is None or record.closed or not record.joined:
            return record
        sharing, deadline = record.sharing, record.deadline
        if sharing is None or sharing.flight is None or deadline is None:
            return record
        landed = self.landed(workspace_id, sharing.key, sharing.flight, partition)
        over = min((row for row in landed if row.has_aboard(deadline)), key=lambda row: row.by, default=None)
        if over is None:
            return record
        # It is told by way of its row aboard. Without one (a crash took it) it is for nobody else to answer.
        aboard = self.aboard(workspace_id, sharing.key, sharing.flight, request_id, partition)
        return record if aboard is None else record.close(over.by, over.at)

    def row_of_request(self, workspace_id: str, request_id: str, partition: int) -> RequestRecord | None:
        """A request's record as its row has it: for the one who lets its flight land."""
        return self._get(RequestRecord, request_key(workspace_id, request_id), partition)

    def rows_of_request(self, workspace_id: str, request_id: str, partition: int) -> dict[str, Row | None]:
        """All that is kept of a request itself: its record, and its row aboard where it waits for another's answer."""
        record = self.row_of_request(workspace_id, request_id, partition)
        if record is None:
            return {}
        rows: dict[str, Row | None] = {request_key(workspace_id, request_id): record}
        sharing = record.sharing
        if sharing is not None and sharing.joined and sharing.flight is not None:
            aboard = self.aboard(workspace_id, sharing.key, sharing.flight, request_id, partition)
            if aboard is not None:
                rows[joined_key(workspace_id, sharing.key, sharing.flight, request_id)] = aboard
        return rows

    def account(self, workspace_id: str, month: Month, partition: int) -> Account:
        return self._get(Account, account_key(workspace_id, month), partition) or Account()

    def flight(self, workspace_id: str, key: str, partition: int) -> Flight | None:
        return self._get(Flight, flight_key(workspace_id, key), partition)

    def kept(self, workspace_id: str, key: str, partition: int) -> tuple[Kept, ...]:
        """The answers that are kept under a key: seldom more than one."""
        rows = self._table.scan(answers_prefix(workspace_id, key), partition)
        return tuple(row for _, row in rows if isinstance(row, Kept))

    def joined(
        self, workspace_id: str, key: str, flight: int, partition: int, since: str = ""
    ) -> Iterator[tuple[str, Joined]]:
        """Who waits for a flight's leader: request ids, from `since` on, and rows."""
        prefix = joined_prefix(workspace_id, key, flight)
        for name, row in self._table.walk(prefix, partition, prefix + since):
            if isinstance(row, Joined):
                yield name.removeprefix(prefix), row

    def aboard(self, workspace_id: str, key: str, flight: int, request_id: str, partition: int) -> Joined | None:
        return self._get(Joined, joined_key(workspace_id, key, flight, request_id), partition)

    def landed(self, workspace_id: str, key: str, flight: int, partition: int) -> list[Landed]:
        """How a flight has landed, as far as not everybody is told: seldom more than once."""
        rows = self._table.scan(landed_prefix(workspace_id, key, flight), partition)
        return [row for _, row in rows if isinstance(row, Landed)]

    def life(self, partition: int) -> Life:
        """The present ownership of a partition. Raises AbandonedError where it is another worker's."""
        return self._table.life(partition)

    async def write(self, writes: Writes, partition: int) -> list[Future[Any]]:
        """Write rows in this order; the results are done when the broker has them."""
        self._changed |= dict.fromkeys((key for key in writes if key.startswith(ACCOUNTS)), partition)
        return await self._table.put_all(writes, partition)

    def keep(self, workspace_id: str, key: str, kept: Kept, most: int, partition: int) -> dict[str, Row | None]:
        """The writes that keep an answer, and let go of the oldest one where there are too many."""
        known = self._answers_of(workspace_id, partition)
        name = answer_key(workspace_id, key, kept.leader)
        known.pop(name, None)
        known[name] = None
        writes: dict[str, Row | None] = {name: kept}
        while len(known) > most:
            oldest = next(iter(known))
            del known[oldest]
            writes[oldest] = None
        return writes

    def _answers_of(self, workspace_id: str, partition: int) -> dict[str, None]:
        known = self._answers.get(workspace_id)
        if known is None:
            # There may be ten thousand, and each is a whole answer: only the moments are read.
            rows = self._table.walk_raw(answers_prefix(workspace_id), partition)
            kept = sorted((kept_at(stored), name) for name, stored in rows)
            known = self._answers[workspace_id] = {name: None for _, name in kept}
        return known

    def forget(self, key: str) -> None:
        """A sweep has removed a row: it may have been a kept answer."""
        if key.startswith(ANSWERS):
            workspace_id = key.removeprefix(ANSWERS).partition("/")[0]
            self._answers.get(workspace_id, {}).pop(key, None)

    # Accounts that are to be told of -------------------------------------------------------------------------------

    async def touch_accounts(self, partition: int) -> None:
        """All accounts of a partition are to be told of: it has a new owner. There may be thousands; others have their
        turn in between.
        """
        for number, (name, _) in enumerate(self._table.walk_raw(ACCOUNTS, partition), 1):
            self._changed[name] = partition
            if number % TOGETHER == 0:
                await asyncio.sleep(0)

    def touch_account(self, key: str, partition: int) -> None:
        """This one is to be told of, again."""
        self._changed[key] = partition

    def take_changed(self) -> dict[str, int]:
        changed, self._changed = self._changed, {}
        return changed

    def _get(self, kind: type[OneRow], key: str, partition: int) -> OneRow | None:
        row = self._table.get(key, partition)
        return row if isinstance(row, kind) else None
