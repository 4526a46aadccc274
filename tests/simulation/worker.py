"""A worker as a simulated process: the product's stages and runtime, with only Faust's and aiokafka's parts replaced.

What is real: admission, dispatch, settlement, sweep and their event loops, the acknowledgement discipline, the
consumer's way of handing over, pausing and draining, the tables, the outbox. What is written for this: how Faust gives
agents their events, restores tables and answers a rebalance (each after its own code, version 0.15.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from aiokafka.errors import KafkaError
from faust.streams import _current_event
from faust.transport.utils import DefaultSchedulingStrategy
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from app.worker.predecessor import TELLING
from schemas.budget import BudgetChange
from schemas.codec import encode
from schemas.control import Mode, ModeChange
from streams import rows
from streams.admit import agent as admit
from streams.admit.decide import AdmissionPolicy
from streams.budgets import Budget, BudgetBook
from streams.cancellations import CancellationBoard
from streams.commands import Router
from streams.dispatch import agent as dispatch
from streams.dispatch.control import ControlBoard
from streams.dispatch.decide import AttemptMark, RetryPolicy, decode_mark, encode_mark
from streams.dispatch.memory import decode_row, encode_row
from streams.dispatch.ownership import Ownership
from streams.dispatch.ports import Provider
from streams.dispatch.quota import Limits
from streams.dispatch.stations import DispatchConfig, Stations
from streams.dispatch.unreported import Unreported
from streams.outlook import LaneBoard
from streams.ports import DirectoryUnavailableError
from streams.runtime.app import DRAIN
from streams.runtime.clock import BrokerClock
from streams.runtime.errors import LostError
from streams.runtime.faults import FaultLimits
from streams.runtime.lease import NO_ERROR, REBALANCING, UNKNOWN_MEMBER, Lease
from streams.runtime.lives import Lives
from streams.runtime.outbox import Outbox
from streams.runtime.owners import Owners
from streams.runtime.presence import Presence, last_record
from streams.runtime.tables import DurableTable
from streams.runtime.transport import AckLastConsumer, DrainSignal
from streams.settle import agent as settle
from streams.settle.apply import SettleConfig
from streams.sharing import CachePolicy
from streams.statements import Statements
from streams.sweep import agent as sweep
from streams.sweep.decide import idle_since, judge_row
from streams.topology import LANE_TABLE, MARK_TABLE, OWNERS, REPORTS, REQUEST_TABLE, TICKS, Topology, dispatch_topic
from streams.workspaces import Workspaces
from tests.simulation.broker import REBALANCE, SESSION, START, TP, Broker, Client, FencedError, Joined, Logged, Producer
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.stores import ARRIVED, Disk, DiskFullError, Table

PROVIDERS = ("claude", "openai")
TOPOLOGY = Topology("spillway", PROVIDERS, partitions=3)
INPUTS = ("ai.requests", REPORTS, TICKS, *map(dispatch_topic, PROVIDERS))
TABLES = (REQUEST_TABLE, MARK_TABLE, LANE_TABLE)
REPLIES_TO = "apps.replies"
#: Small rooms, so that a few dozen requests fill them.
CHANNEL, AT_WORK, CALLS, LOOK_AHEAD = 6, 8, 3, 12
HEARTBEAT = SESSION / 10
ESTIMATE, COST = Decimal("0.5"), Decimal("0.25")
#: The workspace whose budget refuses, and its US dollars: enough for some of its requests.
THRIFTY, BUDGET = "umbrella", Decimal(2)
RECORDS_OF_A_RESTORE = 50
#: Seconds between two looks at who lives.
LISTEN = 0.3
#: Seconds between two looks of those who keep a second copy of a table.
STANDBY = 3.0


@dataclass(eq=False)
class Message:
    """As Faust hands a record to agents."""

    record: Logged
    generation_id: int
    acked: bool = False
    tracked: bool = False

    def __post_init__(self) -> None:
        record = self.record
        self.topic, self.partition, self.offset = record.topic, record.partition, record.offset
        self.tp = TP(record.topic, record.partition)
        self.key, self.value, self.headers = record.key, record.value, record.headers
        self.timestamp = record.timestamp / 1000


@dataclass(eq=False)
class Event:
    message: Message
    app: App

    def ack(self) -> bool:
        return self.app.consumer.ack(self.message)


class Stream:
    """An agent's events, as `Stream.__aiter__` of Faust brings them."""

    def __init__(self, app: App, queue: ThrowableQueue[Event]) -> None:
        self._app = app
        self._queue = queue

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Event]:
        app = self._app
        while True:
            await asyncio.sleep(0)
            event = await self._queue.get()
            message = event.message
            if not app.flow_control.is_active() or message.generation_id != app.consumer_generation_id:
                # Faust takes what it skips for done.
                event.ack()
                continue
            if not message.tracked:
                message.tracked = True
                app.consumer.unacked.add(cast(Any, message))
            _current_event.set(weakref.ref(cast(Any, event)))
            yield event


