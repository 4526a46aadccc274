"""The worker: every stage put together by hand. What a stage needs is made here and handed in, not discovered."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry, generate_latest

from app.alerts.webhook import Webhook
from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.clickhouse.ledger import ClickHouseLedger
from app.contents import read_request
from app.kafka import KafkaTopicDirectory, cluster_of
from app.metrics import MeteredLedger, PrometheusMetrics
from app.ops.backlog import Backlog, Reader
from app.ops.checks import PATIENCE, Check, Readiness, readiness
from app.ops.gauges import Gauges, Sources
from app.ops.months import Months
from app.ops.server import OpsServer
from app.prices import Prices
from app.providers import build_providers
from app.providers.availability import AvailabilityBoard, watch
from app.providers.registry import catalog_of
from app.settings import Settings
from app.topics import build_topology, require_access
from app.tracing.setup import Tracing, start_tracing
from app.tracing.spans import StageTraces
from schemas.control import LaneState
from schemas.request import CommonRequest
from streams import rows
from streams.account import agent as account
from streams.account.batch import BatchPolicy
from streams.admit import agent as admit
from streams.admit.decide import AdmissionPolicy
from streams.alert import agent as alert
from streams.alert.notes import Note, decode_note, encode_note
from streams.budgets import BudgetBook
from streams.cancellations import CancellationBoard
from streams.commands import Router
from streams.dispatch import agent as dispatch
from streams.dispatch.control import ControlBoard
from streams.dispatch.decide import AttemptMark, RetryPolicy, decode_mark, encode_mark
from streams.dispatch.memory import decode_row, encode_row
from streams.dispatch.ports import Provider
from streams.dispatch.stations import DispatchConfig, Stations
from streams.metrics import NO_METRICS, Metrics
from streams.outlook import LaneBoard
from streams.rows import Row
from streams.runtime.app import RuntimeConfig, SpillwayApp, create_app
from streams.runtime.broadcast import Broadcast
from streams.runtime.outbox import Outbox, kafka_producer
from streams.runtime.tables import DurableTable
from streams.settle import agent as settle
from streams.settle.apply import SettleConfig
from streams.statements import Statements
from streams.sweep import agent as sweep
from streams.sweep.decide import idle_since, judge_row
from streams.topology import (
    ALERT_TABLE,
    BUDGETS,
    CANCELLATIONS,
    CONTROL,
    LANE_TABLE,
    LANES,
    MARK_TABLE,
    MAX_RECORD_BYTES,
    REPORTS,
    REQUEST_TABLE,
    Lane,
    Topology,
    dispatch_topic,
    ledger_group,
)
from streams.tracing import NO_TRACES, Traces
from streams.workspaces import Workspaces

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Worker:
    """A Faust app with all stages, and what has to be closed after it."""

    app: SpillwayApp
    settings: Settings
    start: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    close: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    background: list[Coroutine[Any, Any, None]] = field(default_factory=list)
    availability: AvailabilityBoard = field(default_factory=AvailabilityBoard)
    #: Who wants to know of a workspace whose budget has changed.
    budget_listeners: list[Callable[[str], None]] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    #: How each lane stands.
    lanes: Callable[[], list[LaneState]] = list
    #: Who reads, by name, and up to where it has acknowledged.
    readers: dict[str, Reader] = field(default_factory=dict)

    def listen(self, broadcast: Broadcast) -> None:
        """Hear a broadcast from before the start to after the end."""
        self.start.append(broadcast.start)
        self.close.append(broadcast.stop)

    @property
    def ready_file(self) -> Path:
        return self.settings.data_dir / "ready"


def build_worker(settings: Settings) -> Worker:
    """Everything that one process runs. Call it inside the event loop."""
    topology = build_topology(settings)
    providers = build_providers(settings)
    router = Router(topology, _model_of(providers))
    cluster = cluster_of(settings)
    app = create_app(
        RuntimeConfig(
            cluster.servers,
            settings.data_dir,
            settings.drain_timeout,
            session_timeout=settings.kafka_session_timeout,
            security=cluster.options,
        ),
        topology,
    )
    worker = Worker(app, settings, start=[partial(require_access, settings)])
    budgets = _hear_budgets(worker)
    months = Months(budgets, partial(_owned_partitions, app, REPORTS), utc_now, settings.metrics_workspaces)
    metrics = PrometheusMetrics(worker.registry, months) if settings.metrics_enabled else NO_METRICS
    tracing = start_tracing(settings, "spillway")
    traces = _traces(tracing, topology)
    outbox = Outbox(lambda: kafka_producer(cluster.servers, **cluster.options), metrics, traces)
    worker.start.append(outbox.start)
    worker.close.append(outbox.stop)
    prices = Prices(settings.price_overrides())
    cancellations = CancellationBoard()
    worker.listen(Broadcast(partial(_reader, settings), CANCELLATIONS, partial(_cancel, cancellations)))
    common = Common(router, providers, outbox, budgets, prices, cancellations, metrics, traces)
    tables = (_add_request_stages(worker, common), _add_dispatch(worker, common))
    _add_money_stages(worker, topology, budgets, outbox, traces)
    sweeper = sweep.Sweeper(tables=tables, window=settings.dedup_window, outbox=outbox, clock=utc_now)
    sweep.register(app, sweeper, outbox)
    worker.background.append(sweep.tick(app, outbox))
    if settings.availability_interval:
        worker.background.append(watch(providers, worker.availability, settings.availability_interval))
    worker.close += [provider.close for provider in providers.values()]
    _add_ops(worker, months)
    if tracing is not None:
        worker.close.append(partial(asyncio.to_thread, tracing.close))
    return worker


def _traces(tracing: Tracing | None, topology: Topology) -> Traces:
    if tracing is None:
        return NO_TRACES
    return StageTraces(tracing.tracer(), topology.application_id, ledger_group(topology.application_id))


def _model_of(providers: Mapping[str, Provider]) -> Callable[[str, CommonRequest], str]:
    """Which model a provider answers with; none for a provider that this deployment no longer has."""

    def model(name: str, request: CommonRequest) -> str:
        provider = providers.get(name)
        return provider.model_for(request) if provider is not None else ""

    return model


@dataclass(frozen=True)
class Common:
    """What several stages are given."""

    router: Router
    providers: Mapping[str, Provider]
    outbox: Outbox
    budgets: BudgetBook
    prices: Prices
    cancellations: CancellationBoard
    metrics: Metrics
    traces: Traces

    def guess(self, provider: str, request: CommonRequest, at: datetime) -> Decimal | None:
        """What a provider's call for a request may cost, in US dollars."""
        return self.prices.estimate(provider, self.router.model_of(provider, request), request, at)


