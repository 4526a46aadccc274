"""Dead letters from the command line, against a real broker; no worker runs but where the test says so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.dead_letter import DeadLetter, Origin
from streams.admit.parse import id_of_record
from streams.topology import DEAD_LETTERS, REQUESTS, RESPONSES
from tests.support.reader.topics import consume_until, put, reading
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

SECRET = b'{"prompt": "mark-prompt"'


@pytest.fixture(autouse=True)
def _here(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("NO_COLOR", "1")


def spillway(*arguments: str, code: int = 0, answer: str = "") -> Result:
    result = CliRunner().invoke(app, ["dlq", *arguments], input=answer)
    assert result.exit_code == code, result.output
    return result


async def bury(settings: Settings, code: str, *values: bytes, topic: str = REQUESTS) -> list[str]:
    """Letters of a reason of their own, from partition 4; returns their places."""
    places = []
    for number, value in enumerate(values):
        origin = Origin(topic, 4, number, 1_000)
        letter = DeadLetter(origin, code, "It is wrong.", b"some-key", value, (("mine", b"\xff\x00"),))
        headers = letter.to_headers()
        sent = await put(
            settings.kafka_bootstrap_servers, DEAD_LETTERS, value, key=b"some-key", headers=headers, partition=1
        )
        places.append(f"{sent.partition}@{sent.offset}")
    return places


def listed(code: str, *options: str) -> list[dict[str, Any]]:
    return list(json.loads(spillway("list", "--json", "--code", code, *options).stdout)["letters"])


def buried(settings: Settings, code: str, *values: bytes, topic: str = REQUESTS) -> list[str]:
    return asyncio.run(bury(settings, code, *values, topic=topic))


def test_letters_are_listed_the_newest_first_and_chosen_by_reason_topic_and_moment(settings: Settings) -> None:
    code = unique("code")
    places = buried(settings, code, b"1", b"22", b"333")
    assert [letter["place"] for letter in listed(code)] == places[::-1]
    assert [letter["size"] for letter in listed(code, "-n", "2")] == [3, 2]
    assert len(listed(code, "--topic", "requests", "--since", "2026-01-01")) == 3
    assert listed(code, "--topic", "usage") == []
    assert listed(code, "--since", "2099-01-01") == []
    table = spillway("list", "--code", code).stdout
    assert places[0] in table
    assert "It is wrong." in table


def test_the_value_of_a_letter_is_shown_only_where_it_is_asked_for(settings: Settings) -> None:
    code = unique("code")
    [place] = buried(settings, code, SECRET)
    shown = spillway("show", place).stdout
    assert all(part in shown for part in (code, "It is wrong.", "ai.requests[4]@0", f"{len(SECRET)} bytes", "some-key"))
    assert "mark-prompt" not in shown + spillway("list", "--code", code).stdout
    assert "mark-prompt" in spillway("show", place, "--body").stdout


def test_a_place_without_a_letter_is_told_in_one_sentence(settings: Settings) -> None:
    [place] = buried(settings, unique("code"), b"1")
    beyond = f"1@{int(place.partition('@')[2]) + 1_000}"
    assert f"There is no dead letter at {beyond}" in spillway("show", beyond, code=1).output
    assert "has no partition 99" in spillway("show", "99@0", code=1).output
    assert "nothing was sent" in spillway("redrive", place, beyond, "--yes", code=1).output
    assert "like 3@17" in spillway("show", "third", code=2).output
    assert "Say which letters" in spillway("redrive", code=2).output
    assert "Say up to which places" in spillway("purge", code=2).output


async def test_a_letter_goes_back_as_it_was_once_and_again_only_when_told_to(settings: Settings) -> None:
    code = unique("code")
    value = unique("raw").encode() + b"\x00\xff no JSON"
    [place] = await bury(settings, code, value)
    async with reading(settings.kafka_bootstrap_servers, REQUESTS) as requests:
        asked = await asyncio.to_thread(spillway, "redrive", place, answer="n\n", code=1)
        assert f"1 letter: 1 {code} to ai.requests." in asked.output
        assert "1 letter sent again." in (await asyncio.to_thread(spillway, "redrive", place, "--yes")).output
        assert "No letter to send." in (await asyncio.to_thread(spillway, "redrive", "--code", code, "-y")).output
        sent = await asyncio.to_thread(spillway, "redrive", "--code", code, "--again", answer="y\n")
        assert "1 letter sent again." in sent.output
        own = await consume_until(requests, lambda found: len(found) >= 2, only=lambda found: found.value == value)
    assert len(own) == 2
    # It has no id in it: the one that it had from its place goes with it.
    ident = id_of_record(Origin(REQUESTS, 4, 0, 1_000).identity).encode()
    for record in own:
        assert (record.key, record.partition) == (b"some-key", 4)
        assert record.headers == (
            ("mine", b"\xff\x00"),
            ("ce_id", ident),
            ("spillway-redriven-from", place.encode()),
            ("spillway-redrives", b"1"),
        )
    [letter] = await asyncio.to_thread(listed, code)
    assert letter["sent_again"]["state"] == "done"


async def test_two_operators_at_once_send_each_letter_once(settings: Settings) -> None:
    code, mark = unique("code"), unique("raw").encode()
    await bury(settings, code, *(mark + bytes([number]) for number in range(120)))
    async with reading(settings.kafka_bootstrap_servers, REQUESTS) as requests:
        both = await asyncio.gather(*(_program(settings, "redrive", "--code", code, "--yes") for _ in range(2)))
        last = unique("raw").encode()
        await bury(settings, f"{code}-last", last)
        await asyncio.to_thread(spillway, "redrive", "--code", f"{code}-last", "--yes")
        # The last one is sent to the same partition after all the others.
        found = await consume_until(requests, lambda records: any(record.value == last for record in records))
    values = [record.value for record in found if record.value.startswith(mark)]
    assert sorted(values) == sorted(mark + bytes([number]) for number in range(120)), both


async def _program(settings: Settings, *arguments: str) -> str:
    """The program as a process of its own: two runners in one process would share its output."""
    import os  # noqa: PLC0415
    import sys  # noqa: PLC0415

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", "dlq", *arguments,
        env=os.environ | {"AI_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


def test_what_no_worker_reads_is_left_and_the_reason_is_told(settings: Settings) -> None:
    code = unique("code")
    buried(settings, code, b"1", topic="customers.own")
    found = spillway("redrive", "--code", code, "--yes").output
    assert "no worker reads customers.own" in found
    assert "No letter to send." in found


def test_purged_letters_are_gone_up_to_the_place_and_the_others_stay(settings: Settings) -> None:
    code = unique("code")
    first, second, third = buried(settings, code, b"1", b"2", b"3")
    assert "cannot be undone" in spillway("purge", second, answer="n\n", code=1).output
    assert len(listed(code)) == 3
    assert "removed." in spillway("purge", second, "--yes").output
    assert [letter["place"] for letter in listed(code)] == [third]
    assert "the partition holds" in spillway("show", first, code=1).output
    spillway("purge", "--all", "--yes")
    assert spillway("list").output == "No dead letters.\n"
    assert "No letter to remove." in spillway("purge", "--all").output


async def test_a_request_that_fails_again_is_a_letter_again_that_says_so(stack: DevStack, settings: Settings) -> None:
    with running_worker(stack, **WIDE_LANES):
        request_id = unique("r")
        body = json.dumps({"request_id": request_id, "kind": "telepathy", "prompt": "hello"}).encode()
        code = unique("code")
        [place] = await bury(settings, code, body)
        async with reading(settings.kafka_bootstrap_servers, DEAD_LETTERS, RESPONSES) as consumer:
            await asyncio.to_thread(spillway, "redrive", place, "--yes")
            found = await consume_until(
                consumer,
                lambda records: len(records) >= 2,
                only=lambda record: request_id.encode() in record.value,
                within=90,  # It reads all that other tests have published before.
            )
    assert {record.topic for record in found} == {DEAD_LETTERS, RESPONSES}
    again = [letter for letter in await asyncio.to_thread(listed, "unknown_kind") if letter["redrives"] == 1]
    assert again
