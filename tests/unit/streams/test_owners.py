"""Who owns a partition, and for how long a worker may believe that it does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from hypothesis import given
from hypothesis import strategies as some

from streams.runtime import owners as module
from streams.runtime.errors import LostError
from streams.runtime.lease import ILLEGAL_GENERATION, MARGIN, NO_ERROR, REBALANCING, UNKNOWN_MEMBER, Lease
from streams.runtime.lives import Life, Lives
from streams.runtime.owners import Owners

SESSION = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Producer:
    """Gives epochs, and notes under which rows would go."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.owned: dict[int, tuple[Life, int]] = {}
        self.error: Exception | None = None
        self.on_refused: Any = None
        self.before_answer: Any = lambda: None

    async def take_epoch(self, name: str) -> tuple[int, int]:
        if self.error is not None:
            raise self.error
        self.epochs[name] = self.epochs.get(name, -1) + 1
        self.before_answer()
        return 22, self.epochs[name]

    def own(self, life: Life, _: int, epoch: int) -> None:
        self.owned[life.partition] = life, epoch

    renew = own

    def disown(self, partitions: Any) -> None:
        for partition in list(partitions):
            self.owned.pop(partition, None)


class Table:
    def __init__(self) -> None:
        self.fenced: list[Life] = []
        self.kept: list[Life] = []
        self.on_second_writer: Any = None

    async def fence(self, life: Life, _: bytes) -> None:
        self.fenced.append(life)

    async def keep(self, life: Life, _: bytes) -> None:
        self.kept.append(life)


class World:
    def __init__(self) -> None:
        self.clock, self.producer, self.table, self.lives = Clock(), Producer(), Table(), Lives()
        self.lease = Lease(SESSION, now=self.clock)
        outbox: Any = SimpleNamespace(producer=self.producer, disown=self.producer.disown)
        self.owners = Owners("spillway", self.lives, self.lease, outbox)
        self.owners.keeps(cast(Any, self.table))
        self.rejoined = 0
        self.owners.rejoin = self._rejoin
        self.lease.heard(self.clock.now, NO_ERROR)

    def _rejoin(self) -> None:
        self.rejoined += 1


async def test_whoever_is_assigned_partitions_takes_an_epoch_and_writes_a_row_in_each_before_anything_else() -> None:
    world = World()
    await world.owners.take([0, 4], generation=3)
    assert set(world.producer.epochs) == {"spillway-owner-0", "spillway-owner-4"}
    assert [life.partition for life in world.table.fenced] == [0, 4]
    assert world.owners.may_call(4)
    assert not world.owners.may_call(1)


async def test_one_whose_lease_is_over_takes_no_epoch_from_the_rightful_owner() -> None:
    world = World()
    world.clock.now += SESSION
    with pytest.raises(LostError):
        await world.owners.take([0], generation=3)
    assert world.producer.epochs == {}


async def test_one_that_stood_still_while_it_took_an_epoch_writes_no_row() -> None:
    world = World()
    world.producer.before_answer = lambda: setattr(world.clock, "now", world.clock.now + SESSION)
    with pytest.raises(LostError):
        await world.owners.take([0], generation=3)
    assert world.table.fenced == []
    assert world.lives.owned() == frozenset()


async def test_what_cannot_be_had_in_time_is_not_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKING", 0.01)
    world = World()

    async def never(_: str) -> tuple[int, int]:
        await asyncio.Event().wait()
        return 0, 0

    world.producer.take_epoch = never  # type: ignore[method-assign, assignment]
    with pytest.raises(LostError):
        await world.owners.take([0], generation=3)
    assert world.lives.owned() == frozenset()


async def test_a_broker_that_refuses_is_no_reason_to_own_anything() -> None:
    world = World()
    world.producer.error = KafkaConnectionError()
    with pytest.raises(LostError, match="KafkaConnectionError"):
        await world.owners.take([0], generation=3)


