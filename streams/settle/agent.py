"""Settlement's agent: reads the reports, closes requests, keeps accounts and answers, publishes responses and usage."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from schemas.codec import UndecodableError, decode, encode, event_headers
from schemas.internal import AttemptReport, DispatchCommand
from schemas.request import ReplyAddress
from schemas.response import Response, Status
from schemas.usage import UsageEvent
from streams.accounts import Movement, account_key
from streams.answers import cancelled
from streams.budgets import BudgetBook
from streams.commands import Router
from streams.lifecycle import RequestRecord, Sharing, of_request_key, request_key
from streams.ports import TopicDirectory
from streams.records import Record
from streams.replies import reply_record, response_record
from streams.reports import answered, report_record
from streams.rows import Row
from streams.runtime.agents import EventLoop, Incoming, dead_letter
from streams.runtime.app import SpillwayApp
from streams.runtime.errors import AbandonedError
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.replying import Replies
from streams.settle.decide import Purse, Settlement, settle
from streams.settle.landing import NOTHING_LANDS, Arrival, Landing, Passenger, land
from streams.sharing import NOTHING_IS_KEPT, CachePolicy, Kept, joined_key
from streams.topology import REPORTS, USAGE
from streams.workspaces import Workspaces

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SettleConfig:
    """What to do with a request whose attempt is in doubt: make another one, or fail it."""

    in_doubt: Literal["retry", "fail"] = "retry"
    in_flight: int = 256
    cache: CachePolicy = NOTHING_IS_KEPT


@dataclass(frozen=True)
class Addressed:
    """A response on its way to whoever asked."""

    response: Response
    reply: ReplyAddress | None
    traceparent: str | None


@dataclass
class Outcome:
    """All that a report leads to. `afterwards` is written when everything else has arrived."""

    written: list[Future[Any]]
    usage: UsageEvent | None
    answers: list[Addressed]
    commands: list[DispatchCommand] = field(default_factory=list)
    afterwards: dict[str, Row | None] = field(default_factory=dict)


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
    ) -> None:
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
            return await self._outbox.publish(dead_letter(incoming, error.code, str(error)))
        outcome = await self._apply(report, incoming)
        await self._send(outcome, report, incoming)
        if outcome.afterwards:
            await arrived(await self._workspaces.write(outcome.afterwards, incoming.partition))
        return None

    async def _apply(self, report: AttemptReport, incoming: Incoming) -> Outcome:
        """Reads, decides and writes without a pause: no other report of the partition can come between.

        Rows come in an order in which each is presupposed by the next ones (streams/rows.py).
        """
        now, offset, partition = self._clock(), incoming.offset, incoming.partition
        workspace_id = report.workspace_id
        known = self._workspaces.request(workspace_id, report.request_id, partition)
        purse = self._purse(report, known, partition)
        settlement = settle(known, report, offset, self._config.in_doubt, now, purse)
        landing = self._land(report, settlement, offset, partition)
        writes: dict[str, Row | None] = {request_key(workspace_id, report.request_id): settlement.record}
        writes |= landing.writes
        writes |= self._moved(workspace_id, settlement.record, landing, offset, now, partition)
        writes |= self._keep(report, settlement, offset, partition)
        return Outcome(
            written=await self._workspaces.write(writes, partition),
            usage=settlement.usage,
            answers=_answers(report, settlement, landing),
            commands=[command for command in (settlement.command, landing.command) if command is not None],
            afterwards=landing.afterwards | _left(report, settlement.record, offset),
        )

    def _purse(self, report: AttemptReport, known: RequestRecord | None, partition: int) -> Purse:
        budget = self._budgets.of(report.workspace_id)
        month = known.month if known is not None else None
        return Purse(self._workspaces.account(report.workspace_id, month or "", partition), budget)

    def _moved(
        self,
        workspace_id: str,
        record: RequestRecord,
        landing: Landing,
        offset: int,
        now: datetime,
        partition: int,
    ) -> dict[str, Row | None]:
        """The accounts that the report changes: nearly always one."""
        movements: defaultdict[str, Movement] = defaultdict(Movement, landing.movements)
        if record.month:
            movements[record.month] += record.movement(offset)
        rows: dict[str, Row | None] = {}
        for month, movement in movements.items():
            account = self._workspaces.account(workspace_id, month, partition)
            moved = account.settle(movement, offset, now.timestamp()) if movement else account
            if moved != account:
                rows[account_key(workspace_id, month)] = moved
        return rows

    def _land(self, report: AttemptReport, settlement: Settlement, offset: int, partition: int) -> Landing:
        """What becomes of those who wait for this request's answer, if it has been answered now."""
        record, response, workspace_id = settlement.record, settlement.response, report.workspace_id
        sharing = record.sharing
        if record.closed_by != offset or response is None or sharing is None or sharing.flight is None:
            return NOTHING_LANDS
        flight = self._workspaces.flight(workspace_id, sharing.key, partition)
        arrival = Arrival(workspace_id, report.request_id, offset, record, response, flight)
        return land(arrival, self._passengers(workspace_id, sharing, partition))

    def _passengers(self, workspace_id: str, sharing: Sharing, partition: int) -> list[Passenger]:
        found = []
        for request_id, joined in self._workspaces.joined(workspace_id, sharing.key, sharing.flight or 0, partition):
            record = self._workspaces.request(workspace_id, request_id, partition)
            if record is not None:
                found.append(Passenger(request_id, joined, record))
        return found

    def _keep(
        self, report: AttemptReport, settlement: Settlement, offset: int, partition: int
    ) -> dict[str, Row | None]:
        """The answer, for identical requests that come later."""
        record, response, policy = settlement.record, settlement.response, self._config.cache
        sharing, closed_at = record.sharing, record.closed_at
        if record.closed_by != offset or closed_at is None or sharing is None or sharing.joined or response is None:
            return {}
        if response.status is not Status.SUCCEEDED or not policy.enabled:
            return {}
        body = encode(response)
        if len(body) > policy.max_bytes:
            return {}
        kept = Kept(report.request_id, closed_at, closed_at + sharing.ttl, body)
        return self._workspaces.keep(report.workspace_id, sharing.key, kept, policy.max_entries, partition)

    async def _send(self, outcome: Outcome, report: AttemptReport, incoming: Incoming) -> None:
        """Everything, in order; returns when all of it is with the broker."""
        partition, trace = incoming.partition, report.traceparent
        sent: list[Awaitable[Any]] = [*outcome.written]
        for answer in outcome.answers:
            record = response_record(answer.response, answer.traceparent, partition)
            sent.append(await self._outbox.post(record))
            if answer.reply is not None:
                reply = reply_record(answer.response, answer.reply, answer.traceparent)
                sent.append(asyncio.ensure_future(self._replies.send(incoming, reply)))
        if outcome.usage is not None:
            sent.append(await self._outbox.post(usage_record(outcome.usage, trace, partition)))
        if any(command.admitted.guarded for command in outcome.commands):
            # What is reserved for the next attempt is safe before anybody can spend it.
            await arrived(sent)
            sent = []
        for command in outcome.commands:
            sent.append(await self._outbox.post(self._router.record(command, self._clock())))
        await arrived(sent)


def _answers(report: AttemptReport, settlement: Settlement, landing: Landing) -> list[Addressed]:
    """The request's own response, and those of the ones that waited for it."""
    own = [Addressed(settlement.response, report.reply, report.traceparent)] if settlement.response else []
    return [*own, *(Addressed(response, asked.reply, asked.traceparent) for asked, response in landing.answers)]


def _left(report: AttemptReport, record: RequestRecord, offset: int) -> dict[str, Row | None]:
    """One that waited for another's answer, and does so no longer."""
    sharing = record.sharing
    if record.closed_by != offset or sharing is None or not sharing.joined or sharing.flight is None:
        return {}
    return {joined_key(report.workspace_id, sharing.key, sharing.flight, report.request_id): None}


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
    loop = EventLoop(settling.handle, limit=config.in_flight, outbox=outbox, drain=app.drain)
    topic = app.topic(REPORTS, key_type=bytes, value_type=bytes)

    async def settle_reports(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="settle")(settle_reports)
