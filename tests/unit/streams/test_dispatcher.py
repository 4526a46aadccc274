"""Commands on their way to their lanes: delivered twice, with marks that nobody can read, a broker that refuses, and
partitions that change hands while calls are on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError

from schemas.codec import decode, encode
from schemas.control import LaneState, LimitState, Mode
from schemas.internal import AttemptReport, DispatchCommand, Follow
from schemas.money import ZERO
from schemas.request import AdmittedRequest, CompletionRequest
from streams.cancellations import CancellationBoard
from streams.commands import Place, Router
from streams.dispatch import agent, crew, unreported
from streams.dispatch.agent import Dispatcher
from streams.dispatch.control import ControlBoard
from streams.dispatch.decide import AttemptMark, RetryPolicy
from streams.dispatch.ownership import Ownership
from streams.dispatch.ports import NOT_SENT, Answer, Call, ErrorClass, Failure, Tell
from streams.dispatch.quota import Limits
from streams.dispatch.stations import DispatchConfig, Stations
from streams.dispatch.unreported import Unreported
from streams.outlook import LaneBoard
from streams.records import Record
from streams.runtime import agents
from streams.runtime.deliveries import Deliveries
from streams.runtime.errors import AbandonedError
from streams.runtime.lives import Life, Lives
from streams.runtime.transport import DrainSignal
from streams.topology import REPORTS, Topology
from tests.support.clock.waiting import eventually
from tests.unit.streams.making import answer, summary

TOPOLOGY = Topology("spillway", ("openai", "claude"))
LANE = TOPOLOGY.lanes_of("openai")[0]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (agents, unreported):
        monkeypatch.setattr(module, "BROKER_RETRY", 0.005)
    monkeypatch.setattr(agent, "LOOK_AGAIN", 0.005)


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
    """Rows; a write is with the broker at once, or never where `fails` says so. `on_write` is called before each."""

    def __init__(self, lives: Lives) -> None:
        self.lives = lives
        self.on_write: Callable[[], None] = lambda: None
        self.rows: dict[str, Any] = {}
        self.writes = 0
        self.fails = False
        self.unreadable = False

    def _check(self, life: Life) -> None:
        if not self.lives.is_current(life):
            raise AbandonedError

    def get(self, key: str, life: Life) -> Any:
        self._check(life)
        if self.unreadable:
            raise ValueError("no mark")
        return self.rows.get(key)

    def scan(self, prefix: str, life: Life) -> list[Any]:
        self._check(life)
        return [(key, row) for key, row in sorted(self.rows.items()) if key.startswith(prefix)]

    async def put(self, key: str, row: Any, life: Life) -> asyncio.Future[None]:
        self._check(life)
        self.on_write()
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
class Peers:
    """Implements Owners and Presence: what this worker may do, and who else lives."""

    name: str = "me"
    may: bool = True
    living: set[str] = field(default_factory=set)

    def may_call(self, _: int) -> bool:
        return self.may

    def lives(self, name: str) -> bool:
        return name in self.living

    def holds(self) -> bool:
        return True


@dataclass
class Provider:
    """Answers when it may; counts its calls by request. `before` is called right before each of them goes out."""

    name: str = "openai"
    timeout: float = 60.0
    calls: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    result: Answer | Failure = field(default_factory=answer)
    before: Callable[[], None] = lambda: None

    def model_for(self, _: object) -> str:
        return "m-1"

    async def call(self, call: Call, _: Tell | None = None) -> Answer | Failure:
        self.before()
        if not call.may_send():
            return NOT_SENT
        self.calls.append(call.attempt_id)
        await self.gate.wait()
        return self.result


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
        self.lives, self.peers = Lives(), Peers()
        self.lives.begin(range(TOPOLOGY.partitions))
        ownership = Ownership(self.peers, self.lives, self.peers)
        self.outbox, self.marks, self.provider = Outbox(), Table(self.lives), Provider()
        self.spent, self.board = Table(self.lives), LaneBoard()
        self.deliveries, self.drain = Deliveries(), DrainSignal()
        self.acked: list[int] = []
        self.offsets = 0
        self.prices = SimpleNamespace(
            cost=lambda *_: Decimal(1), estimate=lambda *_: Decimal(2), lacking=lambda *_: None
        )
        router = Router(TOPOLOGY, lambda *_: "m-1")
        self.stations = Stations(
            owned=lambda: (),
            read=lambda *_: None,
            drain=self.drain,
            config=DispatchConfig(RetryPolicy(), in_flight=4),
            control=ControlBoard({"openai": limits}),
            table=cast(Any, self.spent),
            outbox=cast(Any, self.outbox),
            clock=now,
            ownership=ownership,
            board=self.board,
        )
        self.dispatcher = Dispatcher(
            provider=cast(Any, self.provider),
            router=router,
            config=DispatchConfig(RetryPolicy(), in_flight=4),
            prices=cast(Any, self.prices),
            marks=cast(Any, self.marks),
            stations=self.stations,
            cancellations=CancellationBoard(),
            outbox=cast(Any, self.outbox),
            unreported=Unreported(cast(Any, self.outbox), self.stations.hold),
            drain=self.drain,
            clock=now,
            ownership=ownership,
        )

    def rebalance(self, *, keeps: bool = True) -> None:
        """Give all partitions up, as the consumer does when its drain has run out, and get them back or not."""
        self.drain.begin()
        self.deliveries.abandon(self.deliveries)
        self.lives.end()
        self.drain.end()
        if keeps:
            self.lives.begin(range(TOPOLOGY.partitions))

    @property
    def in_flight(self) -> int:
        station = self.stations.find(LANE)
        assert station is not None
        return station.lane.in_flight

    def deliver(self, told: DispatchCommand | bytes) -> None:
        value = told if isinstance(told, bytes) else told.model_dump_json().encode()
        headers = () if isinstance(told, bytes) else (("spillway-place", Place.of(told).encode()),)
        message = Message(self.offsets, value, headers)
        self.offsets += 1
        self.deliveries.add(message)

        def ack() -> None:
            if self.deliveries.acknowledge(message):
                self.acked.append(message.offset)

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


# Calls that go on ----------------------------------------------------------------------------------------------------

BUSY = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=30.0)


async def test_a_call_goes_on_through_a_rebalance_and_is_reported_once() -> None:
    world = World()
    told = command("r-1")
    world.deliver(told)
    await world.until(lambda: world.provider.calls)
    world.rebalance()
    assert not len(world.deliveries), "no drain waits for it"
    world.deliver(told)
    assert world.dispatcher.calls == 1
    writes = world.marks.writes
    world.provider.gate.set()
    await world.settled()
    reports = world.outbox.reports()
    assert [report.follow for report in reports] == [Follow.ANSWER, Follow.INTERRUPTED], "settlement knows the second"
    assert world.provider.calls == ["r-1/1"]
    assert world.marks.writes == writes + 1, "of the second delivery, in its own life"
    assert world.acked == [1]
    assert world.dispatcher.calls == 0


@pytest.mark.parametrize(
    ("cost", "lacking", "reported", "source", "alarm"),
    [
        (Decimal(1), None, None, "computed", ""),
        (Decimal(1), "audio tokens", None, "estimated", "price_incomplete: openai: m-1: audio tokens"),
        (Decimal(1), "audio tokens", Decimal(3), "reported", ""),
        (None, None, None, "estimated", "price_unknown: openai: m-1"),
        (None, None, Decimal(3), "reported", ""),
    ],
)
async def test_what_has_no_price_of_its_own_is_an_alarm_and_never_called_computed(
    cost: Decimal | None,
    lacking: str | None,
    reported: Decimal | None,
    source: str,
    alarm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.prices.cost, world.prices.lacking = lambda *_: cost, lambda *_: lacking
    world.provider.result = replace(answer(), model="m-1", reported_cost=reported)
    world.provider.gate.set()
    with caplog.at_level("ERROR"):
        world.deliver(command("r-1"))
        await world.until(world.outbox.reports)
        await world.settled()
    usage = world.outbox.reports()[0].usage
    assert usage is not None
    assert usage.cost_source == source
    assert [record.getMessage() for record in caplog.records] == ([alarm] if alarm else [])


async def test_an_answer_by_a_name_that_has_no_price_costs_what_the_model_that_was_asked_costs() -> None:
    """Gateways answer by names of their own. The request's whole reservation would be a hundred times too much."""
    world = World()
    world.prices.cost = lambda _, model, *__: None if model == "m-of-a-gateway" else Decimal("0.5")
    world.provider.result = replace(answer(), model="m-of-a-gateway")
    world.provider.gate.set()
    world.deliver(command("r-1"))
    await world.until(world.outbox.reports)
    await world.settled()
    usage = world.outbox.reports()[0].usage
    assert usage is not None
    assert (usage.cost, usage.cost_source) == (Decimal("0.5"), "estimated")


