"""What a lane finds out about its provider's charging, whatever overtakes what: never too little, and nearly all."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dispatch.charging import MOST_BEHIND, ON_THE_WAY, Charging, Ended
from streams.dispatch.ports import ErrorClass, Failure, Reading
from streams.dispatch.quota import Limits
from tests.support.clock.virtual import START
from tests.support.provider.bucket import BucketDesk
from tests.support.values.callers import another
from tests.support.values.examples import EXAMPLES

LIMIT = 60_000
SHORT, LONG = 112, 2_528


@dataclass
class OfWhatIsUnused:
    """A provider that charges this share of the tokens that were reserved and not used."""

    share: float

    def __call__(self, reserved: int, used: int) -> int:
        return used + round(self.share * (reserved - used))


def load(world: BucketDesk, sizes: tuple[int, ...], minutes: float) -> None:
    """More than the lane can call, whatever comes back, for so long."""
    assert world.lane.limits.tpm is not None
    dice, now = random.Random(5), START  # noqa: S311 - a die, and nothing secret
    apart = sum(sizes) / len(sizes) * 60 / world.lane.limits.tpm / 5

    def arrives(tokens: int, workspace: str) -> None:
        if world.reading:
            world.request(workspace, tokens=tokens)

    while now < START + minutes * 60:
        world.at(now, partial(arrives, dice.choice(sizes), f"w{dice.randrange(10)}"))
        now += apart
    world.run_until(START + minutes * 60)


@settings(max_examples=EXAMPLES // 20, deadline=None)
@given(
    share=st.sampled_from((0.0, 0.05, 0.4, 0.6, 0.9, 0.98, 1.0)),
    sizes=st.sampled_from(((SHORT,), (LONG,), (SHORT, SHORT, SHORT, LONG), (SHORT, LONG), (900,))),
    way=st.floats(0.0, ON_THE_WAY),
    latency=st.sampled_from((0.01, 0.2, 2.0)),
    spread=st.sampled_from((0.0, 0.3, 5.0)),
    seed=st.integers(0, 1_000),
)
def test_no_minute_costs_more_than_the_limit_whatever_the_provider_charges(
    share: float, sizes: tuple[int, ...], way: float, latency: float, spread: float, seed: int
) -> None:
    world = BucketDesk(Limits(tpm=LIMIT), OfWhatIsUnused(share), way=(0.0, way), latency=(latency, spread), seed=seed)
    load(world, sizes, 3)
    assert world.refused == 0
    assert world.busiest_minute() <= LIMIT
    assert world.lane.kept >= share - 0.001


#: Of what a provider charges, and of the calls' sizes: the least share of the limit that is used.
USED = {
    (SHORT,): {1.0: 0.98, 0.9: 0.97, 0.5: 0.93, 0.0: 0.68},
    (SHORT, SHORT, SHORT, LONG): {1.0: 0.98, 0.9: 0.96, 0.5: 0.93, 0.0: 0.84},
    (1_200,): {1.0: 0.97, 0.9: 0.96, 0.5: 0.95, 0.0: 0.9},
}


@pytest.mark.parametrize("sizes", USED)
@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.0])
@pytest.mark.parametrize("spread", [pytest.param(0.05, marks=pytest.mark.prove), 5.0])
def test_most_of_the_limit_is_used_though_answers_come_in_any_order(
    sizes: tuple[int, ...], share: float, spread: float
) -> None:
    """By what is reserved alone 40 % of the limit would be used where all of what is unused comes back. Small calls are
    so close together that each tells little of itself; and what is on its way is reserved.
    """
    world = BucketDesk(Limits(tpm=LIMIT * 2), OfWhatIsUnused(share), latency=(0.2, spread))
    load(world, sizes, 6)
    assert USED[sizes][share] <= world.used(START + 120, START + 360) <= 1.0


def test_a_refusal_refutes_what_was_found_out() -> None:
    world = BucketDesk(Limits(tpm=LIMIT), OfWhatIsUnused(0.0))
    load(world, (1_200,), 1)
    assert world.lane.kept < 0.1
    held = world.lane.reserve(another(), 1_200, world.now)
    world.lane.settle(held, Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down"), world.now, 0.0)
    assert world.lane.kept == 1.0


def test_a_remainder_in_thousands_is_no_proof_that_a_small_call_was_charged_nothing() -> None:
    charging, level = Charging(), float(LIMIT)
    for second in range(300):
        level = min(level + LIMIT / 60, LIMIT) - 400
        rounded = round(level / 1000) * 1000
        charging.hear(second + 1, Ended(START + second, 400, 100, Reading(LIMIT, rounded)))
    assert charging.kept == 1.0


def test_a_call_that_never_ends_is_left_behind_and_holds_up_nothing_for_ever() -> None:
    charging = Charging()
    for number in range(2, MOST_BEHIND + 100):
        at = START + number / 100
        charging.hear(number, Ended(at, 2_000, 200, Reading(LIMIT * 100, LIMIT * 100 - 200)))
    assert charging.kept < 0.2, "what came after it is known"
    before = charging.kept
    charging.hear(1, Ended(START, 2_000, 200, Reading(LIMIT, 1)))
    assert charging.kept == before, "it comes too late to be compared"


def test_a_clock_that_is_put_back_adds_nothing_that_was_not_there() -> None:
    charging, level = Charging(), LIMIT * 0.9
    for second in range(60):
        level += LIMIT / 60 - 1_100
        charging.hear(second + 1, Ended(START + second - 3_600 * (second > 30), 1_100, 100, Reading(LIMIT, int(level))))
    assert charging.kept == 1.0
