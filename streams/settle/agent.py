"""Settlement's agent: reads the reports, closes requests, keeps accounts and answers, publishes responses and usage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from schemas.codec import UndecodableError, decode, encode, event_headers
from schemas.internal import AttemptReport
from schemas.request import AdmittedRequest
from schemas.response import Response
from schemas.usage import UsageEvent
from streams.answers import cancelled
from streams.budgets import BudgetBook
from streams.commands import Router
from streams.lifecycle import of_request_key
from streams.logs import about
from streams.metrics import NO_METRICS, Metrics
from streams.ports import TopicDirectory
from streams.records import Record
from streams.replies import as_reply, chunk_record, response_record
from streams.reports import answered, report_record
from streams.runtime.agents import EventLoop, is_passing
from streams.runtime.app import SpillwayApp
from streams.runtime.errors import AbandonedError
from streams.runtime.incoming import Incoming
from streams.runtime.letters import bury
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.replying import Replies
from streams.settle.apply import Addressed, Applied, Books, SettleConfig, apply, next_piece
from streams.settle.landing import Arrival, all_told
from streams.sharing import only_chunk
from streams.topology import REPORTS, USAGE
from streams.tracing import NO_TRACES, Traces
from streams.workspaces import Workspaces

log = logging.getLogger(__name__)


class Settling:
    """Handles one record of the report topic."""

    def __init__(
        self,
        *,
        router: Router,
        budgets: BudgetBook,
        config: SettleConfig,
        directory: TopicDirectory,
        workspaces: Workspaces,
        outbox: Outbox,
        clock: Callable[[], datetime],
        metrics: Metrics = NO_METRICS,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._metrics = metrics
        self.traces = traces
        self._router = router
        self._budgets = budgets
        self._config = config
        self._replies = Replies(outbox, directory)
        self._workspaces = workspaces
        self._outbox = outbox
        self._clock = clock
        self._telling: set[asyncio.Task[None]] = set()

    def cancel(self, key: str) -> None:
        """A request that waits for another's answer does not want it any more: no lane knows of it."""
        workspace_id, request_id = of_request_key(key)
        try:
            home = self._router.topology.workspace_partition(workspace_id)
            record = self._workspaces.request(workspace_id, request_id, home)
        except AbandonedError:
            return  # Another worker's.
        admitted = record.admitted(workspace_id, request_id) if record is not None else None
        if record is None or record.closed or not record.joined or admitted is None:
            return
        now = self._clock()
        report = report_record(answered(admitted, cancelled(admitted, (), now)), self._router.topology, now)
        telling = asyncio.get_running_loop().create_task(self._outbox.publish(report))
        self._telling.add(telling)
        telling.add_done_callback(self._told)

    def _told(self, telling: asyncio.Task[None]) -> None:
        self._telling.discard(telling)
        if not telling.cancelled() and (error := telling.exception()) is not None:
            log.warning("cancellation_lost: %s", type(error).__name__)

    async def handle(self, incoming: Incoming) -> None:
        try:
            report = decode(AttemptReport, incoming.value)
        except UndecodableError as error:
            return await bury(self._outbox, incoming, error.code, str(error))
        # Nothing may come between reading and writing, and no other report of the partition does: tasks begin in the
        # order of the log, and this one has not waited yet.
        self.traces.about(report.workspace_id, report.request_id, follow=report.follow)
        applied = apply(report, incoming.offset, self._books(incoming.partition), self._clock())
        written = await self._workspaces.write(applied.writes, incoming.partition)
        try:
            # A worker that has lost the partition has its rows refused here, and sends nothing.
            await arrived(written)
            await self._send(applied, report, incoming)
            self._count(applied)
            if applied.landing is not None:
                await self._tell(applied.landing, incoming)
        except Exception as error:
            if applied.landing is not None and not is_passing(error):
                # Nobody will come back to those who are not told. They are open again, and the sweep answers them.
                await arrived(await self._workspaces.write(all_told(applied.landing), incoming.partition))
            raise
        if applied.afterwards:
            await arrived(await self._workspaces.write(applied.afterwards, incoming.partition))
        return None

    async def _tell(self, landing: Arrival, incoming: Incoming) -> None:
        """Tell all aboard, some at a time. Others have their turn while a piece is on its way to the broker.

        That the flight has landed is with the broker before: whatever comes in between finds them closed, and a crash
        leaves those who are not told to the next delivery of the same report.
        """
        partition = incoming.partition
        cleared: list[Awaitable[Any]] = []
        since: str | None = ""
        while since is not None:
            piece = next_piece(landing, self._books(partition), since)
            told = [_addressed(asked, response) for asked, response in piece.answers]
            await arrived(await self._workspaces.write(piece.writes, partition))
            await arrived(await self._post(told, incoming))
            self._note(told)
            cleared += await self._workspaces.write(piece.afterwards, partition)
            since = piece.onward
            # Also where nobody was to be told, and nothing was waited for.
            await asyncio.sleep(0)
        cleared += await self._workspaces.write(all_told(landing), partition)
        await arrived(cleared)

    def _books(self, partition: int) -> Books:
        return Books(self._workspaces, partition, self._budgets, self._config)

    def _count(self, applied: Applied) -> None:
        self._note(applied.answers)
        if applied.usage is not None:
            self._metrics.attempted(applied.usage)

    def _note(self, answers: Iterable[Addressed]) -> None:
        for answer in answers:
            response = answer.response
            self._metrics.answered(response)
            log.debug("request_answered: %s", response.status, extra=about(response.request_id, response.workspace_id))

    async def _send(self, applied: Applied, report: AttemptReport, incoming: Incoming) -> None:
        """Everything that the rows permit, in order; returns when all of it is with the broker."""
        partition, trace = incoming.partition, report.traceparent
        sent = await self._post(applied.answers, incoming)
        if applied.usage is not None:
            sent.append(await self._outbox.post(usage_record(applied.usage, trace, partition)))
        for command in applied.commands:
            sent.append(await self._outbox.post(self._router.record(command, self._clock())))
        await arrived(sent)

    async def _post(self, answers: Sequence[Addressed], incoming: Incoming) -> list[Awaitable[Any]]:
        """Responses on their way, and the replies to those who have said where they want one."""
        sent: list[Awaitable[Any]] = []
        for answer in answers:
            record = response_record(answer.response, answer.traceparent, incoming.partition)
            sent.append(await self._outbox.post(record))
            if answer.reply is not None:
                replies = [as_reply(record, answer.response.request_id, answer.reply)]
                if answer.chunk is not None:
                    replies.insert(0, chunk_record(answer.chunk, answer.reply, answer.traceparent))
                sent.append(asyncio.ensure_future(self._replies.send(incoming, *replies)))
        return sent


def _addressed(asked: AdmittedRequest, response: Response) -> Addressed:
    """Another one's answer, for one who has waited for it."""
    return Addressed(response, asked.reply, asked.traceparent, only_chunk(response, asked))


def usage_record(usage: UsageEvent, traceparent: str | None, partition: int) -> Record:
    """One attempt's usage. Its CloudEvents id is the attempt's, so that a receiver can drop repeats."""
    headers = event_headers(
        event_id=usage.attempt_id,
        event_type=usage.ce_type,
        workspace_id=usage.workspace_id,
        time=usage.started_at,
        traceparent=traceparent,
    )
    return Record(USAGE, usage.workspace_id.encode(), encode(usage), headers, partition)


def register(app: SpillwayApp, settling: Settling, config: SettleConfig, outbox: Outbox) -> None:
    """Subscribe settlement to the reports."""
    loop = EventLoop(settling.handle, limit=config.in_flight, outbox=outbox, drain=app.drain, traces=settling.traces)
    loop.joins(app, "settle", REPORTS)
    topic = app.topic(REPORTS, key_type=bytes, value_type=bytes)

    async def settle_reports(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="settle")(settle_reports)
