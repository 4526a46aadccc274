"""Dispatch's agents, one per provider: wait for a turn, mark, call, report.

The order of the writes is what the promises rest on:

1. the mark, and what the call takes from its lane's limits, are with the broker before the call, so that no call can
   be forgotten and no quota be spent twice;
2. one report carries the usage, the answer and what comes next, so that none of them can be lost alone;
3. the command is acknowledged after the report.

A process that dies in between leaves a mark without a report. Who finds the mark does not guess: it asks settlement,
which has read every report there is.

A rebalance ends no call. Where its partition has gone to another worker, or comes back in a later life, the call is
finished and reported, and writes no row any more; its mark says who makes it and until when, and whoever finds the mark
waits for that report while its owner lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from schemas.codec import UndecodableError, decode
from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.response import Status
from schemas.usage import Tokens
from streams.answers import CANCELLED
from streams.cancellations import CancellationBoard
from streams.commands import Place, Router
from streams.dispatch.chunks import ChunkStream, wants_chunks
from streams.dispatch.crew import Crew, Visit
from streams.dispatch.decide import (
    Attempt,
    AttemptMark,
    Expired,
    Interrupted,
    PassedOn,
    Start,
    cut_short,
    handed_on,
    judge_answer,
    judge_failure,
    onward,
    plan,
    report_cancelled,
    report_expired,
    report_interrupted,
    report_not_sent,
    report_unavailable,
    too_large,
)
from streams.dispatch.desk import Cancelled, Desk, GivenUp, Granted, PassOn, TooLate, Turn
from streams.dispatch.lane import Reservation
from streams.dispatch.ownership import Ownership
from streams.dispatch.ports import NOT_SENT, Answer, Call, ErrorClass, Failure, PriceBook, Provider
from streams.dispatch.spans import traced
from streams.dispatch.stations import DispatchConfig, Station, Stations
from streams.dispatch.unreported import Unreported
from streams.logs import about
from streams.reports import report_record
from streams.runtime.agents import EventLoop
from streams.runtime.app import SpillwayApp
from streams.runtime.errors import AbandonedError
from streams.runtime.incoming import Incoming, incoming_from
from streams.runtime.letters import TOO_LARGE, bury
from streams.runtime.lives import Life
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.pausing import StagePause
from streams.runtime.progress import Standing
from streams.runtime.tables import DurableTable
from streams.runtime.transport import DrainSignal
from streams.tokens import estimate_tokens
from streams.topology import Lane as LanePlace
from streams.topology import dispatch_topic
from streams.tracing import NO_TRACES, Fact, Traces

log = logging.getLogger(__name__)

#: Seconds that a mark may take to the broker without making its call's time shorter, and the report of the call.
MARK_ARRIVES = 5.0
REPORT_ARRIVES = 5.0
#: Seconds between two looks whether the owner of a mark still lives.
LOOK_AGAIN = 1.0


@dataclass(frozen=True)
class Begun:
    """A call that is permitted: what it holds of its lane, when it ends at the latest, and whether its pieces may be
    told.
    """

    held: Reservation
    ends_at: float
    may_tell: Callable[[], bool]


class Dispatcher:
    """Handles the commands of one provider's topic."""

    def __init__(
        self,
        *,
        provider: Provider,
        router: Router,
        config: DispatchConfig,
        prices: PriceBook,
        marks: DurableTable[AttemptMark],
        stations: Stations,
        cancellations: CancellationBoard,
        outbox: Outbox,
        unreported: Unreported,
        drain: DrainSignal,
        clock: Callable[[], datetime],
        ownership: Ownership,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._ownership = ownership
        self._unreported = unreported
        self._provider = provider
        self._router = router
        self._config = config
        self._prices = prices
        self._marks = marks
        self._stations = stations
        self._outbox = outbox
        self._drain = drain
        self._clock = clock
        self._at_work: dict[str, Visit] = {}
        #: Visits that have made a call, and whose last word is not with the broker yet.
        self._calling: set[Visit] = set()
        drain.on_drain(self._let_twins_go)
        ownership.on_end(self._let_twins_go)
        # A visit publishes one thing last; the pieces of its answer, which may be megabytes, are not kept for it.
        self._loop = EventLoop(
            self._bury, limit=1, outbox=outbox, drain=drain, traces=traces, whose=_whose, says_once=False
        )
        self._crew = Crew(self._loop)
        self._cancellations = cancellations
        cancellations.on_cancel(self._cancel)

    def _cancel(self, key: str) -> None:
        if (visit := self._at_work.get(key)) is not None:
            visit.cancel()

    @property
    def calls(self) -> int:
        """How many calls are on the wire, or not reported yet."""
        return len(self._calling)

    def _let_twins_go(self) -> None:
        """They wait for calls that may take longer than a drain; where they are delivered again, they wait again."""
        for visit in list(self._at_work.values()):
            visit.tell_twins()

    def pausing(self, app: SpillwayApp, topic: str) -> StagePause:
        """What the dispatcher pauses by. Calls go on; no new ones are made."""
        tell = partial(self._stations.hold, why=f"{self._provider.name} is paused")
        self._loop.pause = StagePause(app, f"dispatch.{self._provider.name}", topic, tell=tell)
        return self._loop.pause

    def standing(self) -> Standing:
        """Calls, and visits that wait for a turn, may rightly take their time; what needs a hand may not."""
        waits = self._crew.has_work and not self._loop.refused and not self._loop.is_paused
        return Standing(waits, self._loop.ended + self._crew.freed)

    async def run(self, stream: Any) -> None:
        """Bring each command to its lane's desk, for as long as the stream lasts."""
        async for event in stream.noack().events():
            await self._crew.room()
            self._arrive(event)

    # Arrival -------------------------------------------------------------------------------------------------------

    def _arrive(self, event: Any) -> None:
        if self._drain.draining:
            return self._loop.abandon(event)
        if self._loop.turns_away(event):
            return None
        try:
            return self._take_up(event)
        except Exception as error:  # noqa: BLE001 - one event must not end the agent
            return self._crew.look_after(event, partial(_fail, error))

    def _take_up(self, event: Any) -> None:
        incoming = incoming_from(event.message)
        place = Place.read(incoming.headers) or _place_in(incoming.value)
        if place is None:
            return self._crew.look_after(event, self._bury)
        life = self._ownership.life(incoming.partition)
        if life is None:
            return self._loop.abandon(event)
        return self._bring(event, incoming, place, life)

    def _bring(self, event: Any, incoming: Incoming, place: Place, life: Life) -> None:
        """To the desk of its lane, unless there is something else to do first."""
        station = self._station(incoming)
        if (twin := self._at_work.get(place.key)) is not None:
            twin.overtaken_by(place.attempt)
            # Not at the twin's own desk: since that one came, the lane may have been given up and come back.
            return self._wait_for(twin, event, life, (station or twin.station).desk, len(incoming.value or b""))
        is_known = self._is_known(place, life)
        if station is None:
            return self._crew.look_after(event, self._send_home)
        visit = self._at_work[place.key] = Visit(place, station, self._drain.count)
        if is_known:
            # Delivered again: its mark and settlement say what is left to do.
            return self._crew.look_after(event, partial(self._visit, visit), partial(self._leave, visit), visit.hand)
        called = partial(self._called, event, visit)
        if place.key in self._cancellations:
            return called(Cancelled())
        if place.not_before > self._stations.now():
            visit.item = station.desk.come_again(place, called, place.not_before)
        else:
            visit.item = station.desk.arrive(place, called, len(incoming.value or b""))
        return None

    def _wait_for(self, twin: Visit, event: Any, life: Life, desk: Desk, size: int) -> None:
        """Delivered again while this process works on it: when that is over there is something to find out."""
        drains = self._drain.count

        def look_again() -> None:
            desk.let_go(size)
            if self._drain.count != drains or not self._ownership.is_current(life):
                # The partition may be somebody else's by now.
                return self._loop.abandon(event)
            return self._arrive(event)

        desk.keep_beside(size)
        twin.when_over(look_again)

    def _is_known(self, place: Place, life: Life) -> bool:
        mark = self._marks.get(self._mark_key(place), life)
        return mark is not None and mark.attempt >= place.attempt

    def _mark_key(self, place: Place) -> str:
        """Marks are a provider's own: lanes of two providers may share a partition, and hence a table's part."""
        return f"{self._provider.name}/{place.key}"

    def _station(self, incoming: Incoming) -> Station | None:
        """The lane of a command; None if it lies where its lane no longer is, or where this worker knows no lane."""
        name = (incoming.key or b"").decode(errors="replace")
        for place in self._router.topology.lanes_of(self._provider.name):
            if place.name == name and place.partition == incoming.partition:
                return self._stations.find(place)
        return None

    def _called(self, event: Any, visit: Visit, turn: Turn) -> None:
        """The desk has decided: from here on the event has a task."""
        if isinstance(turn, GivenUp):
            self._leave(visit)
            return self._loop.abandon(event)
        visit.turn = turn
        handler, ended = partial(self._visit, visit), partial(self._leave, visit)
        if isinstance(turn, Granted):
            return self._crew.call(event, handler, ended)
        is_over = isinstance(turn, TooLate | Cancelled)
        return self._crew.look_after(event, handler, ended, visit.hand, is_urgent=is_over)

    def _leave(self, visit: Visit) -> None:
        """The visit is over: what it still holds is free, and its twin may look."""
        turn = visit.take_turn()
        if isinstance(turn, Granted):
            visit.station.desk.release(turn.reservation)
        if self._at_work.get(visit.place.key) is visit:
            del self._at_work[visit.place.key]
        self._calling.discard(visit)
        visit.tell_twins()

    async def _send_home(self, incoming: Incoming) -> None:
        """Lanes have been set up anew since this was sent: it goes to where its lane is now."""
        command = decode(DispatchCommand, incoming.value)
        await self._outbox.publish(self._router.record(command, self._clock()))

    async def _bury(self, incoming: Incoming) -> None:
        await bury(self._outbox, incoming, "invalid_event", "The record is no dispatch command.")

    # A visit -------------------------------------------------------------------------------------------------------

    async def _visit(self, visit: Visit, incoming: Incoming) -> None:
        try:
            command = decode(DispatchCommand, incoming.value)
        except UndecodableError as error:
            return await bury(self._outbox, incoming, error.code, str(error))
        mark = self._marks.get(self._mark_key(visit.place), visit.life)
        planned = plan(command, mark, self._clock(), self._config.known_for)
        self._tell(command, lane=visit.station.place.name, plan=type(planned).__name__.lower())
        if visit.is_mark_owed or (mark is not None and not isinstance(planned, Start)):
            # What follows from a mark, or from there being none, presupposes it, and the local table may be all that
            # knows of it.
            await arrived([await self._mark(visit, mark)])
            visit.is_mark_owed = False
        match planned:
            case Interrupted(begun, started_at):
                await self._until_it_is_known(visit, mark)
                return await self._report(report_interrupted(self._attempt(begun, started_at), self._clock()))
            case PassedOn(then, reason):
                return await self._send_on(then, reason)
            case Expired():
                return await self._report(report_expired(command, self._clock()))
            case Start():
                self._traces.waited(incoming, visit.station.place.name)
                return await self._try(visit, command)

    async def _until_it_is_known(self, visit: Visit, mark: AttemptMark | None) -> None:
        """Return when the mark's call has been reported, or never will be.

        A call of this process that is not at work any more has been reported. Of another one's nothing is heard here,
        so this waits until the call must have ended, but no longer than its owner is taken for alive. It may have been
        reported long before: settlement knows.
        """
        if mark is None or mark.owner is None or mark.owner == self._ownership.name:
            return
        until = mark.ends_at + REPORT_ARRIVES
        while visit.newest <= mark.attempt and self._ownership.is_alive(mark.owner) and self._stations.now() < until:
            # It may wait for long, and holds nothing up.
            visit.hand.free()
            if await self._drain.wait(LOOK_AGAIN) or not self._ownership.is_current(visit.life):
                raise AbandonedError

    async def _try(self, visit: Visit, command: DispatchCommand) -> None:
        """Attempts in this lane, until one of them is the last."""
        arrived_with, wait = command, 0.0
        turn = visit.take_turn() or await self._turn(visit, command, 0.0)
        while True:
            match turn:
                case PassOn(reason):
                    return await self._pass_on(visit, command, reason)
                case TooLate():
                    return await self._report(report_expired(command, self._clock()))
                case Cancelled():
                    return await self._report(report_cancelled(command, self._clock()))
                case GivenUp() if command is arrived_with:
                    raise AbandonedError
                case GivenUp():
                    # The lane may have another owner by now: the next attempt is the owner's.
                    return await self._outbox.publish(self._router.record(command, self._clock()))
                case Granted(held) if not self._may_go(visit, held):
                    visit.station.desk.release(held)
                    turn = await self._turn(visit, command, 0.0)
                    continue
                case Granted(held):
                    report, wait = await self._attempt_once(visit, command, held, wait)
            if report.follow is not Follow.RETRY or report.command is None:
                return None
            command = report.command
            turn = await self._turn(visit, command, wait)

    def _may_go(self, visit: Visit, held: Reservation) -> bool:
        """Whether a call may go out now. It is asked before the mark, after it, and right before the first byte: this
        process may have stood still between any two of them.
        """
        return self._ownership.may_call(visit.life) and visit.station.desk.send(held)

    def _is_given_up(self, visit: Visit) -> bool:
        """Whether the lane is another worker's by now, or will be in a moment."""
        return self._drain.count != visit.drains or not self._ownership.is_current(visit.life)

    async def _turn(self, visit: Visit, command: DispatchCommand, wait: float) -> Turn:
        """Wait at the desk, at least so many seconds."""
        if self._is_given_up(visit):
            return GivenUp()
        if visit.place.key in self._cancellations:
            return Cancelled()
        # It may wait for long, and on what those do who wait for a hand.
        visit.hand.free()
        told: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        not_before = self._stations.now() + wait
        visit.item = visit.station.desk.come_again(Place.of(command), told.set_result, not_before)
        with self._traces.waiting(visit.station.place.name):
            return await told

    async def _attempt_once(
        self, visit: Visit, command: DispatchCommand, held: Reservation, before: float
    ) -> tuple[AttemptReport, float]:
        """One call, from its mark to its report; and the seconds to wait before the next one."""
        started_at = self._clock()
        attempt = self._attempt(command, started_at)
        begun = Begun(held, self._ends_at(attempt), self._ownership.telling(visit.life))
        mark = AttemptMark(started_at.timestamp(), command.attempts, None, self._ownership.name, begun.ends_at)
        self._calling.add(visit)
        try:
            may_go = await self._announce(visit, mark, held)
        except BaseException:
            self._calling.discard(visit)
            visit.station.desk.release(held)
            raise
        result, chunks = await self._call(visit, attempt, begun) if may_go else (NOT_SENT, None)
        first_chunk_at = chunks.first_at if chunks else None
        if not may_go:
            # Where it was given its turn: a later life of the lane may not know of it.
            visit.station.desk.release(held)
        report, wait = self._judge(attempt, result, before, first_chunk_at)
        try:
            report = await self._report_answer(visit, report, wait, chunks)
        except TOO_LARGE:
            if isinstance(result, Failure):
                raise
            # The call is paid for: what no record can hold is lost, and not what it has cost.
            report, wait = self._judge(attempt, too_large(result), before, first_chunk_at)
            report = await self._report_call(visit, report, wait)
        return report, wait

    async def _report_answer(
        self, visit: Visit, report: AttemptReport, wait: float, chunks: ChunkStream | None
    ) -> AttemptReport:
        """Report a call, with the pieces of its answer that were not told."""
        answers = report.response is not None and report.response.status is Status.SUCCEEDED
        if chunks is not None and answers and (rest := chunks.rest()) is not None:
            # Where both are too much for a record the answer alone is said: it has all of the text.
            with contextlib.suppress(*TOO_LARGE):
                return await self._report_call(visit, report.model_copy(update={"rest": rest}), wait)
        return await self._report_call(visit, report, wait)

    def _ends_at(self, attempt: Attempt) -> float:
        """When the call that begins now ends at the latest. A stream may go on until the deadline."""
        deadline = attempt.command.admitted.deadline.timestamp()
        if wants_chunks(attempt.command) is not None:
            return deadline
        return min(deadline, attempt.started_at.timestamp() + MARK_ARRIVES + self._provider.timeout)

    async def _announce(self, visit: Visit, mark: AttemptMark, held: Reservation) -> bool:
        """Return when the mark, and what the call takes from the lane's limits, are with the broker: whether the call
        may be made.

        A mark that the broker did not take is taken back here: nothing was called, and whoever finds it would think so.
        """
        earlier = self._marks.get(self._mark_key(visit.place), visit.life)
        covered_slot, marked = held.slot_hour, None
        try:
            marked = await self._mark(visit, mark)
            covered = await visit.station.memory.cover(covered_slot)
            await arrived([marked] if covered is None else [marked, covered])
            if not self._may_go(visit, held):
                return False
            if held.slot_hour != covered_slot and (covered := await visit.station.memory.cover(held.slot_hour)):
                await covered
        except Exception:
            if marked is not None and not self._ownership.is_current(visit.life):
                # It cannot be taken back. If the broker has it, it needs a report.
                await marked
                return False
            visit.is_mark_owed = True
            with contextlib.suppress(Exception):
                await self._mark(visit, earlier)
            raise
        return True

    async def _end(self, visit: Visit, held: Reservation, result: Answer | Failure) -> None:
        """What the call means for its lane. Whatever goes wrong with that: the call is paid for, and is reported."""
        try:
            was_made = isinstance(result, Answer) or not result.is_not_sent
            await self._stations.end(visit.station, held, result if was_made else None)
        except Exception as error:  # noqa: BLE001
            log.warning("lane_not_noted: %s: %s", visit.station.place.name, type(error).__name__)

    async def _call(self, visit: Visit, attempt: Attempt, begun: Begun) -> tuple[Answer | Failure, ChunkStream | None]:
        """The result, and its chunks if it was streamed."""
        self._stations.begin(visit.station, begun.held)
        try:
            return await self._result(visit, attempt, begun)
        except BaseException:
            await self._end(visit, begun.held, NOT_SENT)
            raise

    async def _result(
        self, visit: Visit, attempt: Attempt, begun: Begun
    ) -> tuple[Answer | Failure, ChunkStream | None]:
        """The same. The lane hears of the result at once; chunks may still be on their way then."""
        reply = wants_chunks(attempt.command)
        if reply is None:
            result = await traced(self._traces, attempt, None, self._call_provider(visit, attempt, begun, None))
            await self._end(visit, begun.held, result)
            return result, None
        interval = self._config.chunk_interval
        async with ChunkStream(attempt.command, reply, self._outbox, self._clock, interval, begun.may_tell) as chunks:
            result = await traced(self._traces, attempt, chunks, self._call_provider(visit, attempt, begun, chunks))
            await self._end(visit, begun.held, result)
            return result, chunks

    async def _call_provider(
        self, visit: Visit, attempt: Attempt, begun: Begun, chunks: ChunkStream | None
    ) -> Answer | Failure:
        admitted = attempt.command.admitted
        left = begun.ends_at - self._stations.now()
        attempt_id = f"{admitted.request_id}/{attempt.number}"
        log.debug("attempt_started: %s: %s", attempt.lane, attempt.model, extra=_about(attempt))
        may_send = partial(self._may_go, visit, begun.held)
        call = Call(admitted.request, attempt.model, timeout=left, attempt_id=attempt_id, may_send=may_send)
        try:
            async with asyncio.timeout(None) as visit.call:
                if visit.place.key in self._cancellations:
                    return Failure(ErrorClass.TERMINAL, "cancelled", CANCELLED)
                return await self._provider.call(call, chunks.tell if chunks else None)
        except TimeoutError:
            return cut_short(estimate_tokens(admitted.request), chunks.written if chunks else 0)
        except Exception as error:
            # An adapter maps all that a provider can do. What escapes it is a fault of ours, and the call may
            # have been made: the request goes to another provider and the attempt stays in doubt.
            log.exception("provider_fault: %s", self._provider.name, extra=_about(attempt))
            return Failure(ErrorClass.FALL_BACK, "internal_error", type(error).__name__, may_be_billed=True)
        finally:
            visit.call = None

    def _judge(
        self, attempt: Attempt, result: Answer | Failure, before: float, first_chunk_at: datetime | None
    ) -> tuple[AttemptReport, float]:
        now = self._clock()
        if isinstance(result, Failure) and result.is_not_sent:
            log.warning("call_not_made: %s: %s", attempt.lane, attempt.model, extra=_about(attempt))
            return report_not_sent(attempt, now), 0.0
        if isinstance(result, Answer):
            answer, priced = self._priced(attempt, result)
            return judge_answer(attempt, answer, priced, now, first_chunk_at), 0.0
        jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
        used = self._cost(attempt, attempt.model, result.tokens) if result.tokens else None
        verdict = judge_failure(attempt, result, self._config.retry, now, jitter, before, used)
        told = (attempt.lane, result.code, verdict.report.follow)
        log.info("attempt_failed: %s: %s: %s", *told, extra=_about(attempt))
        return verdict.report, verdict.wait

    def _cost(self, attempt: Attempt, model: str, tokens: Tokens) -> Decimal | None:
        return self._prices.cost(self._provider.name, model, tokens, attempt.started_at)

    def _priced(self, attempt: Attempt, answer: Answer) -> tuple[Answer, Decimal | None]:
        """What an answer has cost. A price that is not known, or not all of it, is an alarm; the provider's own word on
        the cost needs none.
        """
        provider = self._provider.name
        cost = self._cost(attempt, answer.model, answer.tokens)
        if answer.reported_cost is not None:
            return answer, cost
        if cost is None:
            log.error("price_unknown: %s: %s", provider, answer.model, extra=_about(attempt))
            # Gateways have names of their own for models: the model that was asked for is closer than no model.
            return replace(answer, is_estimated=True), self._cost(attempt, attempt.model, answer.tokens)
        lacking = self._prices.lacking(provider, answer.model, answer.tokens, attempt.started_at)
        if lacking is None:
            return answer, cost
        log.error("price_incomplete: %s: %s: %s", provider, answer.model, lacking, extra=_about(attempt))
        return replace(answer, is_estimated=True), cost

    def _attempt(self, command: DispatchCommand, started_at: datetime) -> Attempt:
        admitted = command.admitted
        model = self._provider.model_for(admitted.request)
        lane = self._router.lane(command)
        estimate = self._prices.estimate(self._provider.name, model, admitted.request, started_at)
        return Attempt(command, model, lane.name, started_at, estimate)

    # Passing on ----------------------------------------------------------------------------------------------------

    async def _pass_on(self, visit: Visit, command: DispatchCommand, reason: str) -> None:
        """To the next provider, with a mark first: delivered again, the command must not be called here after all."""
        self._tell(command, passed_on=reason)
        who = about(command.admitted.request_id, command.admitted.workspace_id)
        log.info("passed_on: %s: %s", visit.station.place.name, reason, extra=who)
        mark = AttemptMark(self._stations.now(), command.attempts, reason, returns=command.returns)
        await arrived([await self._mark(visit, mark)])
        await self._send_on(command, reason)

    async def _send_on(self, command: DispatchCommand, reason: str) -> None:
        following = onward(command, reason)
        if following is None:
            return await self._report(report_unavailable(command, reason, self._clock()))
        return await self._outbox.publish(self._router.record(following, self._clock()))

    def _tell(self, command: DispatchCommand, **facts: Fact) -> None:
        self._traces.about(command.admitted.workspace_id, command.admitted.request_id, **facts)

    async def _mark(self, visit: Visit, mark: AttemptMark | None) -> asyncio.Future[Any]:
        return await self._marks.put(self._mark_key(visit.place), mark, visit.life)

    async def _report(self, report: AttemptReport) -> None:
        """Of what was found out, and would be found out again."""
        await self._outbox.publish(report_record(report, self._router.topology, self._clock()))

    async def _report_call(self, visit: Visit, report: AttemptReport, wait: float) -> AttemptReport:
        """Of a call, which nobody can make again to find out. Returns it as it was published: where the lane is another
        worker's by now, the next attempt is that one's, after so many seconds.
        """
        now = self._clock()
        if self._is_given_up(visit):
            report = handed_on(report, now + timedelta(seconds=wait))
        await self._unreported.publish(report_record(report, self._router.topology, now))
        return report


def _whose(incoming: Incoming) -> str:
    place = Place.read(incoming.headers)
    return place.workspace if place is not None else ""


async def _fail(error: Exception, _: Incoming) -> None:
    raise error


def _about(attempt: Attempt) -> dict[str, str | int]:
    admitted = attempt.command.admitted
    return about(admitted.request_id, admitted.workspace_id, attempt.number)


def _place_in(value: bytes | None) -> Place | None:
    """The place of a command without the header."""
    try:
        return Place.of(decode(DispatchCommand, value))
    except UndecodableError:
        return None


def read(app: SpillwayApp, place: LanePlace, go_on: bool) -> None:
    """Stop reading a lane's partition when enough of it waits in its desk, and go on when there is room again."""
    topic, consumer = dispatch_topic(place.provider), app.consumer
    own = {tp for tp in consumer.assignment() if tp.topic == topic and tp.partition == place.partition}
    if own:
        log.info("lane_reading: %s: %s", place.name, "on" if go_on else "off")
        (consumer.resume_partitions if go_on else consumer.pause_partitions)(own)


def register(app: SpillwayApp, dispatchers: Mapping[str, Dispatcher]) -> None:
    """Subscribe one agent to each provider's topic, so that a slow provider holds up no other."""
    for name, dispatcher in dispatchers.items():
        app.stages[f"dispatch.{name}"] = dispatcher
        app.pauses[f"dispatch.{name}"] = dispatcher.pausing(app, dispatch_topic(name))
        topic = app.topic(dispatch_topic(name), key_type=bytes, value_type=bytes)
        app.agent(topic, name=f"dispatch.{name}")(_agent(dispatcher))


def _agent(dispatcher: Dispatcher) -> Any:
    async def dispatch(stream: Any) -> None:
        await dispatcher.run(stream)

    return dispatch