def _add_request_stages(worker: Worker, common: Common) -> sweep.Sweepable:
    """Admission and settlement: one table, one directory of topics."""
    settings, app = worker.settings, worker.app
    router, providers, outbox, topology = common.router, common.providers, common.outbox, common.router.topology
    lanes = LaneBoard()
    worker.listen(Broadcast(partial(_reader, settings), LANES, lanes.hear))
    table: DurableTable[Row] = DurableTable(
        app,
        outbox,
        REQUEST_TABLE,
        partitions=topology.partitions,
        encode=rows.encode_row,
        decode=rows.decode_row,
    )
    workspaces = Workspaces(table, app.drain)
    directory = KafkaTopicDirectory(cluster_of(settings))
    worker.start.append(directory.start)
    worker.close.append(directory.stop)
    policy = AdmissionPolicy(
        tuple(name for name in settings.provider_order() if name in providers),
        {name: provider.kinds for name, provider in providers.items()},
        settings.default_deadline,
        catalog_of(settings),
        settings.cache_policy(),
    )
    admit_config = admit.AdmitConfig(policy, settings.max_request_bytes, re.compile(settings.reply_topics))
    admission = admit.Admission(
        router=router,
        lanes=lanes,
        budgets=common.budgets,
        guess=common.guess,
        drain=app.drain,
        config=admit_config,
        directory=directory,
        workspaces=workspaces,
        outbox=outbox,
        clock=utc_now,
        metrics=common.metrics,
        traces=common.traces,
    )
    admit.register(app, admission, admit_config, outbox)
    settle_config = SettleConfig(settings.in_doubt_policy, cache=settings.cache_policy())
    settling = settle.Settling(
        router=router,
        budgets=common.budgets,
        config=settle_config,
        directory=directory,
        workspaces=workspaces,
        outbox=outbox,
        clock=utc_now,
        metrics=common.metrics,
        traces=common.traces,
    )
    common.cancellations.on_cancel(settling.cancel)
    settle.register(app, settling, settle_config, outbox)
    statements = Statements(
        workspaces=workspaces,
        budgets=common.budgets,
        outbox=outbox,
        drain=app.drain,
        owned=partial(_owned_partitions, app, REPORTS),
        clock=utc_now,
        metrics=common.metrics,
    )
    worker.background.append(statements.run())
    return sweep.Sweepable(table, judge_row(topology), gone=workspaces.forget)


