"""The parts around a lane: its provider's way to charge, operators' settings, memory, and what admission hears."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError

from schemas.base import Priority
from schemas.codec import encode
from schemas.control import LaneState, LimitChange, LimitState, Mode, ModeChange
from schemas.internal import DispatchCommand
from schemas.request import AdmittedRequest, CompletionRequest
from schemas.usage import Tokens
from streams.commands import MOST_RETURNS, PLACE_HEADER, Place, Router
from streams.dispatch.charging import Charging, Ended
from streams.dispatch.control import ControlBoard
from streams.dispatch.lane import LONGEST_WAIT, Condition, Lane, Spent
from streams.dispatch.memory import LaneMemory, Row, decode_row, encode_row
from streams.dispatch.ports import Answer, Failure, Reading, Readings
from streams.dispatch.quota import Limits
from streams.dispatch.stations import Station, lane_state
from streams.outlook import BELIEVED_FOR, LaneBoard
from streams.runtime.errors import AbandonedError
from streams.runtime.lives import Life
from streams.topology import Lane as LanePlace
from streams.topology import LaneGroup, Topology
from tests.support.values.callers import another

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
START = NOW.timestamp()
LIMIT = 60_000


# How a provider charges --------------------------------------------------------------------------------------------


def charging_after(calls: int, *, reserved: int, used: int, charged: int) -> Charging:
    """A provider's bucket that is called once a second, and charges so much each time."""
    charging, level = Charging(), float(LIMIT)
    for second in range(calls):
        level = min(level + LIMIT / 60, LIMIT) - charged
        charging.hear(second + 1, Ended(START + second, reserved, used, Reading(LIMIT, math.floor(level))))
    return charging


def test_a_provider_that_keeps_what_was_reserved_is_found_out() -> None:
    assert charging_after(20, reserved=2_000, used=200, charged=2_000).charge(2_000, 200) == 2_000


def test_a_provider_that_charges_what_was_used_is_found_out() -> None:
    charging = charging_after(120, reserved=2_500, used=1_200, charged=1_200)
    assert 1_200 <= charging.charge(2_500, 1_200) <= 1_260


def test_a_provider_that_counts_otherwise_than_we_do_is_found_out() -> None:
    """It charges the reservation, and its estimate of the prompt is lower than ours."""
    assert 1_850 <= charging_after(60, reserved=2_000, used=200, charged=1_850).charge(2_000, 200) <= 1_900


def test_what_was_used_beyond_the_reservation_is_charged() -> None:
    assert charging_after(20, reserved=2_000, used=200, charged=2_000).charge(2_000, 3_000) == 3_000


def test_until_its_readings_have_shown_it_unused_tokens_do_not_come_back() -> None:
    charging = Charging()
    assert charging.charge(1_000, 10) == 10, "a provider without readings is taken at its answers' usage"
    charging.hear(1, Ended(START, 1_000, 10, Reading(LIMIT, LIMIT - 1)))
    assert charging.charge(1_000, 10) == 1_000


# What operators set ------------------------------------------------------------------------------------------------

OPUS = LanePlace("claude", "opus", 1, 2, 3)
CLAUDE = LanePlace("claude", "", 0, 1, 0)


def board() -> ControlBoard:
    return ControlBoard({"claude": Limits(rpm=50, tpm=1_000), "claude:opus": Limits(rpm=11)})


def test_a_lane_has_its_part_of_its_own_quota() -> None:
    assert board().limits_for(CLAUDE) == Limits(rpm=50, tpm=1_000)
    assert board().limits_for(OPUS) == Limits(rpm=5)


def test_a_change_replaces_what_it_names_and_its_withdrawal_brings_the_settings_back() -> None:
    control = board()
    change = LimitChange(target="claude", rpm=400)
    assert control.apply(change.key.encode(), encode(change))
    assert control.limits_for(CLAUDE) == Limits(rpm=400, tpm=1_000)
    assert control.apply(change.key.encode(), None)
    assert control.limits_for(CLAUDE) == Limits(rpm=50, tpm=1_000)


def test_a_closed_provider_closes_its_groups() -> None:
    control = board()
    for event in (ModeChange(target="claude", mode=Mode.PAUSED), ModeChange(target="claude:opus", mode=Mode.OPEN)):
        control.apply(event.key.encode(), encode(event))
    assert control.mode_for(OPUS) is Mode.PAUSED


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"kind": "limits", "target": "CLAUDE"}', b'{"kind": "magic"}'])
def test_what_is_no_control_event_changes_nothing(value: bytes) -> None:
    control = board()
    assert not control.apply(b"limits/claude", value)
    assert control.limits_for(CLAUDE) == Limits(rpm=50, tpm=1_000)


