"""What an answer means for an alert, and how long to wait for another one."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndTimestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.alerts.webhook import LONGEST_ASKED, LONGEST_WAIT, Verdict, Webhook, pause, verdict
from app.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("status", "found"),
    [
        *((status, Verdict.DELIVERED) for status in (200, 202, 204)),
        *((status, Verdict.AGAIN) for status in (408, 425, 429, 500, 502, 503, 599)),
        *((status, Verdict.REFUSED) for status in (301, 302, 400, 401, 403, 404, 410, 413)),
    ],
)
def test_what_may_be_better_later_is_tried_again(status: int, found: Verdict) -> None:
    assert verdict(status) is found


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_waits_grow_and_end_at_a_minute(tries: int, jitter: float) -> None:
    assert 0.5 <= pause(tries, None, jitter) <= LONGEST_WAIT
    assert pause(tries, None, jitter) <= pause(tries + 1, None, jitter) or tries > 6


def test_a_wait_that_is_asked_for_is_kept_within_reason() -> None:
    assert pause(1, "7", 0.5) == 7.5
    assert pause(1, "86400", 0.0) == LONGEST_ASKED
    assert pause(1, "Wed, 21 Oct 2026 07:28:00 GMT", 0.0) == 0.5


class Growing:
    """A consumer of a topic that gets an alert after each question that is asked about it."""

    def __init__(self) -> None:
        self.alerts: list[int] = []
        self.sought: dict[TopicPartition, int] = {}

    async def committed(self, _: TopicPartition) -> None:
        return None

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        found = dict.fromkeys(places, len(self.alerts))
        self.alerts.append(2_000)
        return found

    async def offsets_for_times(
        self, moments: dict[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        found = {
            place: next((OffsetAndTimestamp(n, at) for n, at in enumerate(self.alerts) if at >= moment), None)
            for place, moment in moments.items()
        }
        self.alerts.append(2_000)
        return found

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought[place] = offset

    async def commit(self, _: dict[TopicPartition, int]) -> None: ...


async def test_an_alert_that_comes_while_the_beginning_is_looked_up_is_not_passed_over() -> None:
    consumer, place = Growing(), TopicPartition("ai.budget.alerts", 0)
    webhook = Webhook(load_settings(), SecretStr("http://127.0.0.1:9/"))
    webhook._consumer = consumer
    webhook._since = 1_000
    await webhook.on_partitions_assigned([place])
    assert consumer.sought == {place: 0}


def test_an_empty_address_is_none() -> None:
    assert load_settings(alert_webhook_url="").alert_webhook_url is None


@pytest.mark.parametrize(
    "address", ["secret-token", "ftp://host/secret-token", "http://", "http://host:x/secret-token"]
)
def test_an_address_that_cannot_be_one_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(SettingsError, match="AI_ALERT_WEBHOOK_URL: is no address") as refused:
        load_settings(alert_webhook_url=address)
    assert "secret-token" not in str(refused.value)
    assert "secret-token" not in repr(load_settings(alert_webhook_url="http://host/secret-token"))
