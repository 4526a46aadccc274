"""bench/chaos.py: plan and load are functions of the seed, a round's line says what is wrong, and a provider writes
down what it does.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from app.devstack import ports
from bench import chaos, instant_provider
from bench.chaos_parts.checks import WHOLE
from bench.chaos_parts.facts import Call, Found, calls_of
from bench.chaos_parts.faults import Faults
from bench.chaos_parts.mix import HOSTILE, MIXES, Act, Cancel, Hostile, Mix, Publish
from bench.chaos_parts.plan import CALM_AFTER, CALM_BEFORE, WEIGHTS, Fault, plan, read, without_zombies, write
from bench.chaos_parts.provider import Desk
from bench.chaos_parts.round import Result, show
from tests.support.clock.waiting import eventually

# The plan -------------------------------------------------------------------------------------------------------------


def test_a_seed_is_the_same_plan_for_ever() -> None:
    kinds = "brokerfreeze pause start freeze pause term kill2 foreign wipe kill2 kill"
    assert [fault.kind for fault in plan(4, 70)] == kinds.split()
    first = plan(4, 70)[0]
    assert (first.at, first.victim, first.away, first.still, first.outage) == (8.0, 0, 5.2, 15.1, 5.2)
    assert plan(4, 70) == plan(4, 70)
    assert plan(5, 70) != plan(4, 70)


def test_all_kinds_of_faults_happen_in_the_time_for_them() -> None:
    faults = [fault for seed in range(60) for fault in plan(seed, 70)]
    assert {fault.kind for fault in faults} == set(WEIGHTS)
    assert all(CALM_BEFORE <= fault.at <= 70 - CALM_AFTER for fault in faults)
    assert any(fault.still > 30 for fault in faults)


def test_without_zombies_only_the_stand_stills_are_shorter() -> None:
    before, after = plan(9, 70), without_zombies(plan(9, 70))
    assert [(fault.at, fault.kind, fault.outage) for fault in after] == [(f.at, f.kind, f.outage) for f in before]
    assert max(fault.still for fault in after) <= 7.0 < max(fault.still for fault in before)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    faults = [*plan(4, 70), Fault(at=9.0, kind="freezeall", count=2)]
    write(tmp_path / "plan.json", faults)
    assert read(tmp_path / "plan.json") == faults


def test_each_kind_that_may_be_planned_can_be_done() -> None:
    doer = Faults(None, None)  # type: ignore[arg-type]
    assert set(WEIGHTS) <= set(doer.kinds)


# The load -------------------------------------------------------------------------------------------------------------


def acts(seed: int, name: str = "all", count: int = 1_500) -> list[Act]:
    mix = Mix(seed, name, clock=lambda: 1_800_000_000.0)
    return [act for _ in range(count) for act in mix.next()]


@pytest.mark.parametrize("name", MIXES)
def test_a_seed_is_the_same_load(name: str) -> None:
    assert acts(4, name, 200) == acts(4, name, 200)
    assert acts(4, name, 200) != acts(5, name, 200)


def test_a_seed_is_the_same_load_for_ever() -> None:
    asked = [act.asked for act in acts(4, count=8) if isinstance(act, Publish)]
    assert " ".join(one.kind for one in asked) == "plain plain cached stream chain plain cancel plain"
    assert " ".join(one.workspace for one in asked) == "tight2 w14 w5 w2 w8 w0 w0 w3"


def test_all_kinds_of_requests_and_hostile_records_are_in_it() -> None:
    done = acts(4, count=6_000)
    asked = Counter(act.asked.kind for act in done if isinstance(act, Publish))
    kinds = {"plain", "stream", "cached", "flight", "dup", "cancel", "deadline", "chain", "large", "elsewhere"}
    assert set(asked) == kinds
    assert {act.label for act in done if isinstance(act, Hostile)} == {label for label, _, _ in HOSTILE}
    assert sum(isinstance(act, Cancel) for act in done) == asked["cancel"]


def test_each_request_says_who_asks_and_what_its_answer_begins_with() -> None:
    for act in acts(4):
        if isinstance(act, Publish):
            body = json.loads(act.value)
            assert (body["request_id"], body["workspace_id"]) == (act.asked.id, act.asked.workspace)
            assert body["prompt"].startswith(f"[tag={act.asked.tag}]")
            assert body.get("stream", False) == act.asked.stream


# The result -----------------------------------------------------------------------------------------------------------


def test_the_line_of_a_round_says_ok_or_what_is_wrong_and_how_often() -> None:
    result = Result(9, [], published=3_000, quiet_after=12.3)
    result.checks = {"answers": Found({"lost": 0}, {}), "calls": Found({"twice": 0, "norow": 0}, {})}
    assert result.line() == "seed 9: ok (3000 requests, quiet after 12.3 s)"
    result.checks["calls"] = Found({"twice": 446, "norow": 0}, {})
    result.checks["audit"] = Found({"audit": "late"}, {})
    result.missing = {"unanswered": 1}
    assert result.line().startswith("seed 9: unquiet={'unanswered': 1} twice=446 audit=late (")


def test_a_result_is_shown_with_its_examples(tmp_path: Path) -> None:
    result = Result(9, [(8.0, "kill")], checks={"answers": Found({"lost": 1}, {"lost": ["c9-1"]})})
    result.write(tmp_path / "result.json")
    said = show(tmp_path)
    assert 'answers {"wrong": {"lost": 1}, "figures": {"lost": ["c9-1"]}}' in said
    assert said.endswith('wrong {"lost": 1}')
    assert "no results" in show(tmp_path / "elsewhere")


def test_what_is_neither_a_seed_nor_show_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chaos.main(["seven"])
    assert "seeds are numbers" in capsys.readouterr().err


# The provider ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def provider(folder: Path, faults: float = 0.0) -> AsyncIterator[tuple[Desk, str, Path]]:
    """The desk, the address of its `claude`, and its journal."""
    port, journal = ports.choose(0, ""), folder / "journal.jsonl"
    desk = Desk("4", faults, str(journal), {"claude": port})
    await desk.up("claude")
    try:
        yield desk, f"http://127.0.0.1:{port}", journal
    finally:
        desk.down("claude")


async def ask(address: str, attempt: str, prompt: str, **more: object) -> str:
    body = {"model": "m1", "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **more}
    async with (
        aiohttp.ClientSession(headers={"X-Spillway-Attempt": attempt}) as session,
        session.post(f"{address}/w2/v1/messages", json=body) as answer,
    ):
        return await answer.text() if answer.status == 200 else str(answer.status)


def calls(journal: Path) -> list[Call]:
    return calls_of(journal.read_text().splitlines())


async def test_a_provider_answers_the_prompt_and_writes_the_call_down(tmp_path: Path) -> None:
    async with provider(tmp_path) as (_, address, journal):
        said = json.loads(await ask(address, "r-1/1", "[tag=r-1] hello"))
        text = said["content"][0]["text"]
        assert (found := WHOLE.match(text)) is not None
        assert found[1] == "r-1"
        [call] = calls(journal)
        assert (call.attempt, call.worker, call.provider, call.how) == ("r-1/1", "w2", "claude", "ok")
        assert call.tokens == sum(said["usage"][f"{name}_tokens"] for name in ("input", "output"))


async def test_a_stream_is_the_same_answer_in_pieces(tmp_path: Path) -> None:
    async with provider(tmp_path) as (_, address, journal):
        said = await ask(address, "r-1/1", "[tag=r-1] hello", stream=True)
        events = [json.loads(line.removeprefix("data: ")) for line in said.splitlines() if line.startswith("data: ")]
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        assert WHOLE.match(text)
        assert calls(journal)[0].how == "ok"


async def test_a_prompt_may_ask_for_a_fault(tmp_path: Path) -> None:
    async with provider(tmp_path) as (_, address, journal):
        assert await ask(address, "r-1/1", "[tag=r-1][fail=openai,claude] hello") == "500"
        assert await ask(address, "r-2/1", "[tag=r-2][plan=529] hello") == "529"
        with pytest.raises(aiohttp.ClientError):
            await ask(address, "r-3/1", "[tag=r-3][plan=cutbody] hello")
        await eventually(lambda: [call.how for call in calls(journal)] == ["500", "529", "cutbody"])


async def test_a_provider_that_goes_away_cuts_its_calls(tmp_path: Path) -> None:
    async with provider(tmp_path) as (desk, address, journal):
        asking = asyncio.create_task(ask(address, "r-1/1", "[tag=r-1][plan=hang] hello"))
        await eventually(lambda: len(calls(journal)) == 1)
        desk.down("claude")
        with pytest.raises(aiohttp.ClientError):
            await asking
        await eventually(lambda: calls(journal)[0].how is not None)
        assert calls(journal)[0].answer is None
        await desk.up("claude")
        with suppress(aiohttp.ClientError):
            await ask(address, "r-2/1", "[tag=r-2] hello")
        assert len(calls(journal)) == 2


def test_a_slow_answer_is_chosen_by_its_attempt() -> None:
    desk = instant_provider.Desk(delay=0.3, slow_every=10, slow=45.0)
    took = {attempt: desk.seconds(attempt) for attempt in (f"r-{number}/1" for number in range(1_000))}
    assert took == {attempt: desk.seconds(attempt) for attempt in took}
    assert set(took.values()) == {0.3, 45.0}
    assert 60 < sum(seconds == 45.0 for seconds in took.values()) < 140
    assert instant_provider.Desk(delay=0.3).seconds("r-1/1") == 0.3