async def test_a_lane_that_comes_back_counts_the_calls_that_are_still_on_the_wire() -> None:
    world = World()
    for number in range(3):
        world.deliver(command(f"old-{number}"))
    await world.until(lambda: len(world.provider.calls) == 3)
    for _ in range(2):
        world.rebalance()
        assert world.in_flight == 3
    for number in range(3):
        world.deliver(command(f"new-{number}"))
    await world.until(lambda: len(world.provider.calls) == 4)
    assert world.in_flight == 4, "of which there may be four"
    world.provider.gate.set()
    await world.settled()
    await world.until(lambda: world.dispatcher.calls == 0)
    assert len(world.provider.calls) == 6
    assert world.in_flight == 0


async def test_what_a_call_took_counts_once_in_the_lane_that_comes_back() -> None:
    world = World(Limits(rpm=10, tpm=100_000))
    world.deliver(command("r-1"))
    await world.until(lambda: world.provider.calls)
    station = world.stations.find(LANE)
    assert station is not None
    reserved = station.lane.used(world.stations.now()).tpm
    world.drain.begin()
    await world.until(lambda: not world.stations._closing)
    world.rebalance()
    back = world.stations.find(LANE)
    assert back is not None
    restored = back.lane.used(world.stations.now())
    assert (restored.rpm, restored.tpm) == (1, reserved)
    world.provider.gate.set()
    await world.until(lambda: world.dispatcher.calls == 0)
    used = back.lane.used(world.stations.now())
    assert (used.rpm, used.tpm) == (1, answer().tokens.total_tokens)


