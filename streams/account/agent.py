"""The sinks: usage, responses and alerts into the ledger; then the touched workspaces' spend is told.

They are one consumer group beside Faust's, because they write no table of Faust's (`streams/runtime/batches.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer

from schemas.alert import WorkspaceSpend
from schemas.codec import decode, encode
from schemas.usage import UsageEvent
from streams.account.announced import Announced, read_announced
from streams.account.answered import Answered
from streams.account.batch import BatchPolicy
from streams.account.content import Content, read_answer
from streams.account.ports import Ledger, WorkspaceHour
from streams.account.sink import Sink
from streams.records import Record
from streams.runtime.batches import BatchReader
from streams.runtime.faults import FaultLimits
from streams.runtime.gone import Gone
from streams.runtime.outbox import Outbox
from streams.runtime.transport import DrainSignal
from streams.topology import BUDGET_ALERTS, REQUESTS, RESPONSES, SPEND, USAGE, Topology
from streams.tracing import NO_TRACES, Traces

#: What a usage event touches: its workspace, the hour of its start, and its budget's month.
Touched = tuple[str, datetime, str]


class SpendTeller:
    """Publishes what the ledger says that workspaces have spent."""

    def __init__(self, topology: Topology, ledger: Ledger, outbox: Outbox) -> None:
        self._topology = topology
        self._ledger = ledger
        self._outbox = outbox

    async def __call__(self, touched: Collection[Touched]) -> None:
        spent = await self._ledger.spent({(workspace, month) for workspace, _, month in touched})
        await self._outbox.publish(
            *(
                self._record(WorkspaceSpend(workspace_id=workspace, month=month, spent=cost))
                for (workspace, month), cost in spent.items()
            )
        )

    def _record(self, spend: WorkspaceSpend) -> Record:
        home = self._topology.workspace_partition(spend.workspace_id)
        return Record(SPEND, spend.workspace_id.encode(), encode(spend), partition=home)


NO_NOTES = FaultLimits()


def sinks(
    *,
    topology: Topology,
    ledger: Ledger,
    policy: BatchPolicy,
    outbox: Outbox,
    make_consumer: Callable[[], AIOKafkaConsumer],
    observe_spend: bool = True,
    read_request: Callable[[Any], Content | None] | None = None,
    traces: Traces = NO_TRACES,
    limits: FaultLimits = NO_NOTES,
    gone: Gone | None = None,
) -> BatchReader:
    """The reader that feeds the ledger, not started yet.

    With `read_request`, which finds what a record of `ai.requests` asks, prompts and answers are kept as well.
    """
    drain = DrainSignal()
    # One count for all: they are one stage.
    faults = limits.count_of("sinks")
    sink = partial(Sink, policy=policy, outbox=outbox, drain=drain, faults=faults)
    tell = SpendTeller(topology, ledger, outbox) if observe_spend else None

    async def settle_usage(touched: Collection[Touched]) -> None:
        await ledger.recount_attempts({(workspace, hour) for workspace, hour, _ in touched})
        if tell is not None:
            await tell(touched)

    usage: Sink[UsageEvent] = sink(
        topic=USAGE,
        read=lambda record: decode(UsageEvent, record.value),
        write=ledger.write,
        touches=lambda event: (event.workspace_id, hour_of(event.started_at), event.budget_month),
        settle=settle_usage,
        traces=traces,
    )
    outcomes: Sink[Answered] = sink(
        topic=RESPONSES,
        read=lambda record: decode(Answered, record.value),
        write=ledger.write_outcomes,
        touches=_answered_hour,
        settle=ledger.recount_outcomes,
        traces=traces,
    )
    alerts: Sink[Announced] = sink(
        topic=BUDGET_ALERTS,
        read=read_announced,
        write=ledger.write_alerts,
    )
    contents: list[Sink[Content]] = []
    if read_request is not None:
        contents = [
            Sink(
                topic=topic,
                read=read,
                write=ledger.write_contents,
                policy=policy,
                outbox=outbox,
                drain=drain,
            )
            for topic, read in ((REQUESTS, read_request), (RESPONSES, read_answer))
        ]
    return BatchReader(make_consumer, (usage, outcomes, alerts, *contents), policy, drain, limits.pause, gone)


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _answered_hour(answered: Answered) -> WorkspaceHour:
    return answered.workspace_id, hour_of(answered.answered_at)
