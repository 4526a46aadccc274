"""A worker that starts while Kafka is away waits for it, and for nothing that only a person can mend."""

from __future__ import annotations

import math

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedVersionError,
)

from app.kafka import KafkaUnavailableError, patiently
from app.kafka_refusals import STARTING, passes_within
from tests.support.reader.logs import said


class Kafka:
    """Answers after so many refusals. Each look at the clock is a second later."""

    def __init__(self, *refusals: KafkaUnavailableError) -> None:
        self.refusals = list(refusals)
        self.asked = 0
        self.now = 0.0

    async def ask(self) -> None:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)

    def clock(self) -> float:
        self.now += 1.0
        return self.now


async def test_it_asks_again_until_kafka_answers_and_tells_each_reason_once(caplog: pytest.LogCaptureFixture) -> None:
    away, starting = KafkaUnavailableError("It is away."), KafkaUnavailableError("It hangs up.", STARTING)
    kafka = Kafka(*[away] * 40, *[starting] * 5, *[away] * 40)
    await patiently(kafka.ask, every=0.0, clock=kafka.clock)
    assert kafka.asked == 86
    told = [record.getMessage() for record in said(caplog, "app.kafka")]
    assert [line.split(":")[1].strip() for line in told] == [
        f"{reason} The worker waits for it." for reason in ("It is away.", "It hangs up.", "It is away.")
    ]


async def test_a_broker_that_goes_on_hanging_up_is_not_one_that_is_starting() -> None:
    kafka = Kafka(*[KafkaUnavailableError("It hangs up.", STARTING)] * 100)
    with pytest.raises(KafkaUnavailableError, match="It hangs up") as raised:
        await patiently(kafka.ask, every=0.0, clock=kafka.clock)
    assert raised.value.passes_within == 0.0
    assert kafka.asked < 100


async def test_a_refusal_ends_the_wait_at_once(caplog: pytest.LogCaptureFixture) -> None:
    kafka = Kafka(KafkaUnavailableError("It does not let us in.", 0.0))
    with pytest.raises(KafkaUnavailableError, match="does not let us in"):
        await patiently(kafka.ask, every=0.0, clock=kafka.clock)
    assert kafka.asked == 1
    assert not said(caplog, "app.kafka")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (SaslAuthenticationFailed("no"), 0.0),
        (GroupAuthorizationFailedError("no"), 0.0),
        (KafkaConnectionError("closed"), STARTING),
        (UnsupportedVersionError("no"), STARTING),
        (ConnectionRefusedError(), math.inf),
        (TimeoutError(), math.inf),
        (GroupCoordinatorNotAvailableError(), math.inf),
        (KafkaError("Unable to get cluster metadata over all known brokers"), math.inf),
    ],
)
def test_how_long_an_error_may_be_there(error: Exception, seconds: float) -> None:
    assert passes_within(error) == seconds