async def test_a_call_that_ends_where_its_lane_is_anothers_is_reported_and_writes_nothing() -> None:
    world = World()
    world.deliver(command("r-1"))
    await world.until(lambda: world.provider.calls)
    world.rebalance(keeps=False)
    await world.until(lambda: not world.stations._closing)
    writes = world.marks.writes, world.spent.writes
    world.provider.gate.set()
    await world.until(lambda: world.dispatcher.calls == 0)
    assert [report.follow for report in world.outbox.reports()] == [Follow.ANSWER]
    assert (world.marks.writes, world.spent.writes) == writes


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_next_attempt_of_a_call_that_has_outlived_its_lane_is_its_present_owners(keeps: bool) -> None:
    world = World()
    world.provider.result = BUSY
    world.deliver(command("r-1"))
    await world.until(lambda: world.provider.calls)
    world.rebalance(keeps=keeps)
    world.provider.gate.set()
    await world.until(lambda: world.dispatcher.calls == 0)
    [report] = world.outbox.reports()
    assert report.follow is Follow.FORWARD
    assert report.command is not None
    assert report.command.next_attempt == 2
    assert report.command.not_before is not None
    assert report.command.not_before > now() + timedelta(seconds=20)
    assert len(world.outbox.records) == 1, "no command beside it"
    assert world.acked == []


async def test_second_deliveries_hold_up_no_drain() -> None:
    world = World()
    told = command("r-1")
    for _ in range(5):
        world.deliver(told)
    await world.until(lambda: world.provider.calls)
    world.drain.begin()
    assert len(world.deliveries) == 1, "the call alone, for the second that a drain takes"


