"""Admission's agent: reads `ai.requests`, keeps what is known of workspaces, feeds the lanes."""

from __future__ import annotations

import asyncio
import logging
import re
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from schemas.request import AdmittedRequest, ReplyAddress
from schemas.response import Response
from streams.admit.decide import (
    AdmissionPolicy,
    Answer,
    Decision,
    Duplicate,
    Forward,
    Join,
    Leader,
    Rebook,
    Settle,
    decide,
    reject,
)
from streams.admit.look import Books, Place, id_of, look, writes_of
from streams.admit.money import PriceGuess
from streams.admit.parse import Envelope, Parsed, Raw, Refusal, in_utc, parse
from streams.budgets import BudgetBook
from streams.commands import Router
from streams.logs import about
from streams.metrics import NO_METRICS, Metrics
from streams.outlook import LaneBoard, Outlook
from streams.ports import DirectoryUnavailableError, TopicDirectory
from streams.records import Record
from streams.replies import chunk_record, reply_record, response_record
from streams.reports import answered, report_record
from streams.runtime.agents import BROKER_RETRY, EventLoop
from streams.runtime.app import SpillwayApp
from streams.runtime.incoming import Incoming
from streams.runtime.letters import bury
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.replying import Replies
from streams.runtime.transport import DrainSignal
from streams.runtime.turns import Turns
from streams.sharing import only_chunk
from streams.topology import REQUESTS
from streams.tracing import NO_TRACES, Traces
from streams.workspaces import Workspaces

log = logging.getLogger(__name__)

#: Seconds by which a producer's clock may be ahead of ours.
CLOCKS_APART = 5.0