def test_an_event_under_a_foreign_key_is_ignored() -> None:
    assert not board().apply(b"limits/openai", encode(LimitChange(target="claude", rpm=1)))


# Places ------------------------------------------------------------------------------------------------------------


def command(**fields: Any) -> DispatchCommand:
    request = CompletionRequest(prompt="hello", max_tokens=100, priority=Priority.BATCH, **fields)
    admitted = AdmittedRequest(
        request=request,
        request_id="r-1",
        workspace_id="acme",
        admitted_at=NOW,
        deadline=NOW + timedelta(seconds=60),
    )
    return DispatchCommand(admitted=admitted, route=("claude", "openai"))


def test_a_commands_place_is_in_its_headers() -> None:
    router = Router(Topology("spillway", ("claude", "openai")), lambda _provider, _request: "m")
    record = router.record(command(), NOW)
    place = Place.read(record.headers)
    assert place == Place("acme/r-1", "acme", Priority.BATCH, START + 60, 130, 1, has_fallback=True)
    assert place == Place.of(command())


@pytest.mark.parametrize("not_before", [0.0, 7.5])
@pytest.mark.parametrize("back", [(), ("claude", "openai")])
def test_a_place_is_read_as_it_was_written(not_before: float, back: tuple[str, ...]) -> None:
    place = Place("acme/r-1", "acme", Priority.BATCH, START + 60, 130, 1, False, not_before, back)
    assert Place.read(((PLACE_HEADER, place.encode()),)) == place


def test_at_its_last_provider_a_request_may_go_back_to_those_that_have_passed_it_on_but_not_for_ever() -> None:
    told = command().model_copy(update={"passed_by": ("claude",)})
    assert Place.of(told).back == (), "it has another one left"
    last = told.model_copy(update={"route": ("openai",)})
    assert Place.of(last).back == ("claude",)
    assert Place.of(last.model_copy(update={"returns": MOST_RETURNS})).back == ()


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'["k","w","urgent",1,1,1,true]', b"\xff"])
def test_a_place_that_cannot_be_read_is_none(value: bytes) -> None:
    assert Place.read(((PLACE_HEADER, value),)) is None


def test_a_group_takes_the_models_that_it_names_and_has_lanes_of_its_own() -> None:
    groups = (LaneGroup("opus", ("claude-opus-*",), 2), LaneGroup())
    topology = Topology("spillway", ("claude",), lanes={"claude": groups})
    opus, other = (topology.lane("claude", model, "acme", "r-1") for model in ("claude-opus-5", "claude-haiku-5"))
    assert (opus.quota, other.quota) == ("claude:opus", "claude")
    assert opus.partition != other.partition
    assert {lane.name for lane in topology.lanes_of("claude")} == {"claude:opus/0", "claude:opus/1", "claude/0"}


# Memory ------------------------------------------------------------------------------------------------------------


class FakeTable:
    """Keeps rows; a write is done at once."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.writes = 0

    async def put(self, key: str, value: Row | None, partition: int) -> asyncio.Future[None]:  # noqa: ARG002
        self.writes += 1
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = encode_row(value)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def scan(self, prefix: str, partition: int) -> list[tuple[str, Row]]:  # noqa: ARG002
        return [(key, decode_row(value)) for key, value in sorted(self.rows.items()) if key.startswith(prefix)]


def remembered(table: FakeTable, limits: Limits) -> tuple[Lane, LaneMemory]:
    lane = Lane(limits)
    memory = LaneMemory(lane, "claude/0", Life(0, 1), cast(Any, table))
    return lane, memory


async def test_what_a_call_spends_is_in_the_table_before_it_and_its_successor_goes_on_with_it() -> None:
    table, limits = FakeTable(), Limits(rpm=5, tpm=100_000)
    lane, memory = remembered(table, limits)
    for _ in range(5):
        assert lane.ready_at(100, START) == START
        await memory.cover(lane.reserve(another(), 100, START).slot_hour)
    successor, memory = remembered(table, limits)
    memory.restore(START + 1)
    assert successor.used(START + 1) == Limits(5, 5, 1_500, 1_500), "500, and a hundredth of the limit claimed ahead"
    assert successor.ready_at(100, START + 1) > START + 59


async def test_a_busy_lane_claims_ahead_and_an_orderly_end_puts_the_truth_in_its_place() -> None:
    table = FakeTable()
    lane, memory = remembered(table, Limits(rpm=10_000))
    for _ in range(500):
        await memory.cover(lane.reserve(another(), 10, START).slot_hour)
    assert table.writes <= 6
    (before,) = [row for _, row in table.scan("claude/0|", 0) if isinstance(row, Spent)]
    assert before.requests >= 500
    await memory.close()
    (after,) = [row for _, row in table.scan("claude/0|", 0) if isinstance(row, Spent)]
    assert (after.requests, after.tokens) == (500, 5_000)


class SlowTable(FakeTable):
    """Its writes wait until they are let through, and then arrive or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.sent: list[asyncio.Future[None]] = []

    async def put(self, key: str, value: Row | None, partition: int) -> asyncio.Future[None]:
        await super().put(key, value, partition)
        await self.gate.wait()
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