async def test_a_mark_names_its_worker_and_the_end_of_its_call() -> None:
    world = World()
    begun_at = now().timestamp()
    world.deliver(command("long", seconds=600))
    world.deliver(command("short", seconds=20))
    await world.until(lambda: len(world.provider.calls) == 2)
    long, short = (world.marks.rows[f"openai/acme/{name}"] for name in ("long", "short"))
    assert long.owner == short.owner == "me"
    assert begun_at + 60 <= long.ends_at <= now().timestamp() + 60 + agent.MARK_ARRIVES
    assert short.ends_at <= now().timestamp() + 20
    world.provider.gate.set()
    await world.settled()


# Going back ----------------------------------------------------------------------------------------------------------


async def test_who_cannot_be_called_at_its_last_provider_goes_back_and_may_come_again() -> None:
    world = World()
    world.provider.gate.set()
    free = LimitState(used=0)
    said = LaneState(lane="claude/0", provider="claude", rpm=free, rph=free, tpm=free, tph=free, wait=0.0, at=now())
    last = command("r-1").model_copy(update={"route": ("openai",), "passed_by": ("claude",)})
    station = world.stations.find(LANE)
    assert station is not None
    station.desk.set_mode(Mode.PAUSED)
    world.deliver(last)
    world.stations.send_back()
    assert world.outbox.records == [], "of the other one nothing is known"
    world.board.hear(b"claude/0", encode(said))
    world.stations.send_back()
    await world.settled()
    world.deliver(last)
    await world.settled()
    sent = [decode(DispatchCommand, record.value) for record in world.outbox.records]
    assert [(one.route, one.passed_by, one.returns) for one in sent] == [(("claude", "openai"), (), 1)] * 2, (
        "delivered again it goes the same way"
    )
    station.desk.set_mode(Mode.OPEN)
    world.deliver(sent[0].model_copy(update={"route": ("openai",), "passed_by": ("claude",)}))
    await world.settled()
    assert world.provider.calls == ["r-1/1"], "where it has come back it is called"


# Marks of others -----------------------------------------------------------------------------------------------------


def others(ends_in: float = 60.0, owner: str = "other") -> AttemptMark:
    return AttemptMark(now().timestamp(), (), None, owner, now().timestamp() + ends_in)


async def test_whoever_finds_the_mark_of_one_who_lives_waits_until_that_is_dead() -> None:
    world = World()
    world.peers.living = {"other"}
    waiting = crew.WITHOUT_CALL + 20
    for number in range(waiting):
        world.marks.rows[f"openai/acme/r-{number}"] = others()
        world.deliver(command(f"r-{number}"))
    # They hold up nobody who needs a hand, or a turn.
    world.provider.gate.set()
    world.deliver(command("late", seconds=-1.0))
    world.deliver(command("new"))
    await world.until(lambda: len(world.outbox.reports()) == 2)
    assert {report.request_id for report in world.outbox.reports()} == {"late", "new"}
    assert world.in_flight == 0
    world.peers.living.clear()
    await world.settled()
    found = [report for report in world.outbox.reports() if report.follow is Follow.INTERRUPTED]
    assert len(found) == waiting
    assert world.provider.calls == ["new/1"]


@pytest.mark.parametrize(
    "mark",
    [
        others(owner="dead"),
        others(ends_in=-agent.REPORT_ARRIVES - 1.0),
        others(owner="me"),
        AttemptMark(now().timestamp()),
    ],
    ids=["its worker is dead", "its call must have ended", "it is our own", "an older version's"],
)
async def test_nobody_waits_for_a_report_that_will_not_come_or_has_come(mark: AttemptMark) -> None:
    world = World()
    world.peers.living = {"other", "me"}
    world.marks.rows["openai/acme/r-1"] = mark
    world.deliver(command("r-1"))
    await world.settled()
    assert [report.follow for report in world.outbox.reports()] == [Follow.INTERRUPTED]


async def test_who_waits_for_a_report_goes_back_at_a_drain() -> None:
    world = World()
    world.peers.living = {"other"}
    world.marks.rows["openai/acme/r-1"] = others()
    world.deliver(command("r-1"))
    await world.until(lambda: world.dispatcher._at_work)
    world.drain.begin()
    await world.settled()
    assert (world.acked, world.outbox.reports()) == ([], [])


