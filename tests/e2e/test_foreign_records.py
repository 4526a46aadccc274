"""Records as other people's clients write them: every compression, transactions, names and values of any bytes.

librdkafka comes in a wheel and Java's console producer with the broker, so both always run; kcat where it is installed;
clients of Node and Go where these are, in `make prove`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer
from typer.testing import CliRunner

from app.cli.main import app
from app.devstack import kafka
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.kafka import Cluster, admin_client
from app.settings import Settings
from schemas.dead_letter import NO_VALUE, VALUE_OMITTED, DeadLetter
from schemas.response import Response, Status
from streams.topology import DEAD_LETTERS, REQUESTS, RESPONSES, partition_of
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, reading
from tests.support.stack.go import built
from tests.support.stack.node import installed
from tests.support.values.batches import NOT_UTF8, STAND_IN, Sent, batch, with_name_that_is_no_utf8
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("worker")]

#: Programs in other languages.
CLIENTS = Path(__file__).parents[1] / "support" / "clients"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
#: A client compresses only what becomes smaller.
LONG = "why is the sky blue and not green " * 60


def request(identity: str, prompt: str = LONG, **more: Any) -> bytes:
    return json.dumps({"request_id": identity, "workspace_id": "acme", "prompt": prompt, **more}).encode()


async def answered(consumer: Any, identities: Iterable[str]) -> dict[str, Response]:
    """The responses of these requests, each of which comes once."""
    wanted = set(identities)
    found: dict[str, Response] = {}

    def is_one(record: Any) -> bool:
        response = Response.model_validate_json(record.value)
        if response.request_id in wanted:
            found[response.request_id] = response
        return True

    await consume_until(consumer, lambda _: found.keys() == wanted, only=is_one)
    return found


async def letter_at(consumer: Any, offset: int, partition: int) -> Any:
    """The dead letter of the request at this place."""

    def is_it(record: Any) -> bool:
        origin = DeadLetter.from_record(record.key, record.value, record.headers).origin
        return (origin.topic, origin.partition, origin.offset) == (REQUESTS, partition, offset)

    return (await consume_until(consumer, bool, only=is_it))[0]


@contextmanager
def librdkafka(settings: Settings, **options: Any) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers} | options)
    yield producer
    producer.flush(20)


@pytest.mark.parametrize("codec", CODECS)
async def test_librdkafka_in_every_compression(settings: Settings, codec: str) -> None:
    identities = [unique("r") for _ in range(5)]
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        with librdkafka(settings, **{"compression.type": codec, "linger.ms": 50}) as producer:
            for identity in identities:
                # Without a value for one header, which aiokafka's own producers never send.
                producer.produce(REQUESTS, request(identity), key=b"acme", headers=[("empty", None), ("x", b"\xff")])
        found = await answered(consumer, identities)
    assert {one.status for one in found.values()} == {Status.SUCCEEDED}


@pytest.mark.parametrize("codec", CODECS)
async def test_javas_console_producer_in_every_compression(settings: Settings, codec: str, tmp_path: Path) -> None:
    identities = [unique("r") for _ in range(3)]
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        lines = b"".join(b"acme\t" + request(identity) + b"\n" for identity in identities)
        where = ["--bootstrap-server", settings.kafka_bootstrap_servers, "--topic", REQUESTS]
        how = ["--compression-codec", codec, "--property", "parse.key=true"]
        command = [*kafka.java(tmp_path), "org.apache.kafka.tools.ConsoleProducer", *where, *how]
        done = await asyncio.to_thread(
            subprocess.run, command, input=lines, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        found = await answered(consumer, identities)
    assert {one.status for one in found.values()} == {Status.SUCCEEDED}


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed (Debian: kcat)")
@pytest.mark.parametrize("codec", CODECS)
async def test_kcat_in_every_compression(settings: Settings, codec: str) -> None:
    identity = unique("r")
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        command = ["kcat", "-P", "-b", settings.kafka_bootstrap_servers, "-t", REQUESTS, "-z", codec, "-k", "acme"]
        await asyncio.to_thread(subprocess.run, command, input=request(identity), timeout=30, check=True)
        await answered(consumer, [identity])


@pytest.mark.prove
async def test_franz_go_in_every_compression(settings: Settings, tmp_path: Path) -> None:
    program = await asyncio.to_thread(built, tmp_path, CLIENTS / "franz")
    await check_program(settings, [str(program)], CODECS)


@pytest.mark.prove
async def test_kafkajs_in_every_compression_that_it_has(settings: Settings, tmp_path: Path) -> None:
    folder = await asyncio.to_thread(installed, tmp_path, CLIENTS / "kafkajs" / "package.json")
    shutil.copy(CLIENTS / "kafkajs" / "producer.js", folder)
    await check_program(settings, ["node", str(folder / "producer.js")], ("none", "gzip", "snappy"))


async def check_program(settings: Settings, program: list[str], codecs: Iterable[str]) -> None:
    """One that publishes what its input says."""
    for codec in codecs:
        identities = [unique("r") for _ in range(3)]
        lines = b"".join(b"acme\t" + request(identity) + b"\n" for identity in identities)
        command = [*program, settings.kafka_bootstrap_servers, REQUESTS, codec]
        async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
            done = await asyncio.to_thread(
                subprocess.run, command, input=lines, capture_output=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr.decode()
            found = await answered(consumer, identities)
        assert {one.status for one in found.values()} == {Status.SUCCEEDED}, codec


async def test_what_is_in_a_transaction_is_called_when_it_is_committed_and_never_when_it_is_aborted(
    settings: Settings, worker: Child
) -> None:
    committed, aborted, last = unique("r"), unique("r"), unique("r")
    # Said outright: librdkafka chooses other partitions by a key than the rest of the world.
    home, away = partition_of(b"acme", settings.partitions), away_from(settings)
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        with librdkafka(settings, **{"transactional.id": unique("t"), "compression.type": "lz4"}) as producer:
            await asyncio.to_thread(producer.init_transactions, 30)
            producer.begin_transaction()
            producer.produce(REQUESTS, request(aborted), key=b"acme", partition=home)
            producer.flush(10)
            await asyncio.to_thread(producer.abort_transaction, 30)
            producer.begin_transaction()
            producer.produce(REQUESTS, request(committed), key=b"acme", partition=home)
            producer.flush(10)
            # It is in the log, and nobody may act on it yet. Others' partitions are not held up.
            other, elsewhere = unique("r"), workspace_in(settings, away)
            with librdkafka(settings) as plain:
                plain.produce(REQUESTS, request(other, workspace_id=elsewhere), partition=away)
            await answered(consumer, [other])
            await asyncio.to_thread(producer.commit_transaction, 30)
            await answered(consumer, [committed])
            producer.begin_transaction()
            producer.produce(REQUESTS, request(last), key=b"acme", partition=home)
            producer.flush(10)
            await asyncio.to_thread(producer.abort_transaction, 30)
        with librdkafka(settings) as plain:
            final = unique("r")
            plain.produce(REQUESTS, request(final, workspace_id=elsewhere), partition=away)
        await answered(consumer, [final])
    # The topic ends in an aborted transaction and its marker, and the group has nothing left all the same.
    await eventually(lambda: nothing_is_left(settings), within=30, what="everything is committed over")
    assert worker.exit_code() is None


def away_from(settings: Settings) -> int:
    """A partition in which the requests of this module's workspace are not."""
    return (partition_of(b"acme", settings.partitions) + 1) % settings.partitions


