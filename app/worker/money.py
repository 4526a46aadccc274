"""Budgets, the ledger's sinks and the alerts, put together."""

from __future__ import annotations

import logging
from functools import partial

from aiokafka import AIOKafkaConsumer

from app.alerts.webhook import Webhook
from app.clickhouse.ledger import ClickHouseLedger
from app.contents import read_request
from app.kafka import cluster_of
from app.metrics import MeteredLedger
from app.settings import Settings
from app.worker.parts import Common, Worker, reader
from streams.account import agent as account
from streams.account.batch import BatchPolicy
from streams.alert import agent as alert
from streams.alert.notes import Note, decode_note, encode_note
from streams.budgets import BudgetBook
from streams.runtime.app import HEARTBEAT
from streams.runtime.broadcast import Broadcast
from streams.runtime.gone import Gone
from streams.runtime.tables import DurableTable
from streams.topology import (
    ALERT_TABLE,
    BUDGETS,
    MAX_RECORD_BYTES,
    Topology,
    ledger_group,
)

log = logging.getLogger(__name__)

#: What the broker collects for the sinks before it answers, and the seconds after which it answers in any case.
SINK_FETCH_BYTES = 256 * 1024
SINK_FETCH_WAIT = 0.25


def hear_budgets(worker: Worker) -> BudgetBook:
    """The budgets as this worker knows them: one book for all stages that ask."""
    book = BudgetBook(worker.settings.default_budget())
    worker.listen(Broadcast(partial(reader, worker.settings), BUDGETS, partial(_budget, worker, book)))
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
        heartbeat_interval_ms=round(min(settings.kafka_session_timeout * 0.3, HEARTBEAT) * 1000),
        # A rebalance lets the batch at hand come to its end.
        rebalance_timeout_ms=60_000,
        # However long ClickHouse is away: the batch is tried again, and its partitions are kept.
        max_poll_interval_ms=2**31 - 1,
        max_partition_fetch_bytes=2 * MAX_RECORD_BYTES,
        # Rows wait for their batch in any case: the broker may as well collect them. Else nearly each record is a fetch
        # of its own, answered for all partitions.
        fetch_min_bytes=SINK_FETCH_BYTES,
        fetch_max_wait_ms=round(min(SINK_FETCH_WAIT, settings.clickhouse_flush_seconds / 4) * 1000),
    )


def add_money_stages(worker: Worker, topology: Topology, budgets: BudgetBook, common: Common) -> None:
    outbox, traces = common.outbox, common.traces
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
        limits=app.limits,
        gone=Gone(outbox, ledger_group(topology.application_id), common.metrics),
    )
    worker.start.append(reader.start)
    worker.readers["sinks"] = reader.committed
    worker.sinks = reader
    reader.joined = worker.app.joined
    # Before the outbox closes: what was read last is still told.
    worker.close.insert(0, reader.stop)
    if not settings.budget_alerts_enabled:
        return
    notes: DurableTable[Note] = DurableTable(
        app, outbox, ALERT_TABLE, partitions=topology.partitions, encode=encode_note, decode=decode_note
    )
    app.owners.keeps(notes)
    alerting = alert.Alerting(topology=topology, budgets=budgets, table=notes, outbox=outbox)
    alert.register(app, alerting, outbox)
    again = alert.SecondLook(app=app, topology=topology, budgets=budgets, outbox=outbox, clock=app.clock)
    worker.budget_listeners.append(again.note)
    worker.background.append(again.run())
    if settings.alert_webhook_url is not None:
        webhook = Webhook(settings, settings.alert_webhook_url, app.clock)
        worker.start.append(webhook.start)
        worker.close.append(webhook.stop)
