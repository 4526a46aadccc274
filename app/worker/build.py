"""The worker: every stage put together by hand. What a stage needs is made here and handed in, not discovered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from app.kafka import cluster_of, patiently
from app.metrics import PrometheusMetrics, count_dropped_spans
from app.ops.months import Months
from app.prices import Prices
from app.providers import build_providers
from app.providers.availability import watch
from app.settings import Settings
from app.topics import build_topology, require_access
from app.tracing.setup import Tracing, start_tracing
from app.tracing.spans import StageTraces
from app.worker.clock import add_presence
from app.worker.lanes import add_dispatch
from app.worker.money import add_money_stages, hear_budgets
from app.worker.ops import add_ops
from app.worker.parts import Common, Worker, reader
from app.worker.predecessor import ProcessNote, declare_dead
from app.worker.readiness import owned_partitions
from app.worker.requests import add_request_stages
from schemas.request import CommonRequest
from streams.cancellations import CancellationBoard
from streams.commands import Router
from streams.dispatch.ports import Provider
from streams.metrics import NO_METRICS
from streams.outlook import LaneBoard
from streams.runtime.app import RuntimeConfig, create_app
from streams.runtime.broadcast import Broadcast
from streams.runtime.faults import FaultLimits
from streams.runtime.gone import Gone
from streams.runtime.outbox import Outbox, kafka_producer
from streams.runtime.owners import Owners
from streams.sweep import agent as sweep
from streams.topology import (
    CANCELLATIONS,
    REPORTS,
    Topology,
    ledger_group,
)
from streams.tracing import NO_TRACES, Traces

log = logging.getLogger(__name__)


def build_worker(settings: Settings, note: ProcessNote | None = None) -> Worker:
    """Everything that one process runs. `note` is its folder's. Call it inside the event loop."""
    topology = build_topology(settings)
    providers = build_providers(settings)
    router = Router(topology, _model_of(providers))
    cluster = cluster_of(settings)
    app = create_app(
        RuntimeConfig(
            cluster.servers,
            settings.data_dir,
            session_timeout=settings.kafka_session_timeout,
            security=cluster.options,
            faults=FaultLimits(settings.faults_before_pause, settings.pause_seconds, settings.data_dir / "faults"),
        ),
        topology,
    )
    worker = Worker(app, settings)
    worker.start += [partial(patiently, partial(require_access, settings)), worker.hear]
    budgets = hear_budgets(worker)
    months = Months(budgets, partial(owned_partitions, app, REPORTS), app.clock, settings.metrics_workspaces)
    metrics = PrometheusMetrics(worker.registry, months) if settings.metrics_enabled else NO_METRICS
    tracing = start_tracing(settings, "spillway", count_dropped_spans(worker.registry))
    traces = _traces(tracing, topology)
    outbox = Outbox(lambda: kafka_producer(cluster.servers, **cluster.options), metrics, traces, app.clock)
    app.owners = Owners(topology.application_id, app.lives, app.lease, outbox)
    app.owners.on_lost(app.drain.begin)
    worker.background.append(app.owners.keep())
    worker.start += [outbox.start, app.owners.check]
    if note is not None:
        note.named(app.owners.name)
        app.joined = note.joined
        worker.start.append(partial(declare_dead, note.before, cluster, outbox))
    presence = add_presence(worker, outbox)
    app.gone = Gone(outbox, topology.application_id, metrics)
    worker.close += [app.gone.stop, outbox.stop]
    prices = Prices(settings.price_overrides())
    cancellations = CancellationBoard()
    worker.listen(Broadcast(partial(reader, settings), CANCELLATIONS, partial(_cancel, cancellations)))
    common = Common(router, providers, outbox, budgets, prices, cancellations, metrics, traces, presence, LaneBoard())
    tables = (add_request_stages(worker, common), add_dispatch(worker, common))
    add_money_stages(worker, topology, budgets, common)
    sweeper = sweep.Sweeper(tables=tables, window=settings.dedup_window, outbox=outbox, clock=app.clock)
    sweep.register(app, sweeper, outbox)
    worker.background.append(sweep.tick(app, outbox))
    if settings.availability_interval:
        worker.background.append(watch(providers, worker.availability, settings.availability_interval))
    worker.close += [provider.close for provider in providers.values()]
    add_ops(worker, months)
    if tracing is not None:
        worker.close.append(partial(asyncio.to_thread, tracing.close))
    return worker


def _cancel(cancellations: CancellationBoard, key: bytes | None, value: bytes | None) -> None:
    if not cancellations.apply(value):
        log.warning("cancellation_ignored: key %r", key)


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
