"""The sink's agent: usage into the ledger, in batches; acknowledged when the ledger has them.

While the ledger is away its rows wait in Kafka: at most `BatchPolicy.capacity` are held here, unacknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.alert import WorkspaceSpend
from schemas.codec import UndecodableError, decode, encode
from schemas.usage import UsageEvent
from streams.account.batch import BatchPolicy, months_of
from streams.account.ports import Ledger, LedgerRejectedError, LedgerUnavailableError
from streams.records import Record
from streams.runtime.agents import EventLoop, Incoming, dead_letter
from streams.runtime.app import SpillwayApp
from streams.runtime.errors import AbandonedError
from streams.runtime.outbox import Outbox
from streams.runtime.transport import DrainSignal
from streams.topology import SPEND, USAGE, Topology

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Row:
    """A usage event and the promise to its input that it will be in the ledger."""

    usage: UsageEvent
    written: asyncio.Future[None]


class Sink:
    """Collects rows, writes batches, tells what the touched workspaces have spent."""

    def __init__(
        self,
        *,
        topology: Topology,
        ledger: Ledger,
        policy: BatchPolicy,
        outbox: Outbox,
        drain: DrainSignal,
        observe_spend: bool = True,
    ) -> None:
        self._topology = topology
        self._ledger = ledger
        self._policy = policy
        self._outbox = outbox
        self._drain = drain
        self._observe_spend = observe_spend
        self._rows: list[Row] = []
        self._due = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        drain.on_drain(self._due.set)

    async def handle(self, incoming: Incoming) -> None:
        """Return when the row is in the ledger."""
        try:
            usage = decode(UsageEvent, incoming.value)
        except UndecodableError as error:
            return await self._outbox.publish(dead_letter(incoming, error.code, str(error)))
        row = Row(usage, asyncio.get_running_loop().create_future())
        self._rows.append(row)
        if len(self._rows) >= self._policy.rows:
            self._due.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_until_empty())
        try:
            return await row.written
        except LedgerRejectedError as error:
            return await self._outbox.publish(dead_letter(incoming, "ledger_rejected", str(error)))

    async def _write_until_empty(self) -> None:
        while self._rows:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), self._policy.seconds)
            self._due.clear()
            batch, self._rows = self._rows[: self._policy.rows], self._rows[self._policy.rows :]
            await self._write(batch)

    async def _write(self, batch: Sequence[Row]) -> None:
        try:
            await self._store([row.usage for row in batch])
        except AbandonedError as error:
            _finish(batch, error)
        except LedgerRejectedError as error:
            await self._write_apart(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows' inputs must hear of it
            log.error("sink_fault: %s", type(error).__name__)  # noqa: TRY400 - it may quote a row
            _finish(batch, error)
        else:
            _finish(batch, None)

    async def _write_apart(self, batch: Sequence[Row], error: LedgerRejectedError) -> None:
        """One bad row must not keep the others out: halve the batch until it stands alone."""
        if len(batch) == 1:
            return _finish(batch, error)
        middle = len(batch) // 2
        await self._write(batch[:middle])
        await self._write(batch[middle:])
        return None

    async def _store(self, usages: Sequence[UsageEvent]) -> None:
        """Write, and tell the spend, again and again until it is done or the worker goes."""
        tries = 0
        while True:
            try:
                await self._ledger.write(usages)
                return await self._tell_spend(usages)
            except LedgerUnavailableError as error:
                tries += 1
                wait = self._policy.retry_wait(tries)
                log.warning("ledger_unavailable: next try in %.0f s: %s", wait, error)
                if await self._drain.wait(wait):
                    raise AbandonedError from error

    async def _tell_spend(self, usages: Sequence[UsageEvent]) -> None:
        if not self._observe_spend:
            return
        spent = await self._ledger.spent(months_of(usages))
        await self._outbox.publish(
            *(
                self._spend_record(WorkspaceSpend(workspace_id=workspace, month=month, spent=cost))
                for (workspace, month), cost in spent.items()
            )
        )

    def _spend_record(self, spend: WorkspaceSpend) -> Record:
        home = self._topology.workspace_partition(spend.workspace_id)
        return Record(SPEND, spend.workspace_id.encode(), encode(spend), partition=home)


def _finish(batch: Sequence[Row], error: Exception | None) -> None:
    for row in batch:
        if row.written.done():
            continue
        if error is None:
            row.written.set_result(None)
        else:
            row.written.set_exception(error)


def register(app: SpillwayApp, sink: Sink, policy: BatchPolicy, outbox: Outbox) -> None:
    """Subscribe the sink to the usage topic."""
    loop = EventLoop(sink.handle, limit=policy.capacity, outbox=outbox, drain=app.drain)
    topic = app.topic(USAGE, key_type=bytes, value_type=bytes)

    async def account(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="account")(account)
