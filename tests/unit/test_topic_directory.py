"""Which topics exist, as far as it can be said without asking Kafka."""

from __future__ import annotations

import pytest

from app.kafka import Cluster, KafkaTopicDirectory


@pytest.mark.parametrize(
    "topic", ["a" * 250, "a" * 60_000, "", "shop replies", "shop/replies", "shop\nreplies", "café"]
)
async def test_a_name_that_no_topic_has_is_answered_at_once_and_not_remembered(topic: str) -> None:
    directory = KafkaTopicDirectory(Cluster("127.0.0.1:1"))
    assert not await directory.exists(topic)
    assert not directory._missing
