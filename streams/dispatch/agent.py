"""Dispatch's agents, one per provider: mark, call, report.

The order of the writes is what the promises rest on:

1. the mark is with the broker before the call, so that no call can be forgotten;
2. one report carries the usage, the answer and what comes next, so that none of them can be lost alone;
3. the command is acknowledged after the report.

A process that dies in between leaves a mark without a report. Who finds the mark does not guess: it asks settlement,
which has read every report there is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from schemas.codec import UndecodableError, decode, encode, event_headers
from schemas.internal import AttemptReport, DispatchCommand, Follow
from streams.commands import dispatch_record
from streams.dispatch.decide import (
    Attempt,
    AttemptMark,
    Expired,
    Interrupted,
    RetryPolicy,
    Start,
    judge_answer,
    judge_failure,
    plan,
    report_expired,
    report_interrupted,
)
from streams.dispatch.ports import Answer, Call, ErrorClass, Failure, PriceBook, Provider
from streams.lifecycle import request_key
from streams.records import Record
from streams.runtime.agents import EventLoop, Incoming, dead_letter
from streams.runtime.app import SpillwayApp
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.tables import DurableTable
from streams.runtime.transport import DrainSignal
from streams.topology import REPORTS, Topology, dispatch_topic

log = logging.getLogger(__name__)

#: Commands of one provider that are held beyond those being called: they wait for a retry or for a twin.
WAITING_ROOM = 4


@dataclass(frozen=True)
class DispatchConfig:
    """`in_flight` is the number of calls at once to one provider by one worker."""

    retry: RetryPolicy
    in_flight: int = 256


class Dispatcher:
    """Handles the commands of one provider's topic."""

    def __init__(
        self,
        *,
        provider: Provider,
        topology: Topology,
        config: DispatchConfig,
        prices: PriceBook,
        marks: DurableTable[AttemptMark],
        outbox: Outbox,
        drain: DrainSignal,
        clock: Callable[[], datetime],
    ) -> None:
        self._provider = provider
        self._topology = topology
        self._config = config
        self._prices = prices
        self._marks = marks
        self._outbox = outbox
        self._drain = drain
        self._clock = clock
        self._calls = asyncio.Semaphore(config.in_flight)
        self._at_work: dict[str, asyncio.Event] = {}

    async def handle(self, incoming: Incoming) -> None:
        try:
            command = decode(DispatchCommand, incoming.value)
        except UndecodableError as error:
            return await self._outbox.publish(dead_letter(incoming, error.code, str(error)))
        key = request_key(command.admitted.workspace_id, command.admitted.request_id)
        while (twin := self._at_work.get(key)) is not None:
            # The same request, delivered again while this process works on it: its mark is ours, not a dead
            # process's. When the twin is done, the mark and settlement say what is left to do.
            await twin.wait()
        done = self._at_work[key] = asyncio.Event()
        try:
            await self._work(command, key)
        finally:
            del self._at_work[key]
            done.set()
        return None

    async def _work(self, command: DispatchCommand, key: str) -> None:
        match plan(command, self._marks.get(key), self._clock()):
            case Interrupted(begun, started_at):
                await self._report(report_interrupted(self._attempt(begun, started_at), self._clock()))
            case Expired():
                await self._report(report_expired(command, self._clock()))
            case Start():
                await self._try(command, key)

    async def _try(self, command: DispatchCommand, key: str) -> None:
        """Attempts in this lane, until one of them is the last."""
        drains = self._drain.count
        while True:
            report, wait = await self._attempt_once(command, key)
            if report.follow is not Follow.RETRY or report.command is None:
                return None
            command = report.command
            if drains != self._drain.count or await self._drain.wait(wait):
                # The lane may have another owner by now: the next attempt is the owner's.
                record = dispatch_record(command, self._topology, self._clock())
                return await self._outbox.publish(record)
            if command.admitted.expired(self._clock()):
                return await self._report(report_expired(command, self._clock()))

    async def _attempt_once(self, command: DispatchCommand, key: str) -> tuple[AttemptReport, float]:
        async with self._calls:
            started_at = self._clock()
            attempt = self._attempt(command, started_at)
            await arrived([await self._marks.put(key, AttemptMark(started_at.timestamp(), command.attempts))])
            result = await self._call(attempt)
        report, wait = self._judge(attempt, result)
        await self._report(report)
        return report, wait

    async def _call(self, attempt: Attempt) -> Answer | Failure:
        admitted = attempt.command.admitted
        left = (admitted.deadline - self._clock()).total_seconds()
        attempt_id = f"{admitted.request_id}/{attempt.number}"
        try:
            return await self._provider.call(Call(admitted.request, attempt.model, timeout=left, attempt_id=attempt_id))
        except Exception as error:
            # An adapter maps all that a provider can do. What escapes it is a fault of ours, and the call may
            # have been made: the request goes to another provider and the attempt stays in doubt.
            log.exception("provider_fault: %s", self._provider.name)
            return Failure(ErrorClass.FALL_BACK, "internal_error", type(error).__name__, may_be_billed=True)

    def _judge(self, attempt: Attempt, result: Answer | Failure) -> tuple[AttemptReport, float]:
        now = self._clock()
        if isinstance(result, Answer):
            return judge_answer(attempt, result, self._priced(attempt, result), now), 0.0
        jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
        verdict = judge_failure(attempt, result, self._config.retry, now, jitter)
        log.info(
            "attempt_failed: %s: %s: %s",
            self._provider.name,
            result.code,
            verdict.report.follow,
        )
        return verdict.report, verdict.wait

    def _priced(self, attempt: Attempt, answer: Answer) -> Decimal | None:
        provider = self._provider.name
        cost = self._prices.cost(provider, answer.model, answer.tokens, attempt.started_at)
        if cost is None:
            log.error("price_unknown: %s: %s", provider, answer.model)
        return cost

    def _attempt(self, command: DispatchCommand, started_at: datetime) -> Attempt:
        admitted = command.admitted
        model = self._provider.model_for(admitted.request)
        lane = self._topology.lane(command.provider, admitted.workspace_id, admitted.request_id)
        estimate = self._prices.estimate(self._provider.name, model, admitted.request, started_at)
        return Attempt(command, model, lane.name, started_at, estimate)

    async def _report(self, report: AttemptReport) -> None:
        await self._outbox.publish(report_record(report, self._topology, self._clock()))


def report_record(report: AttemptReport, topology: Topology, now: datetime) -> Record:
    """The report in its request's own partition, where settlement keeps the request."""
    number = report.usage.attempt if report.usage else 0
    headers = event_headers(
        event_id=f"{report.request_id}/{number}/{report.follow}",
        event_type=report.ce_type,
        workspace_id=report.workspace_id,
        time=now,
        traceparent=report.traceparent,
    )
    home = topology.workspace_partition(report.workspace_id)
    return Record(REPORTS, report.workspace_id.encode(), encode(report), headers, home)


def register(app: SpillwayApp, dispatchers: Mapping[str, Dispatcher], config: DispatchConfig, outbox: Outbox) -> None:
    """Subscribe one agent to each provider's topic, so that a slow provider holds up no other."""
    for name, dispatcher in dispatchers.items():
        loop = EventLoop(
            dispatcher.handle,
            limit=config.in_flight * WAITING_ROOM,
            outbox=outbox,
            drain=app.drain,
        )
        topic = app.topic(dispatch_topic(name), key_type=bytes, value_type=bytes)
        app.agent(topic, name=f"dispatch.{name}")(_agent(loop))


def _agent(loop: EventLoop) -> Any:
    async def dispatch(stream: Any) -> None:
        await loop.run(stream)

    return dispatch
