"""Settlement's agent: reads the reports, closes requests, publishes responses and usage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from schemas.codec import UndecodableError, decode, encode, event_headers
from schemas.internal import AttemptReport
from schemas.usage import UsageEvent
from streams.commands import Router
from streams.lifecycle import RequestRecord, request_key
from streams.ports import TopicDirectory
from streams.records import Record
from streams.replies import reply_record, response_record
from streams.runtime.agents import EventLoop, Incoming, dead_letter
from streams.runtime.app import SpillwayApp
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.replying import Replies
from streams.runtime.tables import DurableTable
from streams.settle.decide import Settlement, settle
from streams.topology import REPORTS, USAGE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SettleConfig:
    """What to do with a request whose attempt is in doubt: make another one, or fail it."""

    in_doubt: Literal["retry", "fail"] = "retry"
    in_flight: int = 256


class Settling:
    """Handles one record of the report topic."""

    def __init__(
        self,
        *,
        router: Router,
        config: SettleConfig,
        directory: TopicDirectory,
        table: DurableTable[RequestRecord],
        outbox: Outbox,
        clock: Callable[[], datetime],
    ) -> None:
        self._router = router
        self._config = config
        self._replies = Replies(outbox, directory)
        self._table = table
        self._outbox = outbox
        self._clock = clock

    async def handle(self, incoming: Incoming) -> None:
        try:
            report = decode(AttemptReport, incoming.value)
        except UndecodableError as error:
            return await self._outbox.publish(dead_letter(incoming, error.code, str(error)))
        sent, settlement = await self._apply(report, incoming.offset)
        records = self._outputs(report, settlement, incoming.partition)
        sent += [await self._outbox.post(record) for record in records]
        if settlement.response is not None and report.reply is not None:
            reply = reply_record(settlement.response, report.reply, report.traceparent)
            sent.append(asyncio.ensure_future(self._replies.send(incoming, reply)))
        return await arrived(sent)

    async def _apply(self, report: AttemptReport, offset: int) -> tuple[list[Awaitable[Any]], Settlement]:
        """Reads, decides and writes without a pause: no other report of the partition can come between."""
        key = request_key(report.workspace_id, report.request_id)
        known = self._table.get(key)
        settlement = settle(known, report, offset, self._config.in_doubt, self._clock())
        if settlement.record == known:
            return [], settlement
        return [await self._table.put(key, settlement.record)], settlement

    def _outputs(self, report: AttemptReport, settlement: Settlement, partition: int) -> list[Record]:
        records = []
        if settlement.response is not None:
            records.append(response_record(settlement.response, report.traceparent, partition))
        if settlement.usage is not None:
            records.append(usage_record(settlement.usage, report.traceparent, partition))
        if settlement.command is not None:
            records.append(self._router.record(settlement.command, self._clock()))
        return records


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
