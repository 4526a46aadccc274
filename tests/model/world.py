"""The pipeline as a plain model: logs, tables, workers; every write is a step, and a crash may fall between two.

It runs the real decisions of admit, dispatch and settle. Only what Kafka and Faust do is modelled: a log keeps what is
appended, a changelog has the table's writes in order and after a crash a beginning of those that were under way, an
event is acknowledged when its handler has ended, and a crash puts each reader back to its commit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from typing import Any, cast

from schemas.codec import decode, encode
from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.request import CompletionRequest
from schemas.response import Response
from schemas.usage import Tokens, UsageEvent
from streams import commands
from streams.accounts import ACCOUNTS, Account
from streams.admit.decide import AdmissionPolicy, Duplicate, Forward, Rebook, Settle, decide
from streams.admit.decide import Answer as Answered
from streams.admit.look import Books, Place, look, writes_of
from streams.admit.parse import Envelope, Parsed
from streams.answers import cancelled
from streams.budgets import Budget, BudgetBook
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
from streams.lifecycle import request_key
from streams.reports import answered
from streams.rows import Row, decode_row, encode_row
from streams.runtime.deliveries import PartitionDeliveries
from streams.runtime.transport import DrainSignal
from streams.settle.apply import Books as SettleBooks
from streams.settle.apply import SettleConfig, apply, next_piece
from streams.settle.landing import Arrival, all_told
from streams.sharing import NOTHING_IS_KEPT, CachePolicy
from streams.workspaces import Workspaces

START = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
PROVIDERS = ("claude", "openai")
POLICY = AdmissionPolicy(PROVIDERS, dict.fromkeys(PROVIDERS, frozenset({"completion"})), 600.0)
RETRY = RetryPolicy(attempts=2, delay=1.0)
#: What a call may cost at most, and what it costs.
ESTIMATE, COST = Decimal("0.5"), Decimal("0.25")
EVERYTHING = 1_000_000
PLENTY = Budget(Decimal(1_000_000))

Steps = Iterator[None]
Provider = Callable[[str], Answer | Failure]
#: Whether a provider's lane sends requests elsewhere at the moment.
Refuses = Callable[[str], bool]


@dataclass
class Reader:
    """A consumer of one log."""

    log: list[bytes]
    handler: Callable[[int, bytes], Steps]
    #: Whether each event is decided before the next one is.
    in_order: bool = False
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


class Changelog:
    """The rows of one partition, as a table, with those writes that are not with the broker yet."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self._under_way: list[tuple[int, str, bytes | None]] = []
        self._count = 0

    def get(self, key: str, _: int = 0) -> Row | None:
        stored = self.rows.get(key)
        return None if stored is None else decode_row(stored)

    def scan(self, prefix: str, _: int = 0) -> list[tuple[str, Row]]:
        return [(key, decode_row(row)) for key, row in sorted(self.rows.items()) if key.startswith(prefix)]

    def walk(self, prefix: str, _: int = 0, start: str = "") -> Iterator[tuple[str, Row]]:
        return (pair for pair in self.scan(prefix) if pair[0] >= start)

    def walk_raw(self, prefix: str, _: int = 0, start: str = "") -> Iterator[tuple[str, bytes]]:
        return (pair for pair in sorted(self.rows.items()) if pair[0].startswith(prefix) and pair[0] >= start)

    def write(self, writes: Mapping[str, Row | None]) -> int:
        """Write, and return by which number `arrived` may be told of it."""
        for key, row in writes.items():
            self._count += 1
            self._under_way.append((self._count, key, self.rows.get(key)))
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = encode_row(row)
        return self._count

    def arrived(self, number: int) -> None:
        """The broker has all up to this one."""
        self._under_way = [write for write in self._under_way if write[0] > number]

    def crash(self, survive: int) -> None:
        """Of what was under way the first ones have arrived, and the rest is gone."""
        for _, key, before in reversed(self._under_way[survive:]):
            if before is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = before
        self._under_way.clear()