def workspace_in(settings: Settings, partition: int) -> str:
    """One whose requests belong into this partition: from any other one they are sent there."""
    return next(
        name for name in iter(lambda: unique("w"), "") if partition_of(name.encode(), settings.partitions) == partition
    )


async def nothing_is_left(settings: Settings) -> bool:
    """Whether the workers have acknowledged all that there is of requests."""
    async with admin_client(Cluster(settings.kafka_bootstrap_servers)) as admin:
        found = await admin.list_consumer_group_offsets(settings.kafka_application_id)
    async with reading(settings.kafka_bootstrap_servers, REQUESTS) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
    return all(place in found and found[place].offset == end for place, end in ends.items() if end)


async def send_raw(settings: Settings, raw: bytes, count: int, partition: int) -> int:
    """Write a batch as it is; returns its first offset."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all") as producer:
        made = producer.create_batch()
        for _ in range(count):
            made.append(timestamp=None, key=None, value=b"")
        made._build()
        made._buffer = raw
        return int((await (await producer.send_batch(made, REQUESTS, partition=partition))).offset)


async def test_a_header_whose_name_is_no_utf8_is_refused_and_the_records_around_it_are_answered(
    settings: Settings,
) -> None:
    partition = (away_from(settings) - 1) % settings.partitions
    before, bad, after = (unique("r") for _ in range(3))
    raw = with_name_that_is_no_utf8(
        batch(Sent(request(before)), Sent(request(bad), headers=[(STAND_IN, b"x")]), Sent(request(after)))
    )
    async with reading(settings.kafka_bootstrap_servers, RESPONSES, DEAD_LETTERS) as consumer:
        first = await send_raw(settings, raw, 3, partition)
        letters: list[Any] = []
        found: dict[str, Response] = {}

        def note(record: Any) -> bool:
            if record.topic == DEAD_LETTERS:
                letters.append(record)
            else:
                response = Response.model_validate_json(record.value)
                found[response.request_id] = response
            return True

        await consume_until(consumer, lambda _: found.keys() >= {before, bad, after} and bool(letters), only=note)
    assert (found[before].status, found[after].status) == (Status.SUCCEEDED, Status.SUCCEEDED)
    assert found[bad].status is Status.REJECTED
    error = found[bad].error
    assert error is not None
    assert error.code == "unreadable_header"
    letter = DeadLetter.from_record(letters[0].key, letters[0].value, letters[0].headers)
    assert (letter.origin.offset, letter.value) == (first + 1, request(bad))
    assert ("\\xc3(\\xff", b"x") in letter.headers
    assert NOT_UTF8.decode(errors="backslashreplace") == "\\xc3(\\xff"


async def test_a_record_without_key_and_value_is_buried_and_holds_nobody_up(settings: Settings) -> None:
    partition = away_from(settings)
    nothing = batch(*(Sent(None, None) for _ in range(300)))
    identity = unique("r")
    async with reading(settings.kafka_bootstrap_servers, RESPONSES, DEAD_LETTERS) as consumer:
        first = await send_raw(settings, nothing, 300, partition)
        with librdkafka(settings) as producer:
            producer.produce(REQUESTS, request(identity), partition=partition)
        letters: list[Any] = []
        answers: list[Any] = []

        def note(record: Any) -> bool:
            (letters if record.topic == DEAD_LETTERS else answers).append(record)
            return True

        await consume_until(
            consumer,
            lambda _: len(letters) >= 300 and any(identity.encode() in one.value for one in answers),
            only=note,
        )
    assert {DeadLetter.from_record(one.key, one.value, one.headers).origin.offset for one in letters} >= set(
        range(first, first + 300)
    )
    assert {(one.key, one.value, (NO_VALUE, b"1") in one.headers) for one in letters} == {(None, b"", True)}


async def test_what_unpacks_to_more_than_a_letter_holds_is_named_in_one_without_it(settings: Settings) -> None:
    partition = away_from(settings)
    async with reading(settings.kafka_bootstrap_servers, DEAD_LETTERS) as consumer:
        first = await send_raw(settings, batch(Sent(b"{" + b" " * 5_400_000, None), codec="gzip"), 1, partition)
        letter = await letter_at(consumer, first, partition)
    assert (letter.key, letter.value) == (None, b"")
    assert dict(letter.headers)[VALUE_OMITTED] == b"5400001"


async def test_a_batch_that_would_fill_the_memory_is_passed_over_and_kept_as_it_is(settings: Settings) -> None:
    partition, identity = away_from(settings), unique("r")
    bomb = batch(Sent(bytes(80_000_000), None), codec="zstd")
    async with reading(settings.kafka_bootstrap_servers, RESPONSES, DEAD_LETTERS) as consumer:
        first = await send_raw(settings, bomb, 1, partition)
        with librdkafka(settings) as producer:
            producer.produce(REQUESTS, request(identity), partition=partition)
        letter, answer = await letter_and_answer(consumer, identity)
    found = DeadLetter.from_record(letter.key, letter.value, letter.headers)
    assert (found.code, found.origin.offset) == ("unreadable", first)
    assert letter.value is not None
    assert letter.value[21:] == bomb[21:], "the batch as it was sent"
    assert Response.model_validate_json(answer.value).status is Status.SUCCEEDED


async def letter_and_answer(consumer: Any, identity: str) -> tuple[Any, Any]:
    found: dict[str, Any] = {}

    def note(record: Any) -> bool:
        if record.topic == DEAD_LETTERS or identity.encode() in record.value:
            found[record.topic] = record
        return True

    await consume_until(consumer, lambda _: len(found) == 2, only=note)
    return found[DEAD_LETTERS], found[RESPONSES]


def test_every_command_that_reads_topics_reads_all_that_these_tests_have_left(
    stack: DevStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    for arguments in (["tail", "requests", "-n", "2000", "--json"], ["dlq", "list"], ["audit"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 1), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert "Traceback" not in result.output
