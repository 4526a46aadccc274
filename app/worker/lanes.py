"""Dispatch, put together."""

from __future__ import annotations

import logging
from functools import partial

from app.worker.parts import Common, Worker, reader
from app.worker.readiness import owned_lanes
from streams.dispatch import agent as dispatch
from streams.dispatch.control import ControlBoard
from streams.dispatch.decide import AttemptMark, RetryPolicy, decode_mark, encode_mark
from streams.dispatch.memory import decode_row, encode_row
from streams.dispatch.ownership import Ownership
from streams.dispatch.stations import DispatchConfig, Stations
from streams.dispatch.unreported import Unreported
from streams.runtime.app import heartbeat_interval
from streams.runtime.broadcast import Broadcast
from streams.runtime.tables import DurableTable
from streams.sweep import agent as sweep
from streams.sweep.decide import idle_since
from streams.topology import (
    CONTROL,
    LANE_TABLE,
    MARK_TABLE,
)

log = logging.getLogger(__name__)

#: Seconds for which marks stay at least, however short a request id is known: a call may still run whose worker dies,
#: and without its mark the call would be made once more without a word of it.
MARKS_KEPT = 86_400.0


def add_dispatch(worker: Worker, common: Common) -> sweep.Sweepable:
    """The lanes: marks, what they have spent, and what operators have set."""
    settings, app = worker.settings, worker.app
    router, outbox, topology = common.router, common.outbox, common.router.topology
    marks = DurableTable(
        app, outbox, MARK_TABLE, partitions=topology.partitions, encode=encode_mark, decode=decode_mark
    )
    spent = DurableTable(app, outbox, LANE_TABLE, partitions=topology.partitions, encode=encode_row, decode=decode_row)
    app.owners.keeps(marks)
    app.owners.keeps(spent)
    weights = settings.workspace_weights()
    config = DispatchConfig(
        retry=RetryPolicy(settings.retry_attempts, settings.retry_delay),
        in_flight=settings.max_in_flight,
        look_ahead=settings.look_ahead,
        look_ahead_bytes=settings.look_ahead_bytes,
        weight=lambda workspace: weights.get(workspace, 1.0),
        known_for=settings.dedup_window,
        minute=settings.minute_seconds,
    )
    # Looks come often within a session.
    ownership = Ownership(app.owners, app.lives, common.presence, heartbeat_interval(settings.kafka_session_timeout))
    worker.background.append(ownership.watch())
    control = ControlBoard(settings.quota_limits())
    stations = Stations(
        owned=partial(owned_lanes, app, topology),
        read=partial(dispatch.read, app),
        drain=app.drain,
        config=config,
        control=control,
        table=spent,
        outbox=outbox,
        clock=app.clock,
        ownership=ownership,
        board=common.board,
    )
    worker.listen(Broadcast(partial(reader, settings), CONTROL, partial(_steer, control, stations)))
    worker.background.append(stations.announce())
    worker.lanes = stations.states
    unreported = Unreported(outbox, stations.hold)
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
            unreported=unreported,
            drain=app.drain,
            clock=app.clock,
            ownership=ownership,
            traces=common.traces,
        )
        for name, provider in common.providers.items()
    }
    dispatch.register(app, dispatchers)
    worker.calls = lambda: sum(dispatcher.calls for dispatcher in dispatchers.values())
    return sweep.Sweepable(marks, idle_since(AttemptMark.last_touched, MARKS_KEPT))


def _steer(control: ControlBoard, stations: Stations, key: bytes | None, value: bytes | None) -> None:
    """A record of the control topic has come."""
    if control.apply(key, value):
        stations.apply_control()
    else:
        log.warning("control_ignored: a record of %s is no control event, or not under its own key", CONTROL)
