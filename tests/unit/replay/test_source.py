"""What the ledger must have read before it can say what has succeeded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from app.cli import replay
from app.cli.errors import CommandError
from app.replay import source
from app.replay.choose import Wanted
from app.replay.source import left_before
from app.settings import Settings

PLACE, OTHER = TopicPartition("ai.usage", 0), TopicPartition("ai.responses", 1)


@pytest.mark.parametrize(
    ("begin", "done", "left"),
    [
        (0, {}, 10),
        (4, {}, 6),
        (0, {("ai.usage", 0): 7}, 3),
        (4, {("ai.usage", 0): 2}, 6),
        (0, {("ai.usage", 0): 10}, 0),
        (0, {("ai.usage", 0): 12}, 0),
        (12, {}, 0),
    ],
)
def test_what_is_gone_and_what_is_read_is_not_left(begin: int, done: dict[tuple[str, int], int], left: int) -> None:
    assert left_before({PLACE: 10, OTHER: 0}, {PLACE: begin, OTHER: 0}, done) == left


async def test_under_their_own_ids_nothing_is_sent_while_the_ledger_does_not_know_what_succeeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def behind(_: Any, application: str, moment: float) -> int:
        assert (application, moment) == ("spillway", 900.0)
        return 3

    monkeypatch.setattr(source, "behind", behind)
    wanted = Wanted(now=1_000.0, window=100.0)
    with pytest.raises(CommandError, match="3 responses and usage records"):
        await replay._replay(Settings(), SimpleNamespace(), wanted, send=True)  # type: ignore[arg-type]
