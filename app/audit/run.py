"""Reads a period from Kafka and ClickHouse, in rounds where it is large, and has it judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.audit.books import Books, Share
from app.audit.compare import Judge, Scope, Verdict
from app.audit.facts import BudgetSaid, Place, RequestReader, answered, budget_said, milliseconds, used
from app.audit.gone import once, told, untold
from app.audit.ledger import TIMEOUT, LedgerReader, months_of
from app.audit.topics import Stretch, committed, partitions_of, read, reader, survey
from app.clickhouse.client import ClickHouse
from app.clickhouse.migrate import pending
from app.clickhouse.period import Period
from app.kafka import admin_client, cluster_of
from app.settings import Settings
from app.topics import build_topology
from schemas.dead_letter import Gap
from streams.topology import BUDGET_STATE, DEAD_LETTERS, REQUESTS, RESPONSES, USAGE, ledger_group, partition_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

_TOPICS = (REQUESTS, RESPONSES, USAGE)
#: Milliseconds by which producers' clocks may be off, and which an attempt may be older than its response.
MARGIN = 15 * 60_000
#: Records of one round: some 600 MB of memory.
ROUND = 1_000_000


class AuditError(Exception):
    """The audit cannot be made. The message is one sentence."""


@dataclass(frozen=True)
class Asked:
    """What to audit. `patience` in seconds: what is younger may still be on its way."""

    period: Period
    workspace: str | None = None
    patience: float = 60.0


@dataclass
class Report:
    """What came of it. `held_since`: where a topic no longer has the period's begin, since when it has all."""

    asked: Asked
    verdict: Verdict
    records: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    rounds: int = 1
    held_since: dict[str, datetime] = field(default_factory=dict)
    has_budgets: bool = False
    #: The period begins before what the topics are set to keep.
    is_older: bool = False

    @property
    def gaps(self) -> bool:
        """Whether something of the period could not be compared, because a topic no longer has it."""
        counts = self.verdict.figures.counts
        names = ("requests_not_compared", "outcomes_not_compared", "rows_not_compared")
        return any(counts[name] for name in names) or (self.is_older and bool(self.held_since))