def _owned_partitions(app: SpillwayApp, topic: str) -> list[int]:
    """The partitions of a topic that this worker reads, once it has their tables."""
    if not is_ready(app):
        return []
    return [tp.partition for tp in app.consumer.assignment() if tp.topic == topic]


def _owned_lanes(app: SpillwayApp, topology: Topology) -> list[Lane]:
    """The lanes whose partitions this worker reads, once it has their tables."""
    own = {provider: set(_owned_partitions(app, dispatch_topic(provider))) for provider in topology.all_providers}
    return [lane for name, found in own.items() for lane in topology.lanes_of(name) if lane.partition in found]


def _add_dispatch(worker: Worker, common: Common) -> sweep.Sweepable:
    """The lanes: marks, what they have spent, and what operators have set."""
    settings, app = worker.settings, worker.app
    router, outbox, topology = common.router, common.outbox, common.router.topology
    marks = DurableTable(
        app, outbox, MARK_TABLE, partitions=topology.partitions, encode=encode_mark, decode=decode_mark
    )
    spent = DurableTable(app, outbox, LANE_TABLE, partitions=topology.partitions, encode=encode_row, decode=decode_row)
    weights = settings.workspace_weights()
    config = DispatchConfig(
        retry=RetryPolicy(settings.retry_attempts, settings.retry_delay),
        in_flight=settings.max_in_flight,
        look_ahead=settings.look_ahead,
        weight=lambda workspace: weights.get(workspace, 1.0),
    )
    control = ControlBoard(settings.quota_limits())
    stations = Stations(
        owned=partial(_owned_lanes, app, topology),
        read=partial(dispatch.read, app),
        drain=app.drain,
        config=config,
        control=control,
        table=spent,
        outbox=outbox,
        clock=utc_now,
    )
    worker.listen(Broadcast(partial(_reader, settings), CONTROL, partial(_steer, control, stations)))
    worker.background.append(stations.announce())
    worker.lanes = stations.states
    dispatchers = {
        name: dispatch.Dispatcher(
            provider=provider,
            router=router,
            config=config,
            prices=common.prices,
            marks=marks,
            stations=stations,
            cancellations=common.cancellations,
            outbox=outbox,
            drain=app.drain,
            clock=utc_now,
            traces=common.traces,
        )
        for name, provider in common.providers.items()
    }
    dispatch.register(app, dispatchers)
    return sweep.Sweepable(marks, idle_since(AttemptMark.last_touched))


def _cancel(cancellations: CancellationBoard, key: bytes | None, value: bytes | None) -> None:
    if not cancellations.apply(value):
        log.warning("cancellation_ignored: key %r", key)


def _steer(control: ControlBoard, stations: Stations, key: bytes | None, value: bytes | None) -> None:
    """A record of the control topic has come."""
    if control.apply(key, value):
        stations.apply_control()
    else:
        log.warning("control_ignored: a record of %s is no control event, or not under its own key", CONTROL)


def _reader(settings: Settings) -> AIOKafkaConsumer:
    """A consumer that belongs to no group. Call it inside the event loop."""
    return cluster_of(settings).consumer()


def _hear_budgets(worker: Worker) -> BudgetBook:
    """The budgets as this worker knows them: one book for all stages that ask."""
    book = BudgetBook(worker.settings.default_budget())
    worker.listen(Broadcast(partial(_reader, worker.settings), BUDGETS, partial(_budget, worker, book)))
    return book


def _budget(worker: Worker, book: BudgetBook, key: bytes | None, value: bytes | None) -> None:
    """A record of the budgets has come."""
    if not book.hear(key, value):
        return log.warning("budget_ignored: key %r: it is no budget, or not under its own key", key)
    for listener in worker.budget_listeners:
        listener((key or b"").decode(errors="replace"))
    return None


def _sink_consumer(settings: Settings) -> AIOKafkaConsumer:
    """The sinks' member of their group. Call it inside the event loop."""
    return cluster_of(settings).consumer(
        group_id=ledger_group(settings.kafka_application_id),
        auto_offset_reset="earliest",
        session_timeout_ms=round(settings.kafka_session_timeout * 1000),
        heartbeat_interval_ms=round(settings.kafka_session_timeout * 300),
        # A rebalance lets the batch at hand come to its end.
        rebalance_timeout_ms=60_000,
        # However long ClickHouse is away: the batch is tried again, and its partitions are kept.
        max_poll_interval_ms=2**31 - 1,
        max_partition_fetch_bytes=2 * MAX_RECORD_BYTES,
    )