async def test_a_call_that_finds_its_slot_being_claimed_waits_for_that_claim_too() -> None:
    table = SlowTable()
    lane, memory = remembered(table, Limits(rpm=10_000))
    both = [asyncio.create_task(memory.cover(lane.reserve(another(), 10, START).slot_hour)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in both)
    table.gate.set()
    first, second = await asyncio.gather(*both)
    assert first is second is table.sent[0]
    assert not table.sent[0].done(), "neither is covered yet"


async def test_a_claim_that_the_broker_did_not_take_is_made_again() -> None:
    table = SlowTable()
    table.gate.set()
    lane, memory = remembered(table, Limits(rpm=10_000))
    claim = await memory.cover(lane.reserve(another(), 10, START).slot_hour)
    assert claim is not None
    claim.set_exception(KafkaConnectionError())
    again = await memory.cover(lane.reserve(another(), 10, START).slot_hour)
    assert again is not None
    assert not again.done()


async def test_a_row_that_an_earlier_process_has_left_is_written_again_before_it_covers_a_call() -> None:
    table = FakeTable()
    lane, memory = remembered(table, Limits(rpm=10_000))
    await memory.cover(lane.reserve(another(), 10, START).slot_hour)
    successor, memory = remembered(table, Limits(rpm=10_000))
    memory.restore(START + 1)
    before = table.writes
    assert await memory.cover(successor.reserve(another(), 10, START + 1).slot_hour) is not None
    assert table.writes == before + 1


async def test_slots_that_have_left_the_hour_leave_the_table() -> None:
    table = FakeTable()
    lane, memory = remembered(table, Limits(rpm=60))
    for minute in range(0, 180, 5):
        await memory.cover(lane.reserve(another(), 1, START + minute * 60).slot_hour)
    assert len(table.scan("claude/0|", 0)) <= 15


async def test_what_a_call_says_of_a_lane_that_is_anothers_by_now_keeps_its_report_from_nobody() -> None:
    class Lost(FakeTable):
        async def put(self, *_: object) -> asyncio.Future[None]:
            raise AbandonedError

    lane, memory = remembered(Lost(), Limits(rpm=600))
    busy = Failure(cast(Any, "retryable"), "rate_limited", "no", retry_after=40.0)
    lane.settle(lane.reserve(another(), 1, START), busy, START + 1, 0.0)
    await memory.note()


@pytest.mark.parametrize("asked", [1e12, 1e300])
async def test_a_lane_says_how_it_stands_whatever_wait_its_provider_names(asked: float) -> None:
    lane, memory = remembered(FakeTable(), Limits(rpm=600))
    busy = Failure(cast(Any, "retryable"), "rate_limited", "no", retry_after=asked)
    lane.settle(lane.reserve(another(), 1, START), busy, START + 1, 0.0)
    place = LanePlace("claude", "", 0, 1, 0)
    station = Station(place, cast(Any, SimpleNamespace(lane=lane, waiting=0)), memory, cast(Any, None))
    state = lane_state(station, NOW)
    assert state.paused_until is not None
    assert state.paused_until.timestamp() <= START + 1 + LONGEST_WAIT, "a day, and then it is asked again"


async def test_who_resumes_a_lane_makes_it_forget_what_its_provider_has_said() -> None:
    """Once: the event stays on its topic, and is read again by each worker that starts."""
    control, table = board(), FakeTable()
    lane, memory = remembered(table, Limits(rpm=600))
    busy = Failure(
        cast(Any, "retryable"), "rate_limited", "no", retry_after=9e4, readings=Readings(Reading(10, 0, 80_000.0))
    )
    early = lane.reserve(another(), 1, START)
    lane.settle(lane.reserve(another(), 1, START), busy, START + 1, 0.5)
    assert lane.ready_at(1, START + 2) > START + 80_000
    resumed = ModeChange(target="claude", mode=Mode.OPEN, at=NOW + timedelta(seconds=2))
    control.apply(resumed.key.encode(), encode(resumed))
    lane.resume(control.resumed_at(CLAUDE))
    assert lane.ready_at(1, START + 2) == START + 2
    assert lane.effective == Limits(rpm=600)
    lane.settle(early, Failure(cast(Any, "retryable"), "x", "no", readings=busy.readings), START + 3, 0.5)
    assert lane.ready_at(1, START + 4) < START + 5, "what was sent before says nothing"
    lane.settle(lane.reserve(another(), 1, START + 5), busy, START + 6, 0.5)
    lane.resume(control.resumed_at(CLAUDE))
    await memory.note()
    successor, left = remembered(table, Limits(rpm=600))
    left.restore(START + 7)
    successor.resume(control.resumed_at(CLAUDE))
    for each in (lane, successor):
        assert each.ready_at(1, START + 7) > START + 80_000
    later = ModeChange(target="claude:opus", mode=Mode.OPEN, at=NOW + timedelta(seconds=9))
    control.apply(later.key.encode(), encode(later))
    assert (control.resumed_at(CLAUDE), control.resumed_at(OPUS)) == (START + 2, START + 9)


async def test_a_pause_and_an_open_circuit_outlive_their_worker() -> None:
    table = FakeTable()
    lane, memory = remembered(table, Limits(rpm=600))
    busy = Failure(
        cast(Any, "retryable"), "rate_limited", "no", retry_after=40.0, readings=Readings(Reading(30, 0, 60.0))
    )
    lane.settle(lane.reserve(another(), 1, START), busy, START + 1, 0.0)
    await memory.note()
    successor, memory = remembered(table, Limits(rpm=600))
    memory.restore(START + 2)
    assert successor.ready_at(1, START + 2) >= START + 41
    assert successor.effective.rpm == 30


def test_rows_survive_the_wire() -> None:
    for row in (Spent(7, 1, 200), Condition(5, None, 3.5, 1.0, 7.5), Condition()):
        assert decode_row(encode_row(row)) == row


def test_actual_usage_takes_the_estimates_place() -> None:
    lane = Lane(Limits(rpm=60, tpm=1_000))
    held = lane.reserve(another(), 900, START)
    assert lane.ready_at(500, START) > START + 30
    lane.settle(held, Answer("hi", "m", "stop", Tokens(prompt_tokens=10, completion_tokens=5)), START + 1, 0.0)
    assert lane.used(START + 1).tpm == 15
    assert lane.ready_at(500, START + 1) < START + 2


# What admission hears ----------------------------------------------------------------------------------------------


def state(**fields: Any) -> bytes:
    free = LimitState(used=0)
    values = {"lane": "claude/0", "provider": "claude", "rpm": free, "rph": free, "tpm": free, "tph": free, "at": NOW}
    return encode(LaneState(**(values | fields)))


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ({"wait": 30.0}, 30.0),
        ({"wait": None, "mode": Mode.PAUSED}, math.inf),
        ({"wait": 1.0, "circuit": "open"}, math.inf),
        ({"wait": 1.0, "circuit": "half_open"}, 1.0),
    ],
)
def test_a_lanes_word_is_believed(fields: dict[str, Any], wait: float) -> None:
    lanes = LaneBoard()
    lanes.hear(b"claude/0", state(**fields))
    assert lanes.wait("claude/0", NOW) == wait


