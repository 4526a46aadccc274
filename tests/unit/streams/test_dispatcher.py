"""Commands on their way to their lanes: delivered twice, with marks that nobody can read, and a broker that refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError

from schemas.codec import decode
from schemas.internal import AttemptReport, DispatchCommand
from schemas.request import AdmittedRequest, CompletionRequest
from streams.cancellations import CancellationBoard
from streams.commands import Place, Router
from streams.dispatch import crew, unreported
from streams.dispatch.agent import Dispatcher
from streams.dispatch.control import ControlBoard
from streams.dispatch.decide import AttemptMark, RetryPolicy
from streams.dispatch.ports import Answer, Call, Tell
from streams.dispatch.quota import Limits
from streams.dispatch.stations import DispatchConfig, Stations
from streams.dispatch.unreported import Unreported
from streams.records import Record
from streams.runtime import agents
from streams.runtime.deliveries import Deliveries
from streams.runtime.transport import DrainSignal
from streams.topology import REPORTS, Topology
from tests.support.clock.waiting import eventually
from tests.unit.streams.making import answer

TOPOLOGY = Topology("spillway", ("openai", "claude"))
LANE = TOPOLOGY.lanes_of("openai")[0]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (agents, unreported):
        monkeypatch.setattr(module, "BROKER_RETRY", 0.005)


def now() -> datetime:
    return datetime.now(UTC)


def command(identity: str, seconds: float = 600.0, route: tuple[str, ...] = ("openai",)) -> DispatchCommand:
    request = CompletionRequest(prompt="why", workspace_id="acme")
    admitted = AdmittedRequest(
        request=request,
        request_id=identity,
        workspace_id="acme",
        admitted_at=now(),
        deadline=now() + timedelta(seconds=seconds),
    )
    return DispatchCommand(admitted=admitted, route=route)


class Table:
    """Rows; a write is with the broker at once, or never where `fails` says so."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.writes = 0
        self.fails = False
        self.unreadable = False

    def get(self, key: str, _: int) -> Any:
        if self.unreadable:
            raise ValueError("no mark")
        return self.rows.get(key)

    def scan(self, *_: object) -> list[Any]:
        return []

    async def put(self, key: str, row: Any, _: int) -> asyncio.Future[None]:
        self.writes += 1
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.fails:
            sent.set_exception(KafkaTimeoutError())
        else:
            sent.set_result(None)
        return sent


class Outbox:
    """Keeps what is published, unless the broker is away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_away = False

    async def publish(self, *records: Record) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise KafkaTimeoutError
        self.records += records

    async def post(self, record: Record) -> asyncio.Future[None]:
        await self.publish(record)
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    def reports(self) -> list[AttemptReport]:
        return [decode(AttemptReport, record.value) for record in self.records if record.topic == REPORTS]


@dataclass
class Provider:
    """Answers when it may; counts its calls by request."""

    name: str = "openai"
    calls: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def model_for(self, _: object) -> str:
        return "m-1"

    async def call(self, call: Call, _: Tell | None = None) -> Answer:
        self.calls.append(call.attempt_id)
        await self.gate.wait()
        return answer()


@dataclass(eq=False)
class Message:
    offset: int
    value: bytes | None
    headers: Any
    topic: str = "ai.dispatch.openai"
    partition: int = LANE.partition
    timestamp: float = 1.0
    key: bytes = LANE.name.encode()
    tp: str = "ai.dispatch.openai-0"


class World:
    """A dispatcher with its lane, and everything around it."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
        self.outbox, self.marks, self.provider = Outbox(), Table(), Provider()
        self.deliveries, self.drain = Deliveries(), DrainSignal()
        self.acked: list[int] = []
        self.offsets = 0
        router = Router(TOPOLOGY, lambda *_: "m-1")
        self.stations = Stations(
            owned=lambda: (),
            read=lambda *_: None,
            drain=self.drain,
            config=DispatchConfig(RetryPolicy(), in_flight=4),
            control=ControlBoard({"openai": limits}),
            table=cast(Any, Table()),
            outbox=cast(Any, self.outbox),
            clock=now,
        )
        self.dispatcher = Dispatcher(
            provider=cast(Any, self.provider),
            router=router,
            config=DispatchConfig(RetryPolicy(), in_flight=4),
            prices=cast(Any, SimpleNamespace(cost=lambda *_: Decimal(1), estimate=lambda *_: Decimal(2))),
            marks=cast(Any, self.marks),
            stations=self.stations,
            cancellations=CancellationBoard(),
            outbox=cast(Any, self.outbox),
            unreported=Unreported(cast(Any, self.outbox), self.stations.hold),
            drain=self.drain,
            clock=now,
        )

    def deliver(self, told: DispatchCommand | bytes) -> None:
        value = told if isinstance(told, bytes) else told.model_dump_json().encode()
        headers = () if isinstance(told, bytes) else (("spillway-place", Place.of(told).encode()),)
        message = Message(self.offsets, value, headers)
        self.offsets += 1
        self.deliveries.add(message)

        def ack() -> None:
            self.acked.append(message.offset)
            self.deliveries.acknowledge(message)

        consumer = SimpleNamespace(deliveries=self.deliveries)
        event = SimpleNamespace(message=message, app=SimpleNamespace(consumer=consumer), ack=ack)
        self.dispatcher._arrive(event)

    async def until(self, condition: Callable[[], Any]) -> None:
        await eventually(condition, every=0.002)

    async def settled(self) -> None:
        await self.until(lambda: not len(self.deliveries))