class Consumer(AckLastConsumer):
    """The product's consumer over a simulated client."""

    should_stop = False

    app: Any

    def __init__(self, app: App, client: Client) -> None:
        # Faust's own setting up needs a Faust app: what its methods use is made here.
        self.app = app
        self.drain, self.drain_timeout = app.drain, app.drain_timeout
        self.owners = app.owners
        self.owners.rejoin = app.join_again
        self.client = client
        self._thread = cast(Any, SimpleNamespace(_ensure_consumer=lambda: client))
        self.log = cast(Any, SimpleNamespace(dev=lambda *_: None))
        self.diag = cast(Any, SimpleNamespace(set_flag=lambda _: None, unset_flag=lambda _: None))
        self.scheduler = cast(Any, DefaultSchedulingStrategy)()
        self._gap, self._acked, self._acked_index = cast(Any, ({}, {}, {}))
        self._read_offset = defaultdict(lambda: None)
        self._committed_offset = defaultdict(lambda: None)
        self._waiting_for_ack = None
        self._active_partitions = set()
        self._paused_partitions = set()
        self._buffered_partitions = set()
        self.can_resume_flow = cast(Any, asyncio.Event())
        self.suspend_flow = cast(Any, asyncio.Event())
        self.flow_active = False
        self._on_partitions_revoked = cast(Any, app.give_up)
        self.prepare()

    async def callback(self, message: Any) -> None:
        """The conductor's part: the agents' channels get it."""
        for queue in self._queues(message.tp):
            queue.put_nowait(Event(message, cast(Any, self.app)))

    def assignment(self) -> set[Any]:
        return self.client.assignment()

    def _to_message(self, tp: Any, record: Logged) -> Any:  # noqa: ARG002 - as Faust calls it
        return Message(record, self.app.consumer_generation_id)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's name
        if not self.flow_active:
            await self.can_resume_flow.wait()
        active = self._get_active_partitions()
        if not active:
            await asyncio.sleep(timeout)
            return {}, active
        return await self.client.getmany([TP(*tp) for tp in active], timeout), active

    async def seek_to_committed(self) -> Any:
        """aiokafka's: one partition after another, and only to a place beyond the first."""
        committed: dict[Any, int | None] = {}
        for tp in sorted(self.assignment()):
            committed[tp] = await self.client.ask(partial(self.app.broker.committed.get, tp))
            if offset := committed[tp]:
                self.client.seek(tp, offset)
        return committed

    async def _seek(self, partition: Any, offset: int) -> None:
        self.client.seek(partition, offset)

    async def commit(self, *_: Any, **__: Any) -> bool:
        """Faust's, without its attachments and its table of offsets in the log."""
        offsets = self._filter_committable_offsets(list(self._filter_tps_with_pending_acks()))
        own = {TP(*tp): offset for tp, offset in offsets.items() if tp in self.assignment()}
        member, generation = self.app.member, self.app.generation
        if own:
            with contextlib.suppress(KafkaError, FencedError):
                await self.client.ask(lambda: self.app.broker.group.commit(member, generation, own))
                self._committed_offset.update(cast(Any, own))
        return bool(own)


class Tables(list[Table]):
    """Second copies are read beside the consumer here."""

    recovery = SimpleNamespace(standby_offsets={}, standby_tps=set())


