"""Looking at providers: once for all who ask, with every key, and nothing of a key in what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.providers.availability import (
    Availability,
    AvailabilityBoard,
    Lookout,
    read_models,
    watch,
)
from app.providers.errors import HttpStatusError, from_status
from app.providers.keys import Key, KeyRing
from tests.support.reader.logs import said

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def answering(statuses: dict[str | None, int], seen: list[str | None]) -> Callable[[Key | None], object]:
    """A provider that answers each key with a status."""

    async def look(key: Key | None) -> bytes:
        value = key.value if key else None
        seen.append(value)
        await asyncio.sleep(0)
        status = statuses[value]
        if status == 200:
            return b'{"data": [{"id": "m-1"}, {"id": "m-2"}]}'
        message = {"error": {"message": f"no, {value}"}}
        raise HttpStatusError(from_status(status, {}, message), status)

    return look


def lookout(statuses: dict[str | None, int], seen: list[str | None] | None = None) -> Lookout:
    keys = KeyRing("X", ",".join(key for key in statuses if key))
    return Lookout(answering(statuses, [] if seen is None else seen), keys)  # type: ignore[arg-type]


async def test_many_who_ask_at_once_are_one_look() -> None:
    seen: list[str | None] = []
    eyes = lookout({"key-a": 200}, seen)
    found = await asyncio.gather(*(eyes.see() for _ in range(10)))
    assert seen == ["key-a"]
    assert set(found) == {Availability(True, models=("m-1", "m-2"))}


async def test_what_is_too_old_is_looked_at_again() -> None:
    seen: list[str | None] = []
    eyes = lookout({None: 200}, seen)
    await eyes.see()
    await eyes.see(max_age=0.0)
    assert seen == [None, None]


async def test_one_key_that_is_taken_is_enough() -> None:
    found = await lookout({"key-a": 401, "key-b": 403, "key-c": 200}).see()
    assert found.available
    assert found.models == ("m-1", "m-2")


async def test_when_no_key_is_taken_it_is_not_available_and_no_key_is_told() -> None:
    found = await lookout({"key-a": 401, "key-b": 403}).see()
    assert not found.available
    assert found.note in ("no, … (key 1 of 2 of X).", "no, … (key 2 of 2 of X).")


@pytest.mark.parametrize(("status", "available"), [(404, True), (405, True), (429, True), (500, False), (302, False)])
async def test_a_status_says_whether_somebody_is_there(status: int, available: bool) -> None:
    found = await lookout({None: status}).see()
    assert found.available is available
    assert found.note


async def test_a_provider_that_nobody_can_reach_is_not_available() -> None:
    async def look(_: Key | None) -> bytes:
        raise TimeoutError

    assert not (await Lookout(look, KeyRing("X")).see()).available


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"{}", b'{"data": 7}', b'{"data": [7, {}, {"id": 7}]}'])
def test_a_list_that_is_none_names_no_models(content: bytes) -> None:
    assert read_models(content) == ()


def test_a_standing_tells_since_when_it_is_so(caplog: pytest.LogCaptureFixture) -> None:
    board = AvailabilityBoard()
    news = [True, True, False, False, True]
    with caplog.at_level(logging.INFO):
        for minute, available in enumerate(news):
            board.hear("openai", Availability(available, "why"), NOW + timedelta(minutes=minute))
            standing = board.standings["openai"]
            assert (standing.available, standing.seen_at) == (available, NOW + timedelta(minutes=minute))
            assert standing.since == NOW + timedelta(minutes=(0, 0, 2, 2, 4)[minute])
    assert [record.getMessage() for record in said(caplog, "app.providers.availability")] == [
        "provider_unavailable: openai: why",
        "provider_available: openai",
    ]


class Broken:
    async def available(self, max_age: float = 60.0) -> Availability:
        raise RuntimeError(str(max_age))


class Well:
    def __init__(self) -> None:
        self.looks = asyncio.Queue[float]()

    async def available(self, max_age: float = 60.0) -> Availability:
        self.looks.put_nowait(max_age)
        return Availability(True)


async def test_one_provider_that_breaks_the_look_keeps_nobody_from_being_looked_at() -> None:
    board, well = AvailabilityBoard(), Well()
    watching = asyncio.create_task(watch({"broken": Broken(), "well": well}, board, 0.01))
    for _ in range(3):
        await well.looks.get()
    watching.cancel()
    assert list(board.standings) == ["well"]
