"""Admission's agent: reads `ai.requests`, keeps the request table, feeds the lanes."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.request import ReplyAddress
from schemas.response import Response
from streams.admit.decide import (
    AdmissionPolicy,
    Answer,
    Duplicate,
    Forward,
    Seen,
    decide,
    reject,
)
from streams.admit.parse import Envelope, Parsed, Raw, Refusal, parse
from streams.commands import Router
from streams.lifecycle import RequestRecord, request_key
from streams.outlook import LaneBoard, Outlook
from streams.ports import TopicDirectory
from streams.records import Record
from streams.replies import reply_record, response_record
from streams.runtime.agents import EventLoop, Incoming, dead_letter
from streams.runtime.app import SpillwayApp
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.replying import Replies
from streams.runtime.tables import DurableTable
from streams.runtime.transport import DrainSignal
from streams.topology import REQUESTS

log = logging.getLogger(__name__)

#: Seconds by which a producer's clock may be ahead of ours.
CLOCKS_APART = 5.0


@dataclass(frozen=True)
class AdmitConfig:
    """What admission is allowed: record sizes in bytes, and which topics it may reply to."""

    policy: AdmissionPolicy
    max_request_bytes: int
    reply_topics: re.Pattern[str]
    in_flight: int = 256


class Admission:
    """Handles one record of `ai.requests`."""

    def __init__(
        self,
        *,
        router: Router,
        lanes: LaneBoard,
        drain: DrainSignal,
        config: AdmitConfig,
        directory: TopicDirectory,
        table: DurableTable[RequestRecord],
        outbox: Outbox,
        clock: Callable[[], datetime],
    ) -> None:
        self._router = router
        self._topology = router.topology
        self._own_topics = router.topology.own_names()
        self._lanes = lanes
        self._drain = drain
        self._config = config
        self._directory = directory
        self._replies = Replies(outbox, directory)
        self._table = table
        self._outbox = outbox
        self._clock = clock

    async def handle(self, incoming: Incoming) -> None:
        identity = f"{incoming.topic}/{incoming.partition}/{incoming.offset}/{incoming.timestamp}"
        raw = Raw(incoming.value, incoming.headers, identity)
        parsed = parse(raw, max_bytes=self._config.max_request_bytes)
        if isinstance(parsed, Refusal):
            return await self._refuse(incoming, parsed)
        home = self._topology.workspace_partition(parsed.request.workspace_id)
        if home != incoming.partition:
            return await self._send_home(incoming, parsed, home)
        if refusal := await self._check_reply(parsed):
            return await self._refuse(incoming, refusal)
        return await self._admit(incoming, parsed)

    async def _admit(self, incoming: Incoming, parsed: Parsed) -> None:
        """Reads, decides and writes without a pause: no other event of the partition can come between."""
        workspace = parsed.request.workspace_id
        key = request_key(workspace, parsed.request.request_id or parsed.envelope.request_id)
        known = self._table.get(key)
        now = self._clock()
        seen = Seen(incoming.offset, known, self._outlook(parsed, now) if self._is_new(incoming) else None)
        decision = decide(parsed, seen, self._config.policy, now)
        match decision:
            case Duplicate():
                log.info("duplicate_request: %s in %s", key, incoming.topic)
            case Forward(record, command):
                sent = [] if known == record else [await self._table.put(key, record)]
                if record.route:
                    # Delivered again, it must find the way that was chosen, before anybody has gone it.
                    await arrived(sent)
                    sent = []
                await self._publish(sent, [self._router.record(command, self._clock())])
            case Answer(record, response, admitted, bury):
                sent = [] if known == record else [await self._table.put(key, record)]
                trace = parsed.envelope.traceparent
                records = [self._response(response, trace)]
                if bury:
                    records.append(dead_letter(incoming, bury.code, bury.message))
                replies = self._reply(incoming, response, admitted.reply if admitted else None, trace)
                await self._publish([*sent, *replies], records)

    def _is_new(self, incoming: Incoming) -> bool:
        """Whether no earlier owner of the partition can have had this record."""
        return incoming.timestamp / 1000 > self._drain.changed_at + CLOCKS_APART

    def _outlook(self, parsed: Parsed, now: datetime) -> Outlook:
        request = parsed.request
        request_id = request.request_id or parsed.envelope.request_id

        def wait(provider: str) -> float:
            lane = self._router.lane_at(provider, request, request.workspace_id, request_id)
            return self._lanes.wait(lane.name, now)

        return wait

    async def _publish(self, sent: Sequence[Awaitable[Any]], records: list[Record]) -> None:
        await arrived([*sent, *[await self._outbox.post(record) for record in records]])

    async def _send_home(self, incoming: Incoming, parsed: Parsed, home: int) -> None:
        """A record without a key, or with a key of another partitioner, belongs to its workspace's partition.

        The id that it was given here goes with it: the copy has coordinates of its own.
        """
        headers = incoming.headers
        if parsed.request.request_id is None:
            own = ("ce_id", parsed.envelope.request_id.encode())
            headers = (*(pair for pair in headers if pair[0].lower() != "ce_id"), own)
        key = parsed.request.workspace_id.encode()
        await self._outbox.publish(Record(REQUESTS, key, incoming.value, headers, home))

    async def _check_reply(self, parsed: Parsed) -> Refusal | None:
        """A reply topic that cannot be written to is refused now, before anything is paid for."""
        reply = parsed.envelope.reply
        if reply is None:
            return None
        # The response still goes to `ai.responses`; only the address is of no use.
        envelope = _without_reply(parsed)
        if self._is_forbidden(reply.topic):
            message = f"Replies may not be sent to the topic {reply.topic:.249}."
            return Refusal(envelope, "reply_topic_not_allowed", message)
        if not await self._directory.exists(reply.topic):
            message = f"The reply topic {reply.topic:.249} does not exist; create it first."
            return Refusal(envelope, "reply_topic_not_found", message)
        return None

    def _is_forbidden(self, topic: str) -> bool:
        allowed = self._config.reply_topics.fullmatch(topic)
        return topic in self._own_topics or topic.startswith("__") or not allowed

    async def _refuse(self, incoming: Incoming, refusal: Refusal) -> None:
        """A rejected response where it can be read, the original bytes in the dead letters in any case."""
        reply = refusal.envelope.reply
        if reply is not None and (self._is_forbidden(reply.topic) or not await self._directory.exists(reply.topic)):
            reply = None
        response = reject(refusal, self._clock())
        trace = refusal.envelope.traceparent
        log.info("request_refused: %s: %s", refusal.code, response.request_id)
        letter = dead_letter(incoming, refusal.code, refusal.message)
        await self._publish(self._reply(incoming, response, reply, trace), [self._response(response, trace), letter])

    def _response(self, response: Response, trace: str | None) -> Record:
        return response_record(response, trace, self._topology.workspace_partition(response.workspace_id))

    def _reply(
        self, incoming: Incoming, response: Response, reply: ReplyAddress | None, trace: str | None
    ) -> list[Awaitable[Any]]:
        """The reply on its way, where one is wanted."""
        if reply is None:
            return []
        return [asyncio.ensure_future(self._replies.send(incoming, reply_record(response, reply, trace)))]


def _without_reply(parsed: Parsed) -> Envelope:
    envelope = parsed.envelope
    return Envelope(
        request_id=parsed.request.request_id or envelope.request_id,
        workspace_id=parsed.request.workspace_id,
        traceparent=envelope.traceparent,
    )


def register(app: SpillwayApp, admission: Admission, config: AdmitConfig, outbox: Outbox) -> None:
    """Subscribe admission to `ai.requests`."""
    loop = EventLoop(admission.handle, limit=config.in_flight, outbox=outbox, drain=app.drain)
    topic = app.topic(REQUESTS, key_type=bytes, value_type=bytes)

    async def admit(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="admit")(admit)