def _add_money_stages(worker: Worker, topology: Topology, budgets: BudgetBook, outbox: Outbox, traces: Traces) -> None:
    settings, app = worker.settings, worker.app
    metered = settings.metrics_enabled
    ledger = MeteredLedger(settings, worker.registry) if metered else ClickHouseLedger(settings)
    worker.close.append(ledger.close)
    policy = BatchPolicy(settings.clickhouse_flush_rows, settings.clickhouse_flush_seconds)
    reader = account.sinks(
        topology=topology,
        ledger=ledger,
        policy=policy,
        outbox=outbox,
        make_consumer=partial(_sink_consumer, settings),
        observe_spend=settings.budget_alerts_enabled,
        read_request=partial(read_request, max_bytes=settings.max_request_bytes) if settings.store_content else None,
        traces=traces,
    )
    worker.start.append(reader.start)
    worker.readers["sinks"] = reader.committed
    # Before the outbox closes: what was read last is still told.
    worker.close.insert(0, reader.stop)
    if not settings.budget_alerts_enabled:
        return
    notes: DurableTable[Note] = DurableTable(
        app, outbox, ALERT_TABLE, partitions=topology.partitions, encode=encode_note, decode=decode_note
    )
    alerting = alert.Alerting(topology=topology, budgets=budgets, table=notes, outbox=outbox)
    alert.register(app, alerting, outbox)
    again = alert.SecondLook(app=app, topology=topology, budgets=budgets, outbox=outbox, clock=utc_now)
    worker.budget_listeners.append(again.note)
    worker.background.append(again.run())
    if settings.alert_webhook_url is not None:
        webhook = Webhook(settings, settings.alert_webhook_url)
        worker.start.append(webhook.start)
        worker.close.append(webhook.stop)


def _add_ops(worker: Worker, months: Months) -> None:
    """What those who run it ask a worker. It is the last to be closed: until then it says what goes on."""
    settings, app = worker.settings, worker.app
    worker.readers["stages"] = partial(_committed, app)
    backlog = Backlog(cluster_of(settings), partial(_reader, settings), worker.readers)
    database = ClickHouse(settings, use_database=False, timeout=PATIENCE)
    checks = {"kafka": Check(backlog.look), "clickhouse": Check(partial(_look_at, database))}

    async def ready() -> Readiness:
        return await readiness(missing(app), checks)

    async def exposition() -> bytes:
        await checks["kafka"].see()
        return generate_latest(worker.registry)

    if settings.metrics_enabled:
        worker.registry.register(
            Gauges(
                Sources(
                    lanes=worker.lanes,
                    availability=lambda: worker.availability.standings,
                    months=months.overview,
                    backlog=lambda: backlog.records,
                    partitions=lambda: len(app.consumer.assignment()) if is_ready(app) else 0,
                )
            )
        )
    server = OpsServer(
        settings.ops_host,
        settings.ops_port,
        ready=ready,
        exposition=exposition if settings.metrics_enabled else None,
        note=worker.settings.data_dir / "ops",
    )
    worker.start.insert(0, server.start)
    worker.close += [check.stop for check in checks.values()]
    worker.close += [backlog.close, database.close, server.stop]


async def _look_at(database: ClickHouse) -> str | None:
    try:
        await database.query("SELECT 1")
    except ClickHouseError as error:
        return str(error)
    return None


async def _committed(app: SpillwayApp) -> dict[TopicPartition, int | None]:
    """Up to where this worker has acknowledged its inputs; the tables' changelogs are nobody's backlog."""
    if not is_ready(app):
        return {}
    known = cast(Any, app.consumer)._committed_offset
    places = (tp for tp in app.consumer.assignment() if not tp.topic.endswith("-changelog"))
    return {TopicPartition(tp.topic, tp.partition): known.get(tp) for tp in places}


def is_ready(app: SpillwayApp) -> bool:
    """Whether a worker has its partitions and their tables."""
    return missing(app) is None


def missing(app: SpillwayApp) -> str | None:
    """What keeps a worker from working; None where nothing does."""
    if app.should_stop:
        return "the worker is stopping"
    if app.rebalancing:
        return "partitions are being assigned"
    if app.in_recovery:
        return "tables are being restored"
    consumer = app.consumer
    if not (cast(Any, consumer).flow_active and app.flow_control.is_active()):
        return "reading has not begun"
    return None if consumer.assignment() else "the worker has no partitions"
