"""Who gets a turn, who is sent elsewhere, and who is not read yet: the desk in virtual time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest

from schemas.base import Priority
from schemas.control import Mode
from streams.commands import GONE_BACK
from streams.dispatch.breaker import FIRST_GAP, LONGEST_GAP
from streams.dispatch.desk import BACK_AT_ONCE, BACK_IN_TIME, GivenUp, Granted, PassOn, TooLate, Turn
from streams.dispatch.ports import ErrorClass, Failure
from streams.dispatch.quota import NEVER, Limits
from tests.support.clock.virtual import START, Story, VirtualDesk, answered, p95

DOWN = Failure(ErrorClass.RETRYABLE, "connection", "nobody there")
ILL = Failure(ErrorClass.RETRYABLE, "unavailable", "it answers with 500")
BUSY = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=7.0)


def is_reading(world: VirtualDesk) -> bool:
    """It changes while time passes: mypy would take the last answer for the next one."""
    return world.reading


def is_down(_: Story) -> Failure:
    return DOWN


def is_ill(_: Story) -> Failure:
    return ILL


def test_an_idle_lane_calls_at_once() -> None:
    world = VirtualDesk(Limits(rpm=60))
    assert world.request().wait == 0


def test_a_busy_lane_calls_at_the_pace_of_its_limit() -> None:
    world = VirtualDesk(Limits(rpm=60))
    stories = [world.request() for _ in range(120)]
    world.run_until(START + 300)
    waits = [story.wait for story in stories]
    assert waits == sorted(waits)
    assert sum(wait < 60 for wait in waits) <= 60
    distances = [after - before for before, after in pairwise(waits[60:])]
    assert max(distances) < 1.2, "no minute is spent in a second and followed by silence"


def test_what_cannot_be_called_before_its_deadline_goes_elsewhere_at_once() -> None:
    world = VirtualDesk(Limits(rpm=60))
    for _ in range(200):
        world.request("flood")
    late = world.request(deadline=world.now + 5, has_fallback=True)
    assert late.turns == [], "it is next in its turn, and makes it"
    for _ in range(40):
        world.request("acme", deadline=world.now + 5, has_fallback=True)
    assert set(world.reasons()) == {"too_busy"}


def test_behind_calls_that_began_together_it_goes_elsewhere_before_its_deadline() -> None:
    """Calls that end one after the other would have let it be in time; that these do not is seen in time."""
    world = VirtualDesk(Limits(), latency=4.0, concurrency=2)
    for _ in range(2):
        world.request("early")
    world.run_until(START + 5)
    for _ in range(2):
        world.request("busy")
    behind = world.request(deadline=world.now + 6.5, has_fallback=True)
    assert behind.turns == []
    world.run_until(START + 5 + 2.6)
    assert behind.turns == [PassOn("too_busy")], "another provider has as long as this one would have had"


def test_without_an_alternative_it_waits_until_its_deadline_and_costs_nothing() -> None:
    world = VirtualDesk(Limits(rpm=6))
    for _ in range(50):
        world.request("flood")
    late = world.request("flood", deadline=world.now + 20)
    world.run_until(START + 19)
    assert late.turns == []
    world.run_until(START + 21)
    assert late.turns == [TooLate()]


def test_after_a_stand_still_a_retry_whose_deadline_has_passed_is_not_called() -> None:
    world = VirtualDesk(Limits())
    turns: list[Turn] = []
    place = world.request(deadline=START + 20).place
    world.desk.come_again(place, turns.append, START + 5)
    waiting = world.request(deadline=START + 20)
    world.now = START + 30
    world.desk.serve()
    assert turns == [TooLate()]
    assert isinstance(waiting.turns[-1], Granted), "it had its turn before"


def test_a_pause_that_outlasts_a_deadline_sends_its_request_elsewhere_at_once() -> None:
    long_pause = Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=60.0)
    world = VirtualDesk(Limits(rpm=60), result=lambda _: long_pause)
    for _ in range(20):
        world.request()
    waiting = world.request(deadline=world.now + 30, has_fallback=True)
    assert waiting.turns == []
    world.run_until(START + 1)
    assert waiting.turns == [PassOn("too_busy")]


def test_one_refusal_pauses_all_until_the_providers_moment_has_passed() -> None:
    results = [BUSY]
    world = VirtualDesk(Limits(rpm=600), result=lambda _: results.pop() if results else answered(1))
    for _ in range(100):
        world.request()
    world.run_until(START + 120)
    refused_at = START + world.latency
    called = [story.called_at for story in world.stories if story.called_at is not None]
    assert not [at for at in called if refused_at < at < refused_at + 7.0]
    assert len(called) == 100


def test_an_open_circuit_sends_everybody_elsewhere_who_can_go() -> None:
    world = VirtualDesk(Limits(rpm=30), latency=0.1, result=is_down)
    first = [world.request(has_fallback=True) for _ in range(5)]
    waiting = world.request(has_fallback=True)
    alone = world.request()
    interactive = world.request(priority=Priority.INTERACTIVE)
    world.run_until(START + 1)
    assert all(isinstance(story.turns[0], Granted) for story in first)
    assert waiting.turns == [PassOn("circuit_open")]
    assert interactive.turns == [PassOn("circuit_open")], "somebody waits for it"
    assert alone.turns == [], "an outage of a minute fails no batch"
    assert world.request(has_fallback=True).turns == [PassOn("circuit_open")]
    assert world.request(deadline=world.now + 1).turns == [PassOn("circuit_open")], "the probe would come too late"


def test_one_probe_closes_the_circuit_and_nothing_else_is_called_meanwhile() -> None:
    down = [True]
    world = VirtualDesk(
        Limits(rpm=6_000), latency=0.1, concurrency=5, result=lambda _: DOWN if down[0] else answered(1)
    )
    for _ in range(5):
        world.request()
    world.run_until(START + 1)
    waiting = [world.request() for _ in range(10)]
    down[0] = False
    # The five have failed after a tenth of a second.
    world.run_until(START + FIRST_GAP + 0.15)
    assert sum(bool(story.turns) for story in waiting) == 1
    world.run_until(START + FIRST_GAP + 5)
    assert all(story.called_at for story in waiting)


def test_others_are_asked_before_a_request_that_has_failed_where_the_circuit_is_open() -> None:
    """It may be to blame itself: as the probe it would keep the circuit open for all others, again and again."""
    world = VirtualDesk(Limits(rpm=6_000), latency=0.1, result=is_ill)
    poisoned = [world.request() for _ in range(5)]
    world.run_until(START + 0.2)
    again = [world.request_again(story) for story in poisoned]
    world.run_until(START + 30)
    assert [story.turns for story in again] == [[]] * 5, "none of them is the probe"
    world.result = lambda _: answered(1)
    well = world.request()
    world.run_until(START + 31)
    assert well.called_at == START + 30
    assert all(isinstance(story.turns[0], Granted) for story in again), "its answer has closed the circuit for all"


def test_a_request_that_has_failed_is_asked_after_a_minute_where_nobody_else_is_there() -> None:
    world = VirtualDesk(Limits(rpm=6_000), latency=0.1, result=is_ill)
    poisoned = [world.request() for _ in range(5)]
    world.run_until(START + 0.2)
    again = world.request_again(poisoned[0])
    world.run_until(START + 300)
    assert again.called_at == pytest.approx(START + 0.1 + LONGEST_GAP)


def test_a_request_that_has_failed_and_can_go_elsewhere_does_not_wait_for_the_probe() -> None:
    world = VirtualDesk(Limits(rpm=6_000), latency=0.1, result=is_ill)
    poisoned = [world.request(has_fallback=True) for _ in range(5)]
    world.run_until(START + 10)
    assert world.request_again(poisoned[0]).turns == [PassOn("circuit_open")]


# Going back --------------------------------------------------------------------------------------------------------


def free(_: str) -> float | None:
    """Each other provider would call at once."""
    return 0.0


def test_who_cannot_make_it_goes_back_to_a_provider_that_can_call_by_now_and_the_others_stay() -> None:
    world = VirtualDesk(Limits(rpm=60))
    deadline = START + 60
    stories = [world.request(deadline=deadline, back=("claude",)) for _ in range(100)]
    world.desk.send_back(free)
    gone = [story for story in stories if story.turns == [PassOn(GONE_BACK)]]
    assert 40 <= len(gone) <= BACK_AT_ONCE
    assert gone == stories[-len(gone) :], "those who are behind the others"
    for second in range(60):
        world.run_until(START + second)
        world.desk.send_back(free)
    world.run_until(deadline + 1)
    assert not [story for story in stories if story.turns == [TooLate()]], "it is looked at again as time passes"
    assert sum(isinstance(story.turns[0], Granted) for story in stories) >= 50


@pytest.mark.parametrize(
    ("wait", "seconds_left"),
    [(None, 60.0), (NEVER, 60.0), (55.0, 60.0), (0.0, BACK_IN_TIME - 1)],
    ids=["nobody knows", "closed", "it would be too late there", "too late to go anywhere"],
)
def test_nobody_goes_back_where_that_is_of_no_use(wait: float | None, seconds_left: float) -> None:
    world = VirtualDesk(Limits(rpm=6))
    stories = [world.request(deadline=START + seconds_left, back=("claude",)) for _ in range(50)]
    world.desk.send_back(lambda _: wait)
    assert PassOn(GONE_BACK) not in [turn for story in stories for turn in story.turns]


def test_who_waits_in_a_paused_lane_goes_back_however_much_time_is_left() -> None:
    world = VirtualDesk(Limits(rpm=60))
    world.desk.set_mode(Mode.PAUSED)
    stays, goes = world.request(), world.request(back=("claude", "openai"))
    world.desk.send_back(lambda name: {"claude": NEVER, "openai": 1.0}[name])
    assert (stays.turns, goes.turns) == ([], [PassOn(GONE_BACK)])


def test_not_all_go_back_at_one_time() -> None:
    """The other lane has said how it stands a moment ago: hundreds would fill it before it says so."""
    world = VirtualDesk(Limits(rpm=60))
    world.desk.set_mode(Mode.PAUSED)
    for _ in range(BACK_AT_ONCE + 20):
        world.request(back=("claude",))
    world.desk.send_back(free)
    assert world.reasons() == [GONE_BACK] * BACK_AT_ONCE
    world.desk.send_back(free)
    assert world.desk.waiting == 0


def test_a_paused_lane_keeps_what_waits_and_sends_on_what_comes() -> None:
    world = VirtualDesk(Limits(rpm=6))
    for _ in range(10):
        world.request(has_fallback=True)
    waiting = sum(not story.turns for story in world.stories)
    world.desk.set_mode(Mode.PAUSED)
    assert world.request(has_fallback=True).turns == [PassOn("paused")]
    assert world.request().turns == []
    world.run_until(START + 300)
    assert world.desk.waiting == waiting + 1
    world.desk.set_mode(Mode.OPEN)
    world.run_until(START + 600)
    assert world.desk.waiting == 0


def test_a_draining_lane_sends_on_what_waits_as_well() -> None:
    world = VirtualDesk(Limits(rpm=6))
    for _ in range(10):
        world.request(has_fallback=True)
    waiting = sum(not story.turns for story in world.stories)
    alone = world.request()
    world.desk.set_mode(Mode.DRAINING)
    assert world.reasons() == ["draining"] * waiting
    assert alone.turns == []


def test_a_worker_that_loses_the_lane_gives_all_up_and_takes_nobody() -> None:
    world = VirtualDesk(Limits(rpm=6))
    stories = [world.request() for _ in range(10)]
    world.desk.give_up()
    assert [story.turns[-1] for story in stories[5:]] == [GivenUp()] * 5
    assert world.request().turns == [GivenUp()]
    world.run_until(START + 600)
    assert sum(isinstance(story.turns[0], Granted) for story in stories) == 5


def test_reading_stops_at_the_look_ahead_and_goes_on_when_there_is_room() -> None:
    world = VirtualDesk(Limits(rpm=60), look_ahead=20)
    while world.reading:
        world.request()
    assert world.desk.waiting == 20
    world.run_until(START + 4)
    assert not is_reading(world)
    world.run_until(START + 10)
    assert is_reading(world)
    assert world.desk.waiting <= 15


def test_reading_stops_where_few_large_ones_wait_as_well() -> None:
    world = VirtualDesk(Limits(rpm=60), look_ahead_bytes=1_000_000)
    while world.reading:
        world.request(size=100_000)
    assert world.desk.waiting == 10
    world.cancel(next(story for story in world.stories if not story.turns))
    assert not is_reading(world), "not at every single turn"
    world.run_until(START + 4)
    assert is_reading(world)
    assert world.desk.waiting <= 7


def test_new_limits_count_from_the_next_call_on() -> None:
    world = VirtualDesk(Limits(rpm=6))
    for _ in range(100):
        world.request()
    world.run_until(START + 60)
    slow = sum(story.called_at is not None for story in world.stories)
    world.lane.set_limits(Limits(rpm=600))
    world.desk.serve()
    world.run_until(START + 90)
    assert slow <= 6
    assert all(story.called_at for story in world.stories)


# Fairness ----------------------------------------------------------------------------------------------------------


@dataclass
class Flood:
    """What the others waited, in seconds, and the share of the limit that was used in five minutes of it."""

    waits: list[float]
    used: float


def beside_a_flood(share: float, *, flood: bool = True, seed: int = 11) -> Flood:
    """49 workspaces use a share of a lane at random moments; the fiftieth publishes 10,000 at once, or nothing."""
    rpm, dice = 600, random.Random(seed)  # noqa: S311 - arrivals, and nothing secret
    world = VirtualDesk(Limits(rpm=rpm), latency=1.0, concurrency=256)
    others: list[Story] = []
    moment, end = START, START + 420
    while (moment := moment + dice.expovariate(share * rpm / 60)) < end - 30:
        name = f"w{dice.randrange(49)}"
        world.at(moment, lambda name=name: others.append(world.request(name)))  # type: ignore[misc]
    if flood:
        world.at(START + 60, lambda: [world.request("flood") for _ in range(10_000)])
    world.run_until(end)
    called = [story.called_at for story in world.stories if story.called_at and story.called_at >= START + 121]
    waits = [story.wait for story in others if story.arrived_at > START + 60]
    return Flood(waits, len(called) / (rpm * (end - START - 121) / 60))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_beside_a_flood_the_others_are_called_at_once_as_without_it(share: float) -> None:
    calm, flooded = beside_a_flood(share, flood=False), beside_a_flood(share)
    assert p95(flooded.waits) <= 2 * p95(calm.waits) == 0.0
    assert max(flooded.waits) < 0.5
    assert flooded.used >= 0.98, "what is kept for them is little"


@pytest.mark.parametrize("seed", [5, 7, 8, 11])
def test_beside_a_flood_in_a_lane_that_others_nearly_fill_19_of_20_are_called_at_once(seed: int) -> None:
    flooded = beside_a_flood(0.8, seed=seed)
    assert p95(flooded.waits) < 0.1
    assert flooded.used >= 0.97, "what is kept for them is little"


def test_where_all_have_long_lines_nothing_is_kept_from_anybody() -> None:
    world = VirtualDesk(Limits(rpm=600), latency=0.5, concurrency=256)
    for number in range(2_000):
        world.request(f"w{number % 10}")
    world.run_until(START + 121)
    called = [story for story in world.stories if story.called_at and START + 60.6 <= story.called_at < START + 120.6]
    assert len(called) >= 0.98 * 600


def test_one_who_asks_little_goes_before_the_pace_and_never_before_a_limit() -> None:
    world = VirtualDesk(Limits(rpm=60), latency=0.1)
    for _ in range(100):
        world.request("flood")
    world.run_until(START + 50)
    few = [world.request("few") for _ in range(4)]
    assert any(story.wait == 0.0 for story in few if story.called_at), "the flood's next turn is not waited for"
    world.run_until(START + 300)
    moments = sorted(story.called_at for story in world.stories if story.called_at)
    assert all(later - first >= 60 for first, later in zip(moments, moments[60:], strict=False))


def test_interactive_requests_overtake_ten_thousand_batch_ones() -> None:
    world = VirtualDesk(Limits(rpm=300))
    for _ in range(10_000):
        world.request("batch", priority=Priority.BATCH)
    world.run_until(START + 400)
    stories = []
    for number in range(60):
        world.at(START + 400 + number, lambda: stories.append(world.request("batch", priority=Priority.INTERACTIVE)))
    world.run_until(START + 500)
    assert max(story.wait for story in stories) < 1.0


@pytest.mark.parametrize("lower", [Priority.NORMAL, Priority.BATCH])
def test_nothing_waits_for_ever_behind_higher_priorities(lower: Priority) -> None:
    world = VirtualDesk(Limits(rpm=60))
    waiting = [world.request("patient", priority=lower) for _ in range(10)]
    for number in range(1_000):
        world.at(START + number / 2, lambda: world.request("impatient", priority=Priority.INTERACTIVE))
    world.run_until(START + 500)
    assert all(story.called_at for story in waiting)


def test_a_heavier_workspace_gets_its_share() -> None:
    world = VirtualDesk(Limits(rpm=600))
    world.desk = type(world.desk)(
        world.lane,
        clock=lambda: world.now,
        wake_at=world._set_alarm,
        reading=world._read,
        jitter=lambda: 0.5,
        weight=lambda workspace: 3.0 if workspace == "paying" else 1.0,
    )
    for _ in range(1_000):
        world.request("paying")
        world.request("free")
    world.run_until(START + 60)
    called = [story.place.workspace for story in world.stories if story.called_at and story.called_at > START]
    assert called.count("paying") == pytest.approx(3 * called.count("free"), rel=0.05)


def test_what_comes_back_before_a_long_prompts_turn_goes_to_short_ones_that_do_not_delay_it() -> None:
    def waits(short_ones: int) -> tuple[Story, list[Story]]:
        world = VirtualDesk(Limits(tpm=1_000), latency=0.1)
        world.request("first", tokens=700)
        long = world.request("long", tokens=600)
        others = [world.request(f"short-{number}", tokens=50) for number in range(short_ones)]
        world.run_until(START + 100)
        return long, others

    alone, _ = waits(0)
    long, others = waits(10)
    assert 50 < alone.wait < 62, "until the first one has left the minute"
    assert long.wait == alone.wait
    early = [story for story in others if story.called_at is not None and story.wait < long.wait]
    assert 250 <= sum(story.place.tokens for story in early) <= 300, "what is free beside the first one"


@pytest.mark.parametrize(
    ("limits", "long_share", "latency"),
    [
        (Limits(rpm=300), 0.0, 0.2),
        (Limits(rpm=300), 0.0, 5.0),
        (Limits(tpm=60_000), 0.0, 0.2),
        (Limits(tpm=120_000), 1.0, 0.2),
        (Limits(rpm=300, tpm=100_000), 0.25, 0.2),
        (Limits(rpm=300, tpm=100_000), 0.25, 5.0),
    ],
)
def test_of_the_scarcer_limit_98_percent_are_used(limits: Limits, long_share: float, latency: float) -> None:
    world = VirtualDesk(limits, latency=latency, concurrency=256)
    dice = random.Random(3)  # noqa: S311 - a die, and nothing secret
    for _ in range(5_000):
        world.request(f"w{dice.randrange(10)}", tokens=2_528 if dice.random() < long_share else 112)
    minutes = 6
    begin = START + 61
    world.run_until(begin + minutes * 60)
    called = [story for story in world.stories if story.called_at is not None and story.called_at >= begin]
    requests = len(called) / (limits.rpm or 10**9) / minutes
    tokens = sum(story.place.tokens for story in called) / (limits.tpm or 10**9) / minutes
    assert 0.98 <= max(requests, tokens) <= 1.0


def test_a_worker_that_may_not_call_gives_no_turn_however_much_its_windows_have_earned() -> None:
    world = VirtualDesk(Limits(rpm=600))
    # From which it knows what a call takes.
    world.request()
    world.run_until(START + 1)
    world.may_call = False
    stories = [world.request(deadline=world.now + 30) for _ in range(20)]
    elsewhere = world.request(deadline=world.now + 5, has_fallback=True)
    world.run_until(START + 20)
    assert not any(story.turns for story in stories)
    assert elsewhere.turns == [PassOn("too_busy")], "in time"
    world.may_call = True
    world.run_until(START + 21)
    assert all(isinstance(story.turns[0], Granted) for story in stories)


def test_a_deadline_ends_the_wait_of_those_who_may_not_be_called() -> None:
    world = VirtualDesk(Limits(rpm=600))
    world.may_call = False
    story = world.request(deadline=world.now + 5)
    world.run_until(START + 6)
    assert story.turns == [TooLate()]


def test_a_worker_that_may_not_call_any_more_is_asked_before_each_turn() -> None:
    """It wakes from a stand-still, and finds many that could be called at once."""
    world = VirtualDesk(Limits(rpm=6000), concurrency=5)
    stories = [world.request() for _ in range(10)]
    waiting = [story for story in stories if not story.turns]
    for number in sorted(world.in_flight)[:3]:
        world.finish(number, answered(100))
    assert sum(not story.turns for story in waiting) == len(waiting) - 3
    world.may_call = False
    for number in sorted(world.in_flight):
        world.finish(number, answered(100))
    assert sum(not story.turns for story in waiting) == len(waiting) - 3