class World:
    """Everything there is, durable or not."""

    def __init__(
        self,
        provider: Provider,
        refuses: Refuses = lambda _: False,
        *,
        budget: Budget = PLENTY,
        cache: CachePolicy = NOTHING_IS_KEPT,
        piece: int = 1,
    ) -> None:
        self.provider = provider
        self.piece = piece
        self.refuses = refuses
        self.now = START
        self.requests: list[bytes] = []
        self.reports: list[bytes] = []
        self.commands: dict[str, list[bytes]] = {name: [] for name in PROVIDERS}
        self.responses: defaultdict[str, list[Response]] = defaultdict(list)
        self.usage: list[UsageEvent] = []
        self.table = Changelog()
        self.budgets = BudgetBook(budget)
        self.policy = replace(POLICY, cache=cache)
        self.drain = DrainSignal()
        self.marks: dict[str, AttemptMark] = {}
        #: Requests that no earlier owner of the partition can have had begin here.
        self.new_from = 0
        self.calls: Counter[str] = Counter()
        self.interrupted_calls = 0
        #: Attempts that were called a doubt, with their successors sent.
        self.doubted: set[str] = set()
        self.drains = 0
        self.at_work: set[str] = set()
        self.calling: set[str] = set()
        self.readers = [
            Reader(self.requests, self.admit, in_order=True),
            Reader(self.reports, self.settle, in_order=True),
            *(Reader(log, self.dispatch) for log in self.commands.values()),
        ]
        self.tasks: list[Task] = []
        self.zombies: list[Task] = []

    # Stages, step by step ------------------------------------------------------------------------------------------

    def admit(self, offset: int, value: bytes) -> Steps:
        request = CompletionRequest.model_validate_json(value)
        parsed = Parsed(Envelope(request.request_id or ""), request)
        is_new = offset >= self.new_from
        wait = (lambda name: inf if self.refuses(name) else 0.0) if is_new else None
        books = Books(self._workspaces(), self.budgets, self.policy, lambda *_: ESTIMATE)
        seen = look(parsed, Place(offset, 0), books, self.now, wait)
        decision = decide(parsed, seen, self.policy, self.now)
        written = self.table.write(writes_of(decision, seen, self.now))
        if isinstance(decision, Duplicate):
            return
        if isinstance(decision, Rebook):
            yield
            self.table.arrived(written)
            return
        yield
        self.table.arrived(written)
        if isinstance(decision, Forward):
            self._send(decision.command)
        elif isinstance(decision, Settle):
            self.reports.append(encode(answered(decision.admitted, decision.response)))
        elif isinstance(decision, Answered):
            self._respond(decision.response)
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
            reason = (commands.GONE_BACK if commands.Place.of(command).back else "circuit_open") if passes else None
            mark = AttemptMark(attempt.started_at.timestamp(), command.attempts, reason, returns=command.returns)
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
        following = onward(command, reason)
        if following is None:
            self.reports.append(encode(report_unavailable(command, reason, self.now)))
        else:
            self._send(following)
        yield

    def _judge(self, attempt: Attempt, result: Answer | Failure) -> AttemptReport:
        if isinstance(result, Answer):
            return judge_answer(attempt, result, COST, self.now)
        return judge_failure(attempt, result, RETRY, self.now, 0.5).report

    def settle(self, offset: int, value: bytes) -> Steps:
        report = decode(AttemptReport, value)
        config = SettleConfig("retry", cache=self.policy.cache, piece=self.piece)
        books = SettleBooks(self._workspaces(), 0, self.budgets, config)
        done = apply(report, offset, books, self.now)
        written = self.table.write(done.writes)
        yield
        self.table.arrived(written)
        if report.follow is Follow.INTERRUPTED and report.usage is not None and done.commands:
            self.doubted.add(f"{report.workspace_id}/{report.usage.attempt_id}")
        for answer in done.answers:
            self._respond(answer.response)
            yield
        if done.usage is not None:
            self.usage.append(done.usage)
            yield
        for command in done.commands:
            self._send(command)
            yield
        yield
        if done.landing is not None:
            yield from self._tell(done.landing, books)
        if done.afterwards:
            written = self.table.write(done.afterwards)
            yield
            self.table.arrived(written)

    def _tell(self, landing: Arrival, books: SettleBooks) -> Steps:
        """Those aboard a flight that has landed, piece by piece."""
        since: str | None = ""
        while since is not None:
            piece = next_piece(landing, books, since)
            written = self.table.write(piece.writes)
            yield
            self.table.arrived(written)
            for _, response in piece.answers:
                self._respond(response)
                yield
            yield
            self.table.write(piece.afterwards)
            since = piece.onward
        written = self.table.write(all_told(landing))
        yield
        self.table.arrived(written)

    def _respond(self, response: Response) -> None:
        self.responses[request_key(response.workspace_id, response.request_id)].append(response)

    def cancel(self, number: int) -> None:
        """Nobody wants this one any more, and it waits for another's answer: no lane knows of it."""
        record = self._workspaces().request("default", f"r-{number}", 0)
        admitted = record.admitted("default", f"r-{number}") if record is not None else None
        if record is not None and record.joined and not record.closed and admitted is not None:
            self.reports.append(encode(answered(admitted, cancelled(admitted, (), self.now))))

    # What may happen -----------------------------------------------------------------------------------------------

    def deliver(self, reader: Reader) -> None:
        offset = reader.position
        reader.position += 1
        reader.deliveries.delivered(offset)
        task = Task(reader, offset, reader.handler(offset, reader.log[offset]), reader.deliveries)
        self.tasks.append(task)
        if reader.in_order:
            self.advance(task)

    def advance(self, task: Task) -> None:
        try:
            next(task.steps)
        except StopIteration:
            (self.tasks if task in self.tasks else self.zombies).remove(task)
            task.deliveries.acknowledged(task.offset)

    def run_some(self, reader: Reader) -> None:
        """Let what one reader was given finish."""
        while tasks := [task for task in self.tasks if task.reader is reader]:
            for task in tasks:
                self.advance(task)

    def commit(self) -> None:
        for reader in self.readers:
            reader.commit()

    def crash(self, survive: int = 0) -> None:
        """kill -9: what runs is gone, what was durable stays, readers go back to their commits.

        `survive` is how many of the table's writes that were under way have arrived.
        """
        self.table.crash(survive)
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
        self.table.crash(EVERYTHING)
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
            if key not in rows or usage.version > rows[key].version:
                rows[key] = usage
        return rows

    def account(self, month: str, workspace_id: str = "default") -> Account:
        return self._workspaces().account(workspace_id, month, 0)

    def accounts(self) -> list[Account]:
        return [row for _, row in self.table.scan(ACCOUNTS) if isinstance(row, Account)]

    def _workspaces(self) -> Workspaces:
        return Workspaces(cast(Any, self.table), self.drain)

    def _send(self, command: DispatchCommand) -> None:
        self.commands[command.provider].append(encode(command))

    def _attempt(self, command: DispatchCommand, started_at: datetime) -> Attempt:
        return Attempt(command, "some-model", "lane/0", started_at, ESTIMATE)


def answer() -> Answer:
    return Answer("hello", "some-model", "stop", Tokens(prompt_tokens=3, completion_tokens=5))


def request(number: int, *, deadline: datetime | None = None, prompt: str = "hi") -> bytes:
    return encode(CompletionRequest(request_id=f"r-{number}", prompt=prompt, deadline=deadline))
