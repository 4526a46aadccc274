"""Admission and settlement, put together."""

from __future__ import annotations

import re
from functools import partial

from app.kafka import KafkaTopicDirectory, cluster_of
from app.providers.registry import catalog_of
from app.worker.parts import Common, Worker, reader
from app.worker.readiness import owned_partitions
from streams import rows
from streams.admit import agent as admit
from streams.admit.decide import AdmissionPolicy
from streams.rows import Row
from streams.runtime.broadcast import Broadcast
from streams.runtime.tables import DurableTable
from streams.settle import agent as settle
from streams.settle.apply import SettleConfig
from streams.statements import Statements
from streams.sweep import agent as sweep
from streams.sweep.decide import judge_row
from streams.topology import (
    LANES,
    REPORTS,
    REQUEST_TABLE,
)
from streams.workspaces import Workspaces


def add_request_stages(worker: Worker, common: Common) -> sweep.Sweepable:
    """Admission and settlement: one table, one directory of topics."""
    settings, app = worker.settings, worker.app
    router, providers, outbox, topology = common.router, common.providers, common.outbox, common.router.topology
    worker.listen(Broadcast(partial(reader, settings), LANES, common.board.hear))
    table: DurableTable[Row] = DurableTable(
        app,
        outbox,
        REQUEST_TABLE,
        partitions=topology.partitions,
        encode=rows.encode_row,
        decode=rows.decode_row,
    )
    app.owners.keeps(table)
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
        lanes=common.board,
        budgets=common.budgets,
        guess=common.guess,
        drain=app.drain,
        config=admit_config,
        directory=directory,
        workspaces=workspaces,
        outbox=outbox,
        clock=app.clock,
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
        clock=app.clock,
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
        owned=partial(owned_partitions, app, REPORTS),
        clock=app.clock,
        metrics=common.metrics,
    )
    worker.background.append(statements.run())
    return sweep.Sweepable(table, judge_row(topology), gone=workspaces.forget)