async def test_one_whose_rows_are_refused_gives_up_everything_and_joins_again_once() -> None:
    world, told = World(), list[str]()
    world.owners.on_lost(lambda: told.append("lost"))
    await world.owners.take([0, 1], generation=3)
    life = world.lives.current(1)
    assert life is not None
    world.owners.refused(life)
    world.owners.refused(life)
    assert (world.rejoined, told, world.owners.has_lost) == (1, ["lost"], True)
    assert not world.owners.may_call(0)
    assert world.producer.owned == {}


async def test_a_refusal_of_an_earlier_life_says_nothing_of_the_present_one() -> None:
    world = World()
    await world.owners.take([0], generation=3)
    earlier = world.lives.current(0)
    await world.owners.take([0], generation=4)
    assert earlier is not None
    world.owners.refused(earlier)
    assert world.rejoined == 0
    assert world.lives.current(0) is not None


async def test_an_owner_says_again_and_again_that_it_is_one_and_renews_its_epoch() -> None:
    world = World()
    await world.owners.take([0], generation=3)
    keeping = asyncio.ensure_future(world.owners.keep(keeping=0.001, renewing=0.0))
    async with asyncio.timeout(30):
        while len(world.table.kept) < 3:  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0.001)
    keeping.cancel()
    assert world.producer.owned[0][1] >= 2
    assert {life.partition for life in world.table.kept} == {0}


# The lease -----------------------------------------------------------------------------------------------------------


def test_a_lease_counts_from_when_the_heartbeat_was_sent() -> None:
    clock = Clock()
    lease = Lease(SESSION, now=clock)
    assert not lease.holds(), "nobody has been heard of yet"
    sent_at, clock.now = clock.now, clock.now + 7.0
    lease.heard(sent_at, NO_ERROR)
    assert lease.holds()
    clock.now = sent_at + SESSION - MARGIN
    assert not lease.holds(), "however late its answer was read"


@pytest.mark.parametrize("error", [UNKNOWN_MEMBER, ILLEGAL_GENERATION])
def test_a_member_that_was_thrown_out_has_no_lease_from_that_moment_on(error: int) -> None:
    clock = Clock()
    lease = Lease(SESSION, now=clock)
    lease.heard(clock.now, NO_ERROR)
    lease.heard(clock.now, error)
    assert not lease.holds()


def test_a_group_that_waits_for_the_member_to_join_again_does_not_wait_for_ever() -> None:
    clock = Clock()
    lease = Lease(SESSION, rebalance=60.0, now=clock)
    begun = clock.now
    while clock.now < begun + 120.0:
        lease.heard(clock.now, REBALANCING)
        assert lease.holds() == (clock.now < begun + 60.0 - MARGIN)
        clock.now += 1.0


@given(some.lists(some.tuples(some.floats(0.0, 30.0), some.floats(0.0, 30.0)), min_size=1, max_size=20))
def test_a_lease_never_outlives_the_session_that_the_coordinator_counts(beats: list[tuple[float, float]]) -> None:
    """Each beat takes a while to the coordinator; the answer is read after another while."""
    clock = Clock()
    lease = Lease(SESSION, now=clock)
    for there, back in beats:
        sent_at = clock.now
        heard_at = sent_at + there
        clock.now = heard_at + back
        lease.heard(sent_at, NO_ERROR)
        assert not lease.holds() or clock.now < heard_at + SESSION


async def test_a_client_s_requests_are_heard_where_the_group_is_asked() -> None:
    clock = Clock()
    lease = Lease(SESSION, now=clock)
    asked: list[Any] = []

    async def send(_: Any, request: Any, **__: Any) -> Any:
        asked.append(request)
        return SimpleNamespace(error_code=NO_ERROR)

    watched = lease.watch(send)
    await watched(0, object())
    assert not lease.holds()
    await watched(0, SyncGroupRequest("group", 1, "member", None, []), group="coordination")
    assert lease.holds()
    lease.heard(clock.now, UNKNOWN_MEMBER)
    await watched(0, HeartbeatRequest("group", 1, "member"))
    assert lease.holds()
    assert len(asked) == 3
