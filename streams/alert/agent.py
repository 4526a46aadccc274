"""The alert stage's agent: reads the spend that the sink observed, announces each crossed threshold once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

from schemas.alert import BudgetAlert, WorkspaceSpend
from schemas.codec import UndecodableError, decode, encode, event_headers
from streams.alert.decide import BudgetPolicy, crossed
from streams.records import Record
from streams.runtime.agents import EventLoop, Incoming, dead_letter
from streams.runtime.app import SpillwayApp
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.tables import DurableTable
from streams.topology import BUDGET_ALERTS, SPEND, Topology

log = logging.getLogger(__name__)


class Alerting:
    """Handles one observation of a workspace's spend."""

    def __init__(
        self,
        *,
        topology: Topology,
        policy: BudgetPolicy,
        table: DurableTable[list[int]],
        outbox: Outbox,
        clock: Callable[[], datetime],
    ) -> None:
        self._topology = topology
        self._policy = policy
        self._table = table
        self._outbox = outbox
        self._clock = clock

    async def handle(self, incoming: Incoming) -> None:
        try:
            spend = decode(WorkspaceSpend, incoming.value)
        except UndecodableError as error:
            return await self._outbox.publish(dead_letter(incoming, error.code, str(error)))
        key = f"{spend.workspace_id}/{spend.month}"
        announced = self._table.get(key) or []
        alerts = crossed(spend, announced, self._policy, self._clock())
        if not alerts:
            return None
        # The alert first, then the note that it was sent: a crash in between repeats the alert with the same id,
        # the other way round would swallow it.
        await self._outbox.publish(*(self._record(alert) for alert in alerts))
        log.warning("budget_alert: %s: %s %%", key, alerts[-1].threshold)
        await arrived([await self._table.put(key, [*announced, *(alert.threshold for alert in alerts)])])
        return None

    def _record(self, alert: BudgetAlert) -> Record:
        headers = event_headers(
            event_id=alert.event_id,
            event_type=alert.kind,
            workspace_id=alert.workspace_id,
            time=alert.observed_at,
        )
        home = self._topology.workspace_partition(alert.workspace_id)
        return Record(BUDGET_ALERTS, alert.workspace_id.encode(), encode(alert), headers, home)


def encode_thresholds(thresholds: list[int]) -> bytes:
    return orjson.dumps(thresholds)


def decode_thresholds(value: bytes) -> list[int]:
    thresholds: list[int] = orjson.loads(value)
    return thresholds


def register(app: SpillwayApp, alerting: Alerting, outbox: Outbox) -> None:
    """Subscribe the alert stage to the observed spend."""
    # One at a time: two observations of a workspace must not both find a threshold unannounced.
    loop = EventLoop(alerting.handle, limit=1, outbox=outbox, drain=app.drain)
    topic = app.topic(SPEND, key_type=bytes, value_type=bytes)

    async def alert(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="alert")(alert)