class App:
    """What the product asks of Faust's app, and the worker's life in the group."""

    def __init__(self, worker: Worker, broker: Broker, process: Process, disk: Disk, outbox: Outbox) -> None:
        self.lives = Lives()
        self.lease = Lease(SESSION, REBALANCE, broker.loop.time)
        self.owners = Owners("spillway", self.lives, self.lease, outbox, process.name)
        self.worker = worker
        self.broker = broker
        self.disk = disk
        self.drain_timeout = DRAIN
        self.drain = DrainSignal(lambda: START + broker.loop.time())
        self.owners.on_lost(self.drain.begin)
        self.limits = FaultLimits(pause=5.0)
        self.stages: dict[str, Any] = {}
        self.pauses: dict[str, Any] = {}
        self.tables = Tables()
        self.agents: list[tuple[Any, ThrowableQueue[Event]]] = []
        self.flow_control = FlowControlEvent()
        self.rebalancing = True
        self.in_recovery = False
        self.should_stop = False
        self.consumer_generation_id = 0
        #: In the group's books.
        self.member, self.generation = process.name, 0
        self.topics = SimpleNamespace(_tp_index={}, acks_enabled_for=lambda topic: topic in INPUTS)
        self.consumer = Consumer(self, Client(broker, process))
        self._restoring: asyncio.Task[None] | None = None
        self._fenced = asyncio.Event()

    # What stages ask for -------------------------------------------------------------------------------------------

    def topic(self, name: str, **_: Any) -> str:
        return name

    def agent(self, topic: str, name: str) -> Callable[[Any], None]:  # noqa: ARG002 - as Faust's
        queue: ThrowableQueue[Event] = ThrowableQueue(
            maxsize=CHANNEL, flow_control=self.flow_control, clear_on_resume=True
        )
        channel = SimpleNamespace(queue=queue)
        for partition in range(self.broker.partitions):
            self.topics._tp_index[TP(topic, partition)] = [channel]

        def register(work: Any) -> None:
            self.agents.append((work, queue))

        return register

    def Table(self, name: str, **_: Any) -> Any:  # noqa: N802 - Faust's name
        table = Table(name, TOPOLOGY.changelog(name), self.disk)
        self.tables.append(table)
        return table

    def _start_span_from_rebalancing(self, _: str) -> Any:
        return nullcontext()

    # The life of a member ------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Join, work, and join again at each change, until the process stops."""
        asyncio.get_running_loop().create_task(self._beat())
        while not self.worker.is_stopping:
            self.rebalancing = True
            await self._stop_restoring()
            await self.consumer.on_partitions_revoked(cast(Any, self.consumer.assignment()))
            try:
                joined = await self.consumer.client.ask(
                    lambda: self.broker.group.join(self.member, self.worker.process)
                )
            except KafkaError:
                await asyncio.sleep(1.0)
                continue
            self._fenced.clear()
            self.generation = self.consumer_generation_id = joined.generation
            try:
                await self._ask_group(self.broker.group.sync)
                await self.owners.take(joined.own, joined.generation)
            except (KafkaError, FencedError, LostError):
                if self.drain.draining:
                    # aiokafka has assigned them by then, so that the revocation which follows ends the drain.
                    self.drain.end()
                await asyncio.sleep(0.5)
                continue
            self._take_over(joined)
            await self._fenced.wait()

    def join_again(self) -> None:
        self._fenced.set()

    async def _ask_group(self, what: Callable[[str, int], Any]) -> Any:
        """Ask the group something as its member; the lease hears the answer. Raises FencedError, KafkaError."""
        sent_at, generation = self.broker.loop.time(), self.generation
        try:
            is_calm = await self.consumer.client.ask(lambda: what(self.member, generation))
        except FencedError:
            self.lease.heard(sent_at, UNKNOWN_MEMBER)
            raise
        self.lease.heard(sent_at, REBALANCING if is_calm is False else NO_ERROR)
        return is_calm

    async def _beat(self) -> None:
        """aiokafka's heartbeats, which go on while a worker drains."""
        while True:
            await asyncio.sleep(HEARTBEAT)
            generation = self.generation
            try:
                is_calm = await self._ask_group(self.broker.group.heartbeat)
            except FencedError:
                is_calm = False
            except KafkaError:
                continue
            if not is_calm and generation == self.generation:
                self._fenced.set()

    async def give_up(self, _: Iterable[Any]) -> None:
        """Faust's `App._on_partitions_revoked`."""
        assignment = self.consumer.assignment()
        if assignment:
            self.consumer.stop_flow()
            self.flow_control.suspend()
            self.consumer.pause_partitions(cast(Any, assignment))
            self.flow_control.clear()
            await self.consumer.wait_empty()

    def _take_over(self, joined: Joined) -> None:
        """Faust's `Consumer.on_partitions_assigned` and what comes of it."""
        partitions = joined.own
        places = {TP(topic, partition) for topic in INPUTS for partition in partitions}
        self.consumer.client.assign(sorted(places))
        self.consumer._paused_partitions.intersection_update(places)
        self.consumer._set_active_tps(cast(Any, places))
        self.consumer.pause_partitions(cast(Any, places))
        for table in self.tables:
            table.data.keep_only({*partitions, *joined.standby})
        self._restoring = asyncio.get_running_loop().create_task(self._restore(partitions, joined.standby))

    async def _stop_restoring(self) -> None:
        restoring, self._restoring = self._restoring, None
        if restoring is not None and not restoring.done():
            restoring.cancel()
            await asyncio.wait([restoring])

    async def _restore(self, partitions: list[int], standby: list[int]) -> None:
        """Tables up to the ends of their changelogs, then back to the committed offsets; and from then on the second
        copies of others' tables, as far as they come.
        """
        self.in_recovery = True
        while True:
            try:
                for table in self.tables:
                    for partition in partitions:
                        await self._restore_one(table, partition)
                # Faust lets the flow run while it restores, and has resumed the inputs before it seeks them.
                self.flow_control.resume()
                self.consumer.resume_flow()
                self.consumer.resume_partitions(cast(Any, self.consumer.assignment()))
                await asyncio.sleep(0.001)
                await self.consumer.perform_seek()
            except DiskFullError:
                # Faust ends the worker of a table that cannot be restored.
                self.worker.exit()
                return
            except KafkaError:
                await asyncio.sleep(1.0)
            else:
                break
        self.in_recovery = False
        self.flow_control.resume()
        self.consumer.resume_flow()
        self.rebalancing = False
        while standby:
            await asyncio.sleep(STANDBY)
            for table in self.tables:
                for partition in standby:
                    with contextlib.suppress(KafkaError, DiskFullError):
                        await self._restore_one(table, partition)

    async def _restore_one(self, table: Any, partition: int) -> None:
        store, log = table.data.open(partition), self.broker.logs[TP(table.changelog, partition)]
        end = await self.consumer.client.ask(lambda: len(log))
        at = 0 if store.arrived is None else store.arrived + 1
        while at < end:
            part = await self.consumer.client.ask(
                partial(log.__getitem__, slice(at, min(end, at + RECORDS_OF_A_RESTORE)))
            )
            for record in part:
                assert record.key is not None
                if record.value is None:
                    store.delete(record.key)
                else:
                    store.put(record.key, record.value)
            at += len(part)
            store.put(ARRIVED, str(at - 1).encode())


