"""A topic into a table of the ledger, batch by batch: what all sinks have in common.

While the ledger is away its rows wait in Kafka: one batch is held here, unacknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from typing import Any, Generic, TypeVar

from schemas.codec import UndecodableError
from streams.account.batch import BatchPolicy
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError
from streams.runtime.batches import incoming_of
from streams.runtime.errors import AbandonedError, StagePausedError
from streams.runtime.faults import FaultLimits, Faults, Whose, judge
from streams.runtime.letters import bury
from streams.runtime.outbox import Outbox
from streams.runtime.transport import DrainSignal
from streams.tracing import NO_TRACES, Traces, now

log = logging.getLogger(__name__)

R = TypeVar("R")
#: A record of Kafka, and its row.
Taken = tuple[Any, R]

#: Rows that are read without letting anybody else have the loop: some five milliseconds.
STRETCH = 250


class Sink(Generic[R]):
    """Reads a topic's records into rows, writes them, and buries what no ledger can hold.

    A record of which `read` makes None has nothing to keep. `touches` says what a row changes beyond itself; `settle`
    is told that once, before the rows are acknowledged.
    """

    def __init__(
        self,
        *,
        topic: str,
        read: Callable[[Any], R | None],
        write: Callable[[Sequence[R]], Awaitable[None]],
        policy: BatchPolicy,
        outbox: Outbox,
        drain: DrainSignal,
        touches: Callable[[R], Hashable] = lambda _: None,
        settle: Callable[[Collection[Any]], Awaitable[None]] | None = None,
        traces: Traces = NO_TRACES,
        faults: Faults | None = None,
    ) -> None:
        self.topic = topic
        self._read = read
        self._write = write
        self._policy = policy
        self._outbox = outbox
        self._drain = drain
        self._touches = touches
        self._settle = settle
        self._traces = traces
        self._faults = faults or FaultLimits().count_of(topic)
        self._touched: set[Any] = set()
        #: How many writes wait for the ledger to come back.
        self._waiting = 0

    @property
    def is_held_up(self) -> bool:
        return self._waiting > 0

    async def take(self, records: Sequence[Any]) -> None:
        """Return when each record is in the ledger or with the dead letters. Raises AbandonedError.

        Of a large batch one part is written while the next one is read.
        """
        writing: asyncio.Task[None] | None = None
        try:
            for begin in range(0, len(records), self._policy.rows):
                rows = await self._rows_of(records[begin : begin + self._policy.rows])
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._store(rows))
            if writing is not None:
                await writing
        finally:
            if writing is not None:
                writing.cancel()

    async def _rows_of(self, records: Sequence[Any]) -> list[Taken[R]]:
        rows: list[Taken[R]] = []
        for begin in range(0, len(records), STRETCH):
            for record in records[begin : begin + STRETCH]:
                try:
                    row = self._read(record)
                except UndecodableError as error:
                    await self._bury(record, error.code, str(error))
                except Exception as error:  # noqa: BLE001 - no record may stop a partition
                    await self._give_up(record, "internal_error", error)
                else:
                    if row is not None:
                        rows.append((record, row))
            await asyncio.sleep(0)
        return rows

    async def checkpoint(self) -> None:
        """Tell what the rows have touched since the last checkpoint. Raises AbandonedError."""
        if self._settle is not None and self._touched:
            settle, touched = self._settle, frozenset(self._touched)
            await self._until_there(lambda: settle(touched))
            self._touched -= touched

    async def _store(self, rows: Sequence[Taken[R]]) -> None:
        """One bad row must not keep the others out: halve the batch until it stands alone."""
        if not rows:
            return None
        begun = now()
        try:
            await self._until_there(lambda: self._write([row for _, row in rows]))
        except (AbandonedError, StagePausedError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the others out
            return await self._store_apart(rows, error)
        self._faults.succeeded()
        if self._settle is not None:
            self._touched.update(self._touches(row) for _, row in rows)
        self._traces.stored([record for record, _ in rows], begun)
        return None

    async def _store_apart(self, rows: Sequence[Taken[R]], error: Exception) -> None:
        if len(rows) > 1:
            middle = len(rows) // 2
            await self._store(rows[:middle])
            return await self._store(rows[middle:])
        code = "ledger_rejected" if isinstance(error, LedgerRejectedError) else "internal_error"
        return await self._give_up(rows[0][0], code, error)

    async def _give_up(self, record: Any, code: str, error: Exception) -> None:
        """One record that no ledger can hold, or this version cannot read. Raises StagePausedError instead where one
        after the other is so: the fault is then in the program or in the ledger's tables.
        """
        # The text of an unknown error may quote a row.
        words = str(error) if isinstance(error, LedgerRejectedError) else f"Spillway failed: {type(error).__name__}"
        workspace = (record.key or b"").decode(errors="replace")
        if judge(error) is Whose.OURS or self._faults.add(workspace):
            raise StagePausedError(f"records of {self.topic} fail one after the other; the last one: {words}")
        log.error("sink_fault: %s: %s", self.topic, type(error).__name__)
        await self._bury(record, code, words)

    async def _until_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Again and again while the ledger is away, until it is done or the worker goes."""
        tries = 0
        while True:
            try:
                return await work()
            except LedgerUnavailableError as error:
                tries += 1
                wait = self._policy.retry_wait(tries)
                log.warning("ledger_unavailable: next try in %.0f s: %s", wait, error)
                self._waiting += 1
                try:
                    if await self._drain.wait(wait):
                        raise AbandonedError from error
                finally:
                    self._waiting -= 1

    async def _bury(self, record: Any, code: str, message: str) -> None:
        await bury(self._outbox, incoming_of(record), code, message)