async def test_second_deliveries_of_what_waits_in_the_lane_hold_up_nothing_else() -> None:
    """After a kill each command may stand in the topic twice, and the first copies wait for their turn."""
    world = World()
    commands = [command(f"r-{n}") for n in range(crew.WITHOUT_CALL + 50)]
    for told in [*commands, *commands, *commands]:
        world.deliver(told)
    assert not world.dispatcher.standing().waits, "none of them is worked on"
    # What leaves the lane without a call, as for its deadline, needs hands.
    world.deliver(command("late", seconds=-1.0))
    await world.until(lambda: any(report.request_id == "late" for report in world.outbox.reports()))
    world.provider.gate.set()
    await world.settled()
    assert sorted(world.acked) == list(range(world.offsets))
    assert sorted(world.provider.calls) == sorted(f"r-{n}/1" for n in range(len(commands))), "each is called once"


async def test_while_reports_cannot_be_published_no_visit_is_made_again_and_no_call_is_in_doubt() -> None:
    world = World()
    world.provider.gate.set()
    world.outbox.is_away = True
    for number in range(4):
        world.deliver(command(f"r-{number}"))
    await world.until(lambda: len(world.provider.calls) == 4)
    await asyncio.sleep(0.05)
    assert world.acked == []
    world.outbox.is_away = False
    await world.settled()
    reports = world.outbox.reports()
    assert sorted(report.request_id for report in reports) == [f"r-{number}" for number in range(4)]
    assert {report.usage.outcome for report in reports if report.usage} == {"succeeded"}
    assert len(world.provider.calls) == 4


async def test_a_mark_that_the_broker_did_not_take_says_nothing_of_a_call_that_was_never_made() -> None:
    world = World()
    world.provider.gate.set()
    world.marks.fails = True
    world.deliver(command("r-1"))
    await world.until(lambda: world.marks.writes > 6)
    assert world.provider.calls == []
    world.marks.fails = False
    await world.settled()
    (report,) = world.outbox.reports()
    assert report.usage is not None
    assert (report.usage.outcome, world.provider.calls) == ("succeeded", ["r-1/1"])


async def test_a_mark_that_is_found_is_with_the_broker_before_anything_follows_from_it() -> None:
    world = World()
    world.marks.rows["openai/acme/r-1"] = AttemptMark(now().timestamp())
    world.marks.fails = True
    world.deliver(command("r-1"))
    await world.until(lambda: world.marks.writes > 3)
    assert world.outbox.reports() == []
    world.marks.fails = False
    await world.settled()
    assert [report.follow for report in world.outbox.reports()] == ["interrupted"]
    assert world.provider.calls == []


async def test_a_mark_that_cannot_be_read_ends_no_agent_and_its_command_is_buried() -> None:
    world = World()
    world.provider.gate.set()
    world.marks.unreadable = True
    world.deliver(command("r-1"))
    await world.settled()
    world.marks.unreadable = False
    world.deliver(command("r-2"))
    await world.settled()
    assert [record.topic for record in world.outbox.records] == ["ai.dead-letters", REPORTS]


async def test_at_a_drain_what_waits_for_its_twin_goes_back_with_it() -> None:
    world = World()
    told = command("r-1")
    for _ in range(5):
        world.deliver(told)
    await world.until(lambda: world.provider.calls)
    world.drain.begin()
    world.drain.end()
    world.provider.gate.set()
    await world.settled()
    assert len(world.provider.calls) == 1
    assert world.acked == [0], "the call is reported; the others are delivered again"
