"""What a worker is made of, before it is put together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry

from app.kafka import cluster_of
from app.ops.backlog import Reader
from app.prices import Prices
from app.providers.availability import AvailabilityBoard
from app.settings import Settings
from app.worker.standstill import Watch
from schemas.control import LaneState
from schemas.request import CommonRequest
from streams.budgets import BudgetBook
from streams.cancellations import CancellationBoard
from streams.commands import Router
from streams.dispatch.ports import Provider
from streams.metrics import Metrics
from streams.outlook import LaneBoard
from streams.runtime.app import SpillwayApp
from streams.runtime.batches import BatchReader
from streams.runtime.broadcast import Broadcast
from streams.runtime.clock import BrokerClock
from streams.runtime.outbox import Outbox
from streams.runtime.presence import Presence
from streams.tracing import Traces


@dataclass
class Worker:
    """A Faust app with all stages, and what has to be closed after it."""

    app: SpillwayApp
    settings: Settings
    #: What time it is at the broker. The app's clock is this one's.
    clock: BrokerClock = field(default_factory=BrokerClock)
    start: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    broadcasts: list[Broadcast] = field(default_factory=list)
    close: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)
    background: list[Coroutine[Any, Any, None]] = field(default_factory=list)
    availability: AvailabilityBoard = field(default_factory=AvailabilityBoard)
    #: Who wants to know of a workspace whose budget has changed.
    budget_listeners: list[Callable[[str], None]] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    #: How each lane stands.
    lanes: Callable[[], list[LaneState]] = list
    #: How many calls are on the wire, or not reported yet.
    calls: Callable[[], int] = lambda: 0
    #: What reads for the ledger.
    sinks: BatchReader | None = None
    #: Notices when a part of it stands still.
    watch: Watch | None = None
    #: Why the machine's clock keeps the worker from being ready; None: it does not.
    clock_reason: Callable[[], str | None] = lambda: None
    #: Who reads, by name, and up to where it has acknowledged.
    readers: dict[str, Reader] = field(default_factory=dict)

    def listen(self, broadcast: Broadcast) -> None:
        """Hear a broadcast from before the start to after the end."""
        self.broadcasts.append(broadcast)
        self.close.append(broadcast.stop)

    async def hear(self) -> None:
        """Return when all that was broadcast until now has been heard. Raises MissingTopicError, KafkaError."""
        await asyncio.gather(*(broadcast.start() for broadcast in self.broadcasts))

    def __post_init__(self) -> None:
        self.app.clock = self.clock.now

    @property
    def ready_file(self) -> Path:
        return self.settings.data_dir / "ready"


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
    presence: Presence
    board: LaneBoard

    def guess(self, provider: str, request: CommonRequest, at: datetime) -> Decimal | None:
        """What a provider's call for a request may cost, in US dollars."""
        return self.prices.estimate(provider, self.router.model_of(provider, request), request, at)


def reader(settings: Settings) -> AIOKafkaConsumer:
    """A consumer that belongs to no group. Call it inside the event loop."""
    return cluster_of(settings).consumer()