Sent = Sequence[Awaitable[Any]]


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
        budgets: BudgetBook,
        guess: PriceGuess,
        drain: DrainSignal,
        config: AdmitConfig,
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
        self._topology = router.topology
        self._own_topics = router.topology.own_names()
        self._lanes = lanes
        self._books = Books(workspaces, budgets, config.policy, guess)
        self._drain = drain
        self.turns = Turns(drain)
        self._config = config
        self._directory = directory
        self._replies = Replies(outbox, directory)
        self._workspaces = workspaces
        self._outbox = outbox
        self._clock = clock

    async def handle(self, incoming: Incoming) -> None:
        raw = Raw(incoming.value, incoming.headers, incoming.origin.identity)
        parsed = parse(raw, max_bytes=self._config.max_request_bytes)
        if isinstance(parsed, Refusal):
            return await self._refuse(incoming, parsed)
        home = self._topology.workspace_partition(parsed.request.workspace_id)
        if home != incoming.partition:
            return await self._send_home(incoming, parsed, home)
        parsed = self._traced(parsed)
        async with self.turns.turn(incoming.partition):
            refusal = await self._check_reply(incoming, parsed)
            if refusal is None:
                decision, written = await self._decide(incoming, parsed)
        if refusal is not None:
            return await self._refuse(incoming, refusal)
        _note(incoming, parsed, decision)
        return await self._carry_out(incoming, decision, written)

    async def _decide(self, incoming: Incoming, parsed: Parsed) -> tuple[Decision, list[Future[Any]]]:
        """Reads, decides and writes without a pause: no other event of the partition can come between.

        On redelivery it writes again what it finds: the write before may have been what failed.
        """
        now = self._clock()
        wait = self._outlook(parsed, now) if self._is_new(incoming) else None
        seen = look(parsed, Place(incoming.offset, incoming.partition), self._books, now, wait)
        decision = decide(parsed, seen, self._config.policy, now)
        self._trace(parsed, decision, seen.leader)
        writes = writes_of(decision, seen, now)
        return decision, await self._workspaces.write(writes, incoming.partition) if writes else []

    def _traced(self, parsed: Parsed) -> Parsed:
        """The request as it goes on: whatever comes of it, and whenever, belongs to the trace that it has here."""
        envelope = parsed.envelope
        here = self.traces.here(envelope.traceparent)
        return parsed if here == envelope.traceparent else replace(parsed, envelope=replace(envelope, traceparent=here))

    def _trace(self, parsed: Parsed, decision: Decision, leader: Leader | None) -> None:
        cached = decision.response.cached if isinstance(decision, Answer) else None
        told = type(decision).__name__.lower()
        self.traces.about(
            parsed.request.workspace_id, id_of(parsed), kind=parsed.request.kind, decision=told, cached=cached
        )
        if isinstance(decision, Join) and leader is not None:
            self.traces.follows(leader.traceparent)

    def _is_new(self, incoming: Incoming) -> bool:
        """Whether no earlier owner of the partition can have had this record."""
        return incoming.timestamp / 1000 > self._drain.changed_at + CLOCKS_APART

    def _outlook(self, parsed: Parsed, now: datetime) -> Outlook:
        request, request_id = parsed.request, id_of(parsed)

        def wait(provider: str) -> float:
            lane = self._router.lane_at(provider, request, request.workspace_id, request_id)
            return self._lanes.wait(lane.name, now)

        return wait

    async def _carry_out(self, incoming: Incoming, decision: Decision, written: Sent) -> None:
        """Send what was decided, after its rows are with the broker.

        A worker that has lost the partition has its rows refused, and sends nothing. A crash in between finds written
        down which way was chosen, what was reserved and what is answered.
        """
        match decision:
            case Duplicate() | Rebook() | Join():
                await arrived(written)
            case Settle(admitted, response):
                await arrived(written)
                await self._outbox.publish(report_record(answered(admitted, response), self._topology, self._clock()))
            case Forward(_, command):
                await arrived(written)
                await self._outbox.publish(self._router.record(command, self._clock()))
            case Answer(_, response, admitted, fault):
                trace = admitted.traceparent
                await arrived(written)
                replies = self._reply(incoming, response, admitted.reply, trace, admitted)
                letters = [self._buried(incoming, fault.code, fault.message)] if fault else []
                await self._publish([*replies, *letters], [self._response(response, trace)])
                self._metrics.answered(response)

    async def _publish(self, sent: Sent, records: list[Record]) -> None:
        await arrived([*sent, *[await self._outbox.post(record) for record in records]])

    async def _send_home(self, incoming: Incoming, parsed: Parsed, home: int) -> None:
        """A record without a key, or with a key of another partitioner, belongs to its workspace's partition.

        The id that it was given here goes with it: the copy has coordinates of its own.
        """
        self.traces.about(parsed.request.workspace_id, id_of(parsed), decision="home")
        headers = incoming.headers
        if parsed.request.request_id is None:
            own = ("ce_id", parsed.envelope.request_id.encode())
            headers = (*(pair for pair in headers if pair[0].lower() != "ce_id"), own)
        key = parsed.request.workspace_id.encode()
        await self._outbox.publish(Record(REQUESTS, key, incoming.value, headers, home))

    async def _check_reply(self, incoming: Incoming, parsed: Parsed) -> Refusal | None:
        """A reply topic that cannot be written to is refused now, before anything is paid for.

        While nobody can say whether it exists, the partition waits: see `Turns`.
        """
        reply = parsed.envelope.reply
        if reply is None:
            return None
        # The response still goes to `ai.responses`; only the address is of no use.
        envelope = _without_reply(parsed)
        if self._is_forbidden(reply.topic):
            message = f"Replies may not be sent to the topic {reply.topic:.249}."
            return Refusal(envelope, "reply_topic_not_allowed", message)
        while True:
            try:
                exists = await self._directory.exists(reply.topic)
                break
            except DirectoryUnavailableError:
                await self.turns.wait(incoming.partition, BROKER_RETRY)
        if not exists:
            message = f"The reply topic {reply.topic:.249} does not exist; create it first."
            return Refusal(envelope, "reply_topic_not_found", message)
        return None

    def _is_forbidden(self, topic: str) -> bool:
        allowed = self._config.reply_topics.fullmatch(topic)
        return topic in self._own_topics or topic.startswith("__") or not allowed

    async def _refuse(self, incoming: Incoming, refusal: Refusal) -> None:
        """A rejected response where it can be read, the original bytes in the dead letters in any case.

        Nothing is written down of it, so the response has the record's own time: the same for each delivery.
        """
        reply = refusal.envelope.reply
        if reply is not None and (self._is_forbidden(reply.topic) or not await self._directory.exists(reply.topic)):
            reply = None
        response = reject(refusal, in_utc(max(incoming.timestamp, 0) / 1000))
        trace = refusal.envelope.traceparent
        self.traces.about(response.workspace_id, response.request_id, decision="refuse")
        log.info("request_refused: %s", refusal.code, extra=about(response.request_id, response.workspace_id))
        letter = self._buried(incoming, refusal.code, refusal.message)
        replies = self._reply(incoming, response, reply, trace)
        await self._publish([*replies, letter], [self._response(response, trace)])
        self._metrics.answered(response)

    def _buried(self, incoming: Incoming, code: str, message: str) -> Awaitable[None]:
        """The dead letter on its way."""
        return asyncio.ensure_future(bury(self._outbox, incoming, code, message))

    def _response(self, response: Response, trace: str | None) -> Record:
        return response_record(response, trace, self._topology.workspace_partition(response.workspace_id))

    def _reply(
        self,
        incoming: Incoming,
        response: Response,
        reply: ReplyAddress | None,
        trace: str | None,
        admitted: AdmittedRequest | None = None,
    ) -> list[Awaitable[Any]]:
        """The reply on its way, where one is wanted; for whoever reads chunks, with the whole of it as one."""
        if reply is None:
            return []
        chunk = only_chunk(response, admitted) if admitted else None
        records = [chunk_record(chunk, reply, trace)] if chunk else []
        records.append(reply_record(response, reply, trace))
        return [asyncio.ensure_future(self._replies.send(incoming, *records))]


def _note(incoming: Incoming, parsed: Parsed, decision: Decision) -> None:
    who = about(id_of(parsed), parsed.request.workspace_id)
    if isinstance(decision, Duplicate | Rebook):
        log.info("duplicate_request: %s[%s]@%s", incoming.topic, incoming.partition, incoming.offset, extra=who)
    else:
        log.debug("request_admitted: %s", type(decision).__name__.lower(), extra=who)


def _without_reply(parsed: Parsed) -> Envelope:
    envelope = parsed.envelope
    return Envelope(
        request_id=parsed.request.request_id or envelope.request_id,
        workspace_id=parsed.request.workspace_id,
        traceparent=envelope.traceparent,
    )


def register(app: SpillwayApp, admission: Admission, config: AdmitConfig, outbox: Outbox) -> None:
    """Subscribe admission to `ai.requests`."""
    loop = EventLoop(admission.handle, limit=config.in_flight, outbox=outbox, drain=app.drain, traces=admission.traces)
    loop.joins(app, "admit", REQUESTS)
    admission.turns.is_closed = lambda: loop.is_paused
    topic = app.topic(REQUESTS, key_type=bytes, value_type=bytes)

    async def admit(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="admit")(admit)
