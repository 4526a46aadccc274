"""The pipeline as a plain model: logs, tables, workers; every write is a step, and a crash may fall between two.

It runs the real decisions of admit, dispatch and settle. Only what Kafka and Faust do is modelled: a log keeps what is
appended, a table write is durable when its step has run, an event is acknowledged when its handler has ended, and a
crash puts each reader back to its commit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf

from schemas.codec import decode, encode
from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.request import CompletionRequest
from schemas.response import Response
from schemas.usage import Tokens, UsageEvent
from streams.admit.decide import AdmissionPolicy, Duplicate, Forward, Seen, decide
from streams.admit.decide import Answer as Answered
from streams.admit.parse import Envelope, Parsed
from streams.dispatch.decide import (
    Attempt,
    AttemptMark,
    Expired,
    Interrupted,
    PassedOn,
    RetryPolicy,
    decode_mark,
    encode_mark,
    judge_answer,
    judge_failure,
    onward,
    plan,
    report_expired,
    report_interrupted,
    report_unavailable,
)
from streams.dispatch.ports import Answer, Failure
from streams.lifecycle import RequestRecord, decode_record, encode_record, request_key
from streams.runtime.deliveries import PartitionDeliveries
from streams.settle.decide import settle

START = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
PROVIDERS = ("claude", "openai")
POLICY = AdmissionPolicy(PROVIDERS, dict.fromkeys(PROVIDERS, frozenset({"completion"})), 600.0)
RETRY = RetryPolicy(attempts=2, delay=1.0)

Steps = Iterator[None]
Provider = Callable[[str], Answer | Failure]
#: Whether a provider's lane sends requests elsewhere at the moment.
Refuses = Callable[[str], bool]


@dataclass
class Reader:
    """A consumer of one log."""

    log: list[bytes]
    handler: Callable[[int, bytes], Steps]
    position: int = 0
    committed: int = 0
    deliveries: PartitionDeliveries = field(default_factory=PartitionDeliveries)

    def commit(self) -> None:
        self.committed = max(self.committed, self.deliveries.committable() or 0)

    def restart(self) -> None:
        self.position = self.committed
        self.deliveries = PartitionDeliveries()


@dataclass
class Task:
    reader: Reader
    offset: int
    steps: Steps
    deliveries: PartitionDeliveries


class World:
    """Everything there is, durable or not."""

    def __init__(self, provider: Provider, refuses: Refuses = lambda _: False) -> None:
        self.provider = provider
        self.refuses = refuses
        self.now = START
        self.requests: list[bytes] = []
        self.reports: list[bytes] = []
        self.commands: dict[str, list[bytes]] = {name: [] for name in PROVIDERS}
        self.responses: defaultdict[str, list[Response]] = defaultdict(list)
        self.usage: list[UsageEvent] = []
        self.records: dict[str, bytes] = {}
        self.marks: dict[str, AttemptMark] = {}
        #: Requests that no earlier owner of the partition can have had begin here.
        self.new_from = 0
        self.calls: Counter[str] = Counter()
        self.interrupted_calls = 0
        self.drains = 0
        #: Records that are not with the broker yet, by key, and what was there before.
        self.unsafe: dict[str, bytes | None] = {}
        self.at_work: set[str] = set()
        self.calling: set[str] = set()
        self.readers = [
            Reader(self.requests, self.admit),
            Reader(self.reports, self.settle),
            *(Reader(log, self.dispatch) for log in self.commands.values()),
        ]
        self.tasks: list[Task] = []
        self.zombies: list[Task] = []

    # Stages, step by step ------------------------------------------------------------------------------------------

    def admit(self, offset: int, value: bytes) -> Steps:
        request = CompletionRequest.model_validate_json(value)
        key = request_key(request.workspace_id, request.request_id or "")
        known = self._record(key)
        parsed = Parsed(Envelope(request.request_id or ""), request)
        is_new = offset >= self.new_from
        seen = Seen(offset, known, (lambda name: inf if self.refuses(name) else 0.0) if is_new else None)
        decision = decide(parsed, seen, POLICY, self.now)
        if isinstance(decision, Duplicate):
            return
        if isinstance(decision, Forward) and not decision.record.route:
            # The record is written here at once and is on its way together with the command: a crash before the next
            # step may leave the command without it.
            before = self.records.get(key)
            self._store(key, decision.record)
            self.unsafe[key] = before
            self._send(decision.command)
            yield
            self.unsafe.pop(key, None)
            return
        self._store(key, decision.record)
        yield
        if isinstance(decision, Forward):
            self._send(decision.command)
        elif isinstance(decision, Answered):
            self.responses[key].append(decision.response)
        yield

    def dispatch(self, offset: int, value: bytes) -> Steps:  # noqa: ARG002 - as every handler
        command = decode(DispatchCommand, value)
        key = request_key(command.admitted.workspace_id, command.admitted.request_id)
        drains = self.drains
        while key in self.at_work and drains == self.drains:
            yield
        self.at_work.add(key)
        mark_key = f"{command.provider}/{key}"
        todo = plan(command, self.marks.get(mark_key), self.now)
        if isinstance(todo, Interrupted):
            attempt = self._attempt(todo.command, todo.started_at)
            self.reports.append(encode(report_interrupted(attempt, self.now)))
            yield
        elif isinstance(todo, PassedOn):
            yield from self._send_on(todo.command, todo.reason)
        elif isinstance(todo, Expired):
            self.reports.append(encode(report_expired(command, self.now)))
            yield
        else:
            yield from self._try(command, key, drains)
        self.at_work.discard(key)

    def _try(self, command: DispatchCommand, key: str, drains: int) -> Steps:
        while True:
            attempt = self._attempt(command, self.now)
            if drains != self.drains:
                return  # A process that lost its partition writes no table.
            passes = self.refuses(command.provider)
            reason = "circuit_open" if passes else None
            mark = AttemptMark(attempt.started_at.timestamp(), command.attempts, reason)
            self.marks[f"{command.provider}/{key}"] = decode_mark(encode_mark(mark))
            if reason:
                yield
                yield from self._send_on(command, reason)
                return
            call = f"{key}/{attempt.number}"
            self.calling.add(call)
            yield
            self.calls[call] += 1
            yield
            report = self._judge(attempt, self.provider(command.provider))
            yield
            self.reports.append(encode(report))
            self.calling.discard(call)
            yield
            if report.follow is not Follow.RETRY or report.command is None:
                return
            command = report.command
            if drains != self.drains:
                self._send(command)
                return

    def _send_on(self, command: DispatchCommand, reason: str) -> Steps:
        if len(command.route) == 1:
            self.reports.append(encode(report_unavailable(command, reason, self.now)))
        else:
            self._send(onward(command))
        yield

    def _judge(self, attempt: Attempt, result: Answer | Failure) -> AttemptReport:
        if isinstance(result, Answer):
            return judge_answer(attempt, result, Decimal("0.25"), self.now)
        return judge_failure(attempt, result, RETRY, self.now, 0.5).report

    def settle(self, offset: int, value: bytes) -> Steps:
        report = decode(AttemptReport, value)
        key = request_key(report.workspace_id, report.request_id)
        done = settle(self._record(key), report, offset, "retry", self.now)
        self._store(key, done.record)
        yield
        if done.usage is not None:
            self.usage.append(done.usage)
            yield
        if done.response is not None:
            self.responses[key].append(done.response)
            yield
        if done.command is not None:
            self._send(done.command)
            yield

    # What may happen -----------------------------------------------------------------------------------------------

    def deliver(self, reader: Reader) -> None:
        offset = reader.position
        reader.position += 1
        reader.deliveries.delivered(offset)
        steps = reader.handler(offset, reader.log[offset])
        self.tasks.append(Task(reader, offset, steps, reader.deliveries))

    def advance(self, task: Task) -> None:
        try:
            next(task.steps)
        except StopIteration:
            (self.tasks if task in self.tasks else self.zombies).remove(task)
            task.deliveries.acknowledged(task.offset)

    def commit(self) -> None:
        for reader in self.readers:
            reader.commit()

    def crash(self) -> None:
        """kill -9: what runs is gone, what was durable stays, readers go back to their commits."""
        for key, before in self.unsafe.items():
            if before is None:
                del self.records[key]
            else:
                self.records[key] = before
        self.unsafe.clear()
        self.interrupted_calls += len(self.calling)
        self.calling.clear()
        self.tasks.clear()
        self.zombies.clear()
        self.at_work.clear()
        self.new_from = len(self.requests)
        for reader in self.readers:
            reader.restart()

    def lose_partitions(self) -> None:
        """A rebalance whose drain ran out of time: calls go on, their partitions are read by another worker."""
        self.interrupted_calls += len(self.calling)
        self.commit()
        self.drains += 1
        self.zombies += [task for task in self.tasks if task.reader.handler == self.dispatch]
        self.tasks.clear()
        self.at_work.clear()
        self.new_from = len(self.requests)
        for reader in self.readers:
            reader.restart()

    def run_dry(self) -> None:
        """Let everything finish, without further accidents."""
        for _ in range(100_000):
            ready = [reader for reader in self.readers if reader.position < len(reader.log)]
            running = [*self.tasks, *self.zombies]
            if not ready and not running:
                return
            for reader in ready:
                self.deliver(reader)
            for task in [*self.tasks, *self.zombies]:
                self.advance(task)
        raise AssertionError("the pipeline never comes to rest")

    # What is known afterwards --------------------------------------------------------------------------------------

    def ledger(self) -> dict[str, UsageEvent]:
        """One row per attempt: what is known beats what was in doubt, as in the real ledger."""
        rows: dict[str, UsageEvent] = {}
        for usage in self.usage:
            key = f"{usage.workspace_id}/{usage.attempt_id}"
            if key not in rows or rows[key].error_code == "interrupted":
                rows[key] = usage
        return rows

    def _record(self, key: str) -> RequestRecord | None:
        stored = self.records.get(key)
        return decode_record(stored) if stored is not None else None

    def _store(self, key: str, record: RequestRecord) -> None:
        self.unsafe.pop(key, None)
        self.records[key] = encode_record(record)

    def _send(self, command: DispatchCommand) -> None:
        self.commands[command.provider].append(encode(command))

    def _attempt(self, command: DispatchCommand, started_at: datetime) -> Attempt:
        return Attempt(command, "some-model", "lane/0", started_at, Decimal("0.5"))


def answer() -> Answer:
    return Answer("hello", "some-model", "stop", Tokens(prompt_tokens=3, completion_tokens=5))


def request(number: int, *, deadline: timedelta | None = None) -> bytes:
    body = CompletionRequest(request_id=f"r-{number}", prompt="hi", deadline=START + deadline if deadline else None)
    return encode(body)
