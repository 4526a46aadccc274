"""The Faust app, set up once for all stages. Every setting that differs from Faust's default says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import faust
from faust.auth import Credentials, SASLCredentials, SSLCredentials

from streams.runtime.clock import utc_now
from streams.runtime.faults import FaultLimits
from streams.runtime.gone import Gone
from streams.runtime.lease import Lease
from streams.runtime.lives import Lives
from streams.runtime.owners import Owners
from streams.runtime.pausing import StagePause
from streams.runtime.progress import Stage
from streams.runtime.transport import AckLastTransport, DrainSignal
from streams.topology import MAX_RECORD_BYTES, Topology

#: Seconds for which a rebalance waits for what is in flight. Calls go on after it.
DRAIN = 1.0


#: Seconds that one request to the broker may take: longer than a rebalance, whose end some of them wait for.
REQUEST_TIMEOUT = 90.0
#: Seconds between two heartbeats, however long the session is: a change of the group is heard of with one.
HEARTBEAT = 3.0


def heartbeat_interval(session_timeout: float) -> float:
    """Seconds between two heartbeats."""
    return min(session_timeout / 20, HEARTBEAT)


@dataclass(frozen=True)
class RuntimeConfig:
    """What the runtime needs to know. `drain_timeout` is in seconds."""

    bootstrap_servers: str
    data_dir: Path
    drain_timeout: float = DRAIN
    session_timeout: float = 10.0
    commit_interval: float = 1.0
    #: What aiokafka's own clients are given to be let in (`security_protocol`, `ssl_context`, `sasl_…`).
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    faults: FaultLimits = field(default_factory=FaultLimits)


class QuietMonitor(faust.Monitor):
    """Faust's monitor without its bookkeeping per event: Spillway's metrics are its own."""

    def on_message_in(self, tp: Any, offset: int, message: Any) -> None: ...

    def on_message_out(self, tp: Any, offset: int, message: Any) -> None: ...

    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> None: ...

    def on_stream_event_out(self, tp: Any, offset: int, stream: Any, event: Any, state: Any = None) -> None: ...

    def track_tp_end_offset(self, tp: Any, offset: int) -> None: ...


class SpillwayApp(faust.App):
    """A Faust app that can be drained."""

    drain: DrainSignal
    drain_timeout: float
    #: The time by which everything in this worker is decided, aware and in UTC: the broker's, once it is learned.
    clock: Callable[[], datetime]
    #: Its agents' work, by name, and their pauses.
    stages: dict[str, Stage]
    pauses: dict[str, StagePause]
    limits: FaultLimits
    #: What this process owns, and for how long it may believe so.
    lives: Lives
    lease: Lease
    owners: Owners
    #: Tells what was deleted before its agents have read it; None: nobody does.
    gone: Gone | None = None
    #: Told the group and the member's id, each time that it has joined; None: nobody keeps them.
    joined: Callable[[str, str], None] | None = None


def credentials(security: Mapping[str, Any]) -> Credentials | None:
    """The same in Faust's words, which its consumer translates back."""
    context = security.get("ssl_context")
    if (mechanism := security.get("sasl_mechanism")) is not None:
        user, password = security["sasl_plain_username"], security["sasl_plain_password"]
        return SASLCredentials(username=user, password=password, ssl_context=context, mechanism=mechanism)
    return SSLCredentials(context) if context is not None else None


def create_app(config: RuntimeConfig, topology: Topology) -> SpillwayApp:
    """An app that acknowledges last, drains in order, creates no topics and serves no web page."""
    rebalance_timeout = max(60.0, 2 * config.drain_timeout)
    brokers = ";".join(f"aiokafka://{host}" for host in config.bootstrap_servers.split(","))
    app = SpillwayApp(
        topology.application_id,
        broker=brokers,
        broker_credentials=credentials(config.security),
        store="rocksdb://",
        datadir=str(config.data_dir),
        autodiscover=False,
        web_enabled=False,
        # Topics are made by `spillway topics`, all with their right partitions, before a worker starts.
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=topology.partitions,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=2 * MAX_RECORD_BYTES,
        producer_max_request_size=2 * MAX_RECORD_BYTES,
        producer_linger=0.0,
        # A killed worker's partitions move after this, instead of a minute.
        broker_session_timeout=config.session_timeout,
        broker_heartbeat_interval=heartbeat_interval(config.session_timeout),
        # Faust refuses a session that is longer.
        broker_request_timeout=max(REQUEST_TIMEOUT, config.session_timeout),
        # A drain must fit in, or the group throws the draining worker out.
        broker_rebalance_timeout=rebalance_timeout,
        broker_commit_interval=config.commit_interval,
        stream_wait_empty=True,
        # What is read ahead is memory, and read again after a rebalance.
        stream_buffer_maxsize=1_000,
        worker_redirect_stdouts=False,
        Monitor=QuietMonitor,
    )
    app.clock = utc_now
    # Asked for anew each time: the clock is given later.
    app.drain = DrainSignal(lambda: app.clock().timestamp())
    app.lives, app.lease = Lives(), Lease(config.session_timeout, rebalance_timeout)
    app.stages, app.pauses, app.limits = {}, {}, config.faults
    app.drain_timeout = config.drain_timeout
    transport = AckLastTransport(app.conf.broker_consumer, app)
    app.transport = transport
    app.producer_transport = transport
    return app