@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "before it waits"])
async def test_a_command_for_the_next_attempt_says_that_the_one_before_it_was_reported(waits: bool) -> None:
    """Its worker has said so itself: who waits for that must not hold up what follows from it."""
    world = World()
    world.provider.gate.set()
    world.peers.living = {"other"}
    world.marks.rows["openai/acme/r-1"] = others()
    told = command("r-1")
    world.deliver(told)
    [visit] = world.dispatcher._at_work.values()
    if waits:
        await world.until(lambda: world.marks.writes == 1 and visit.hand.let_go is None)
    world.deliver(told.model_copy(update={"attempts": (summary(1, "openai"),)}))
    await world.settled()
    assert world.provider.calls == ["r-1/2"]


# Permission ----------------------------------------------------------------------------------------------------------


async def test_a_worker_that_may_not_call_gives_no_turns_and_writes_no_marks() -> None:
    world = World()
    world.provider.gate.set()
    world.peers.may = False
    for number in range(5):
        world.deliver(command(f"r-{number}"))
    await asyncio.sleep(0)
    assert (world.provider.calls, world.marks.writes) == ([], 0)
    world.peers.may = True
    await world.settled()
    assert len(world.provider.calls) == 5
    assert all(report.follow is Follow.ANSWER for report in world.outbox.reports())


async def test_one_that_loses_its_permission_between_turn_and_mark_waits_for_another_turn() -> None:
    world = World()
    world.provider.gate.set()
    world.deliver(command("r-1"))
    # It has had its turn, and its task has not begun.
    world.peers.may = False
    await world.until(lambda: not world.in_flight)
    assert (world.provider.calls, world.marks.writes) == ([], 0)
    world.peers.may = True
    await world.settled()
    assert world.provider.calls == ["r-1/1"]


def _loses_it_while_its_mark_is_written(world: World) -> None:
    world.marks.on_write = lambda: setattr(world.peers, "may", False)


def _loses_it_before_the_first_byte(world: World) -> None:
    world.provider.before = lambda: setattr(world.peers, "may", False)


def _loses_its_partition_before_the_first_byte(world: World) -> None:
    world.provider.before = lambda: world.rebalance(keeps=False)


@pytest.mark.parametrize(
    "accident",
    [
        _loses_it_while_its_mark_is_written,
        _loses_it_before_the_first_byte,
        _loses_its_partition_before_the_first_byte,
    ],
)
async def test_a_call_that_may_not_be_made_after_its_mark_is_reported_as_not_made(
    accident: Callable[[World], None],
) -> None:
    world = World()
    accident(world)
    world.deliver(command("r-1"))
    await world.until(world.outbox.reports)
    [report] = world.outbox.reports()
    assert world.provider.calls == []
    assert report.follow is Follow.FORWARD
    assert report.usage is not None
    assert (report.usage.attempt, report.usage.error_code, report.usage.cost) == (1, "not_sent", ZERO)
    assert report.command is not None
    assert (report.command.next_attempt, report.command.route) == (2, ("openai",))
    await world.until(lambda: world.dispatcher.calls == 0)
    assert not world.stations._on_the_wire
    world.lives.begin(range(TOPOLOGY.partitions))
    assert world.in_flight == 0


async def test_a_mark_that_its_worker_cannot_take_back_is_reported_if_the_broker_has_it() -> None:
    world = World()
    world.spent.on_write = lambda: world.rebalance(keeps=False)
    world.deliver(command("r-1"))
    await world.until(world.outbox.reports)
    [report] = world.outbox.reports()
    assert report.usage is not None
    assert (report.follow, report.usage.error_code) == (Follow.FORWARD, "not_sent")
    assert world.provider.calls == []


async def test_an_event_of_a_partition_that_is_not_this_workers_goes_back() -> None:
    world = World()
    world.lives.end()
    world.deliver(command("r-1"))
    assert not len(world.deliveries)
    assert (world.acked, world.provider.calls) == ([], [])