class Audit:
    """One audit. The topics' ends and the workers' offsets are taken once, before anything is read."""

    def __init__(self, settings: Settings, asked: Asked, consumer: AIOKafkaConsumer, ledger: LedgerReader) -> None:
        self._settings = settings
        self._cluster = cluster_of(settings)
        self._asked = asked
        self._consumer = consumer
        self._ledger = ledger
        self._topology = build_topology(settings)
        self._requests = RequestReader(max_bytes=settings.max_request_bytes, deadline=settings.default_deadline)
        self._stretches: dict[str, Stretch] = {}
        self._acknowledged: dict[tuple[str, int], int] = {}
        #: The same by group, and the partitions of all topics that they read, and of the dead letters.
        self._committed: dict[str, dict[tuple[str, int], int]] = {}
        self._inputs: dict[str, list[TopicPartition]] = {}
        self._unreadable = 0
        self._now = 0

    async def run(self, round_size: int = ROUND) -> Report:
        await self._begin()
        judge = Judge(self._scope())
        records = sum(stretch.records for stretch in self._stretches.values())
        rounds = 1 + records // round_size
        for number in range(rounds):
            self._unreadable = 0
            judge.judge(await self._books(Share(number, rounds)))
        judge.months()
        judge.gone(await self._gone())
        said = await self._budget_states()
        if said:
            judge.budgets(said, await self._ledger.month_sums(months_of(self._asked.period)))
        return Report(
            asked=self._asked,
            verdict=judge.verdict,
            records={topic: stretch.records for topic, stretch in self._stretches.items()},
            unreadable=self._unreadable,
            rounds=rounds,
            held_since=self._held_since(),
            has_budgets=bool(said),
            is_older=self._is_older(),
        )

    async def _begin(self) -> None:
        cluster, period = self._cluster, self._asked.period
        await self._ledger.begin()
        self._now = milliseconds(datetime.now(UTC))
        async with admin_client(cluster) as admin:
            existing = await partitions_of(admin, _TOPICS)
            if missing := [topic for topic in _TOPICS if topic not in existing]:
                raise AuditError(cluster.without(missing[0]))
            group = self._settings.kafka_application_id
            groups = (group, ledger_group(group))
            self._committed = {name: await committed(cluster, admin, name) for name in groups}
            self._acknowledged = {place: at for places in self._committed.values() for place, at in places.items()}
            inputs = {topic for places in self._committed.values() for topic, _ in places}
            self._inputs = await partitions_of(admin, (*inputs, DEAD_LETTERS))
        start = milliseconds(period.start)
        for topic in _TOPICS:
            # Requests first: what is answered after this has its response behind the end that is taken next.
            since, until = (start, milliseconds(period.end)) if topic == REQUESTS else (start - MARGIN, None)
            self._stretches[topic] = await survey(self._consumer, existing[topic], since, until, self._now)

    def _scope(self) -> Scope:
        period = self._asked.period
        return Scope(
            start=milliseconds(period.start),
            end=milliseconds(period.end),
            now=self._now,
            read_from=milliseconds(period.start) - MARGIN,
            patience=int(self._asked.patience * 1000),
            responses_since=self._since(RESPONSES),
            usage_since=self._since(USAGE),
        )

    def _since(self, topic: str) -> Callable[[str], int]:
        stretch = self._stretches[topic]
        partitions = len(stretch.end)
        return lambda workspace: stretch.since(partition_of(workspace.encode(), partitions))

    async def _books(self, share: Share) -> Books:
        books, period = Books(share), self._asked.period
        async for record in read(self._cluster, self._stretches[REQUESTS]):
            self._take_request(books, record)
        for topic in (RESPONSES, USAGE):
            async for record in read(self._cluster, self._stretches[topic]):
                if self._is_meant(record):
                    self._take(books, record)
        await self._look_further_back(books)
        async for row in self._ledger.rows(period, share):
            books.ledger_row(row)
        async for outcome in self._ledger.outcomes(period, share):
            books.outcome_row(outcome)
        return books

    def _take_request(self, books: Books, record: ConsumerRecord) -> None:
        place = Place(record.topic, record.partition, record.offset, record.timestamp)
        workspace, fact = self._requests.read(record.value, record.headers, place, self._waits(record))
        if self._asked.workspace in (None, workspace):
            home = fact.refused or self._topology.workspace_partition(workspace) == record.partition
            books.request(fact._replace(home=home))

    def _take(self, books: Books, record: ConsumerRecord) -> None:
        if record.topic == RESPONSES:
            response = answered(record.value, self._waits(record))
            if response is not None:
                return books.answer(response)
        else:
            usage = used(record.value, self._waits(record))
            if usage is not None:
                return books.usage(usage)
        self._unreadable += 1
        return None

    async def _look_further_back(self, books: Books) -> None:
        """A request without a response may be a repeat of one that was answered before the period."""
        wanted = set(books.unanswered())
        if not wanted:
            return
        async for record in read(self._cluster, self._stretches[RESPONSES].before()):
            response = answered(record.value, waits=False) if self._is_meant(record) else None
            if response is not None and response.key in wanted:
                books.answered_before(response.key)

    async def _gone(self) -> list[Gap]:
        """What was deleted before it was read: told in the period, or still to be told."""
        period, letters = self._asked.period, self._inputs.pop(DEAD_LETTERS, None)
        partitions = [tp for listed in self._inputs.values() for tp in listed]
        begun = await self._consumer.beginning_offsets(partitions) if partitions else {}
        starts = {(tp.topic, tp.partition): offset for tp, offset in begun.items()}
        found = [gap for group, places in self._committed.items() for gap in untold(group, places, starts)]
        if letters is not None:
            start, end = milliseconds(period.start), milliseconds(period.end)
            stretch = await survey(self._consumer, letters, start, None, self._now)
            found += [gap async for gap in told(self._cluster, stretch, start, end) if gap.group in self._committed]
        return once(found)

    async def _budget_states(self) -> list[BudgetSaid]:
        """The newest state of each workspace's month of the period."""
        async with admin_client(self._cluster) as admin:
            existing = await partitions_of(admin, (BUDGET_STATE,))
        if not existing:
            return []
        months = set(months_of(self._asked.period))
        newest: dict[bytes | None, BudgetSaid | None] = {}
        stretch = await survey(self._consumer, existing[BUDGET_STATE], 0, None, self._now)
        async for record in read(self._cluster, stretch, compacted=True):
            said = budget_said(record.value) if record.value else None
            known = newest.get(record.key)
            # An older one may be left in the partition where the workspace was before there were more of them.
            if said is None or known is None or said.at >= known.at:
                newest[record.key] = said
        wanted = (said for said in newest.values() if said is not None and said.month in months)
        return [said for said in wanted if self._asked.workspace in (None, said.workspace)]

    def _is_meant(self, record: ConsumerRecord) -> bool:
        """By the key, which is the workspace: others need not be decoded."""
        return self._asked.workspace is None or record.key == self._asked.workspace.encode()

    def _waits(self, record: ConsumerRecord) -> bool:
        return bool(record.offset >= self._acknowledged.get((record.topic, record.partition), 0))

    def _is_older(self) -> bool:
        kept = [spec.retention_ms for spec in self._topology.topics() if spec.name in _TOPICS and spec.retention_ms]
        return milliseconds(self._asked.period.start) < self._now - min(kept)

    def _held_since(self) -> dict[str, datetime]:
        """Topics that have lost records of the period, with the moment since when all their partitions are complete."""
        start = milliseconds(self._asked.period.start)
        latest = {topic: max(stretch.held_since.values(), default=0) for topic, stretch in self._stretches.items()}
        return {topic: datetime.fromtimestamp(at / 1000, UTC) for topic, at in latest.items() if at > start}


async def audit(settings: Settings, asked: Asked, *, round_size: int = ROUND) -> Report:
    """Compare the period. Raises AuditError, KafkaUnavailableError, ClickHouseError, MigrationError."""
    if await pending(settings):
        raise AuditError("The ledger is of an older version, or empty: run `spillway migrate` first.")
    async with (
        ClickHouse(settings, timeout=TIMEOUT) as database,
        reader(cluster_of(settings)) as consumer,
    ):
        return await Audit(settings, asked, consumer, LedgerReader(database, asked.workspace)).run(round_size)
