"""A worker's process, before it has anything to do with Kafka."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app import run as running
from app.kafka import KafkaUnavailableError
from app.run import _begun, _calls_end, beside, run
from app.settings import Settings, SettingsError, load_settings
from app.worker.parts import Worker
from app.worker.predecessor import ProcessNote, noted
from tests.support.reader.logs import said


def test_a_data_folder_that_cannot_be_made_is_told_of_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(SettingsError, match=r"^AI_DATA_DIR: .* cannot be made: "):
            run(load_settings(data_dir=folder))


def test_one_that_cannot_be_written_to_is_not_taken_for_a_kafka_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SettingsError, match="cannot be written to"):
        run(load_settings(data_dir=tmp_path))


async def test_work_beside_the_stages_that_ends_is_told_of_and_not_missed_for_days(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def announce() -> None:
        raise OverflowError("a prompt, perhaps")

    await asyncio.wait({beside(announce())})
    [record] = said(caplog, "app.run")
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("background_ended: ")
    assert "announce" in record.getMessage()
    assert "prompt" not in record.getMessage()


async def test_work_that_is_cancelled_at_the_end_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    task = beside(asyncio.sleep(3_600))
    task.cancel()
    await asyncio.wait({task})
    assert not said(caplog, "app.run")


def worker_with(calls: Any) -> Worker:
    return Worker(cast(Any, SimpleNamespace()), cast(Any, None), calls=calls)


async def test_an_orderly_stop_ends_with_the_last_call(caplog: pytest.LogCaptureFixture) -> None:
    left = [3, 3, 2, 1, 0]
    looks = iter(left)
    last = [0]

    def calls() -> int:
        last[0] = next(looks, 0)
        return last[0]

    loop = asyncio.get_running_loop()
    await _calls_end(worker_with(calls), loop.time() + 3_600)
    assert last == [0]
    assert not [record for record in said(caplog, "app.run") if record.levelname == "WARNING"]


async def test_an_orderly_stop_waits_no_longer_than_it_may_and_says_what_it_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await _calls_end(worker_with(lambda: 2), asyncio.get_running_loop().time())
    [record] = [record for record in said(caplog, "app.run") if record.levelname == "WARNING"]
    assert record.getMessage() == "worker_calls_left: 2 calls have not ended; each is in doubt"


async def test_a_kafka_that_goes_away_while_a_worker_starts_makes_it_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built: list[Worker] = []
    closed: list[Worker] = []
    monkeypatch.setattr(running, "ASK_AGAIN", 0.0)

    def build(settings: Settings, _: ProcessNote) -> Worker:
        async def start() -> None:
            if len(built) < 3:
                raise KafkaUnavailableError("It is away.")
            if len(built) == 4:
                raise KafkaUnavailableError("It does not let us in.", 0.0)

        async def close() -> None:
            closed.append(worker)

        worker = Worker(cast(Any, SimpleNamespace()), settings, start=[start], close=[close])
        built.append(worker)
        return worker

    monkeypatch.setattr(running, "build_worker", build)
    settings = load_settings(data_dir=tmp_path, openai_api_key="x")
    with noted(tmp_path) as note:
        assert await _begun(settings, note, asyncio.Event()) is built[2]
        assert closed == built[:2]
        assert await _begun(settings, note, asyncio.Event()) == 1
    told = [record.getMessage() for record in said(caplog, "app.run")]
    assert told == ["kafka_away: It is away. The worker starts again."] * 2 + [
        "kafka_unavailable: It does not let us in."
    ]


async def test_a_worker_that_is_told_to_stop_while_it_starts_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, begun = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(
        running, "build_worker", lambda settings, _: Worker(cast(Any, SimpleNamespace()), settings, start=[start])
    )
    settings = load_settings(data_dir=tmp_path, openai_api_key="x")
    with noted(tmp_path) as note:
        starting = asyncio.create_task(_begun(settings, note, stopping))
        await begun.wait()
        stopping.set()
        assert await starting == 0