class Steered(LaneBoard):
    """Lanes of which nothing is known but what an operator has set."""

    def __init__(self, control: ControlBoard, topology: Topology) -> None:
        super().__init__()
        self._control, self._topology = control, topology

    def known_wait(self, provider: str, now: datetime) -> float | None:  # noqa: ARG002 - as the real one
        modes = {self._control.mode_for(lane) for lane in self._topology.lanes_of(provider)}
        return 0.0 if modes == {Mode.OPEN} else math.inf


class Directory:
    """Which topics exist, asked of the broker."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process

    async def exists(self, topic: str) -> bool:
        try:
            async with asyncio.timeout(2.0):
                return bool(await self._broker.ask(self._process, lambda: topic == REPLIES_TO))
        except (KafkaError, TimeoutError) as error:
            raise DirectoryUnavailableError from error


@dataclass(frozen=True)
class Deployment:
    """What all workers of a history are set to."""

    limits: Limits = Limits()  # noqa: RUF009 - it is frozen
    drain_timeout: float = 20.0
    retry: RetryPolicy = RetryPolicy(attempts=2, delay=0.5)  # noqa: RUF009 - it is frozen
    cache: CachePolicy = field(default_factory=CachePolicy)
    sweep_interval: float = 30.0


class Worker:
    """One process, from its start to its death. `disk` is what an earlier one of the same name has left."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        broker: Broker,
        disk: Disk,
        deployment: Deployment,
        provider: Callable[[Process, str], Provider],
        exited: Callable[[], None],
    ) -> None:
        self.process = Process(name, loop)
        broker.processes.append(self.process)
        self.disk = disk
        self.drain_timeout = deployment.drain_timeout
        self.is_stopping = False
        #: Seconds by which the machine's clock is wrong.
        self.skew = 0.0
        self.clock = BrokerClock(loop.time, lambda: START + loop.time() + self.skew)
        self._loop = loop
        self._broker = broker
        self._deployment = deployment
        self._provider = provider
        self._exited = exited
        self.process.start(self._run())

    def kill(self) -> None:
        self.process.kill()

    def exit(self) -> None:
        """It ends with an error; whoever looks after it starts another one."""
        self.process.kill()
        self._exited()

    def stop(self) -> None:
        """As SIGTERM does it."""
        self.process.start(self._stop())

    async def _stop(self) -> None:
        app = self.app
        app.should_stop = self.is_stopping = True
        await app._stop_restoring()
        app.consumer.stop_flow()
        app.flow_control.suspend()
        app.flow_control.clear()
        await app.consumer.wait_empty()
        with contextlib.suppress(KafkaError):
            await app.consumer.client.ask(lambda: self._broker.group.leave(app.member))
        until = self._loop.time() + self.drain_timeout
        while self._loop.time() < until and any(one.calls for one in self.dispatchers.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await self.presence.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._outbox.stop(), 5.0)
        self.process.kill()

    async def _run(self) -> None:
        self._build()
        await self._outbox.start()
        await self._declare_dead()
        await self.presence.start()
        start = asyncio.get_running_loop().create_task
        for work, queue in self.app.agents:
            start(work(Stream(self.app, queue)))
        start(self.app.consumer._drain_messages(cast(Any, SimpleNamespace(should_stop=False))))
        start(self._commit())
        start(self.stations.announce())
        start(self.ownership.watch())
        start(self._hear_who_lives())
        start(self.statements.run())
        start(sweep.tick(cast(Any, self.app), self._outbox, self._deployment.sweep_interval))
        await self.app.live()

    async def _declare_dead(self) -> None:
        """As app/worker/predecessor.py does it: the process that has left its name on the disk is not waited for."""
        before, self.disk.process = self.disk.process, self.process.name
        if before is None:
            return
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(TELLING):
                await self._outbox.publish(last_record(before))
                await self.app.consumer.client.ask(lambda: self._broker.group.leave(before))

    def steer(self, provider: str, mode: Mode) -> None:
        """An operator's word has come."""
        event = ModeChange(target=provider, mode=mode)
        self.control.apply(event.key.encode(), encode(event))
        self.stations.apply_control()

    async def _hear_who_lives(self) -> None:
        """As the broadcast reads its topic, from the beginning on."""
        log, at = self._broker.logs[TP(OWNERS, 0)], 0
        while True:
            with contextlib.suppress(KafkaError):
                for word in await self.app.consumer.client.ask(partial(lambda since: list(log[since:]), at)):
                    self.presence.apply(word.key, word.value, word.timestamp / 1000)
                    at += 1
            await asyncio.sleep(LISTEN)

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.app.consumer.commit()

    def _build(self) -> None:
        broker, process, deployment = self._broker, self.process, self._deployment
        outbox = self._outbox = Outbox(lambda: cast(Any, Producer(broker, process)))
        app = self.app = App(self, broker, process, self.disk, outbox)
        self.presence = Presence(process.name, SESSION, self.clock, outbox)
        shared: dict[str, Any] = {"outbox": outbox, "clock": self.clock.now}
        providers = {name: self._provider(process, name) for name in PROVIDERS}
        router = Router(TOPOLOGY, lambda name, _: f"{name}-1")
        budgets = BudgetBook(Budget(Decimal(1_000_000)))
        budgets.hear(THRIFTY.encode(), encode(BudgetChange(workspace_id=THRIFTY, amount=BUDGET, action="refuse")))
        self.cancellations = CancellationBoard()
        table = partial(DurableTable, cast(Any, app), outbox, partitions=TOPOLOGY.partitions)
        request_rows: Any = table(REQUEST_TABLE, encode=rows.encode_row, decode=rows.decode_row)
        marks: Any = table(MARK_TABLE, encode=encode_mark, decode=decode_mark)
        spent: Any = table(LANE_TABLE, encode=encode_row, decode=decode_row)
        self.durable = {kept.name: kept for kept in (request_rows, marks, spent)}
        for kept in self.durable.values():
            app.owners.keeps(kept)
        workspaces = self.workspaces = Workspaces(request_rows, app.drain)
        self.statements = Statements(
            workspaces=workspaces,
            budgets=budgets,
            drain=app.drain,
            owned=lambda: [] if app.rebalancing else sorted({tp.partition for tp in app.consumer.assignment()}),
            **shared,
        )
        directory = Directory(broker, process)
        kinds = dict.fromkeys(PROVIDERS, frozenset({"completion"}))
        admit_config = admit.AdmitConfig(
            AdmissionPolicy(PROVIDERS, kinds, cache=deployment.cache), 1_000_000, re.compile(".*"), in_flight=AT_WORK
        )
        admission = admit.Admission(
            router=router,
            lanes=LaneBoard(),
            budgets=budgets,
            guess=lambda *_: ESTIMATE,
            drain=app.drain,
            config=admit_config,
            directory=directory,
            workspaces=workspaces,
            **shared,
        )
        admit.register(cast(Any, app), admission, admit_config, outbox)
        settle_config = SettleConfig(in_flight=AT_WORK, cache=deployment.cache, piece=2)
        settling = settle.Settling(
            router=router, budgets=budgets, config=settle_config, directory=directory, workspaces=workspaces, **shared
        )
        self.cancellations.on_cancel(settling.cancel)
        settle.register(cast(Any, app), settling, settle_config, outbox)
        config = DispatchConfig(deployment.retry, in_flight=CALLS, look_ahead=LOOK_AHEAD)
        self.control = ControlBoard(dict.fromkeys(PROVIDERS, deployment.limits))
        self.ownership = Ownership(app.owners, app.lives, self.presence, SESSION / 20, asyncio.get_running_loop().time)
        self.stations = Stations(
            owned=lambda: (),
            read=partial(dispatch.read, cast(Any, app)),
            drain=app.drain,
            config=config,
            control=self.control,
            table=spent,
            ownership=self.ownership,
            board=Steered(self.control, router.topology),
            **shared,
        )
        self.unreported = Unreported(outbox, self.stations.hold)
        self.dispatchers = {
            name: dispatch.Dispatcher(
                provider=provider,
                router=router,
                config=config,
                prices=cast(
                    Any, SimpleNamespace(cost=lambda *_: COST, estimate=lambda *_: ESTIMATE, lacking=lambda *_: None)
                ),
                marks=marks,
                stations=self.stations,
                cancellations=self.cancellations,
                unreported=self.unreported,
                drain=app.drain,
                ownership=self.ownership,
                **shared,
            )
            for name, provider in providers.items()
        }
        dispatch.register(cast(Any, app), self.dispatchers)
        sweeper = sweep.Sweeper(
            tables=(
                sweep.Sweepable(request_rows, judge_row(TOPOLOGY), gone=workspaces.forget),
                sweep.Sweepable(marks, idle_since(AttemptMark.last_touched, 86_400.0)),
            ),
            window=86_400.0,
            **shared,
        )
        sweep.register(cast(Any, app), sweeper, outbox)