def test_an_old_word_a_withdrawn_one_and_none_at_all_send_nobody_away() -> None:
    lanes = LaneBoard()
    lanes.hear(b"claude/0", state(circuit="open"))
    lanes.hear(b"openai/0", state(circuit="open"))
    lanes.hear(b"openai/0", None)
    lanes.hear(b"perplexity/0", b"nonsense")
    assert lanes.wait("claude/0", NOW + timedelta(seconds=BELIEVED_FOR + 1)) == 0
    assert [lanes.wait(f"{name}/0", NOW) for name in ("openai", "perplexity", "other")] == [0, 0, 0]


def test_a_providers_wait_is_known_where_all_its_lanes_have_said_theirs_lately() -> None:
    lanes = LaneBoard()
    assert lanes.known_wait("claude", NOW) is None
    lanes.hear(b"claude/0", state(wait=3.0))
    assert lanes.known_wait("claude", NOW) == 3.0
    lanes.hear(b"claude/1", state(lane="claude/1", circuit="open"))
    lanes.hear(b"openai/0", state(lane="openai/0", provider="openai", wait=1.0))
    assert lanes.known_wait("claude", NOW) == math.inf, "the longest"
    assert lanes.known_wait("openai", NOW) == 1.0
    assert lanes.known_wait("claude", NOW + timedelta(seconds=BELIEVED_FOR + 1)) is None
