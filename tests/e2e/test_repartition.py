"""A deployment gets more partitions: what it knows of its workspaces is where they are decided then.

On a stack of its own, because topics never get fewer partitions again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.devstack.errors import StackError
from app.devstack.stack import DevStack
from app.kafka import KafkaUnavailableError
from app.recovery.changelogs import Owner
from schemas.response import Response
from streams.records import Record
from streams.runtime.tables import OWNER_KEY
from streams.topology import REQUESTS, RESPONSES, partition_of
from tests.support.clock.months import in_one_month
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.running import running_stack
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(420)]

WORKSPACES = [f"w{number}" for number in range(12)]
BEFORE, AFTER = 6, 12
MOVED = [name for name in WORKSPACES if partition_of(name.encode(), BEFORE) != partition_of(name.encode(), AFTER)]


@pytest.fixture
def own_stack(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[DevStack]:
    with running_stack(tmp_path_factory.mktemp("own")) as stack:
        monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
        monkeypatch.setenv("NO_COLOR", "1")
        yield stack


async def spillway(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


class Asking:
    """Requests, one for each workspace; and their answers by workspace."""

    def __init__(self, stack: DevStack) -> None:
        self.servers = stack.environment()["AI_KAFKA_BOOTSTRAP_SERVERS"]

    async def send(self, identity: str, prompt: str) -> None:
        bodies = [
            (name.encode(), {"request_id": f"{identity}-{name}", "workspace_id": name, "prompt": prompt})
            for name in WORKSPACES
        ]
        await publish(self.servers, REQUESTS, [(key, json.dumps(body).encode()) for key, body in bodies])

    async def answers(self, identity: str) -> dict[str, Response]:
        async with reading(self.servers, RESPONSES, from_start=True) as consumer:
            wanted = {f"{identity}-{name}" for name in WORKSPACES}
            found = await consume_until(
                consumer,
                lambda records: len(records) >= len(wanted),
                only=lambda record: json.loads(record.value)["request_id"] in wanted,
            )
        responses = [Response.model_validate_json(record.value) for record in found]
        return {response.workspace_id: response for response in responses}


async def refuses_to_start(stack: DevStack, partitions: int) -> None:
    worker = stack.worker(2, **WIDE_LANES, AI_PARTITIONS=str(partitions))
    worker.start()
    with pytest.raises(StackError, match="partitions_differ"):
        await asyncio.to_thread(worker.wait_ready, 60)
    assert worker.exit_code() == 1


async def cut_off() -> None:
    """A run that ends when the first table's rows are in their new places, and not yet out of the old ones."""
    written = count()

    write = Owner.write

    async def ends(owner: Owner, records: Sequence[Record]) -> None:
        takes = any(record.key == OWNER_KEY for record in records)
        if not takes and next(written):
            raise KafkaUnavailableError("Kafka is away.")
        await write(owner, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Owner, "write", ends)
        assert (await spillway("repartition", str(AFTER), "--yes")).exit_code == 1


async def test_more_partitions_keep_every_account_answer_and_name(own_stack: DevStack) -> None:
    await in_one_month(150)
    ask, first, waiting, last = Asking(own_stack), unique("first"), unique("waiting"), unique("last")
    with running_worker(own_stack, **WIDE_LANES):
        await ask.send(first, "What is kept?")
        spent = {name: one.usage.cost for name, one in (await ask.answers(first)).items()}
        assert all(spent.values())
        refused = await spillway("repartition", str(AFTER), "--yes")
        assert refused.exit_code == 1
        assert "stop all workers first" in refused.output

    # Whoever publishes goes on.
    await ask.send(waiting, "Who waits?")
    await refuses_to_start(own_stack, AFTER)
    counted = await spillway("repartition", str(AFTER), "--dry-run")
    assert "nothing was changed" in counted.output
    await cut_off()
    for number in (BEFORE, AFTER):
        await refuses_to_start(own_stack, number)
    done = await spillway("repartition", str(AFTER), "--yes")
    assert done.exit_code == 0, done.output
    assert f"AI_PARTITIONS={AFTER}" in done.output

    with running_worker(own_stack, **WIDE_LANES, AI_PARTITIONS=str(AFTER)):
        for name, one in (await ask.answers(waiting)).items():
            spent[name] += one.usage.cost
        # Names that are known, with another question; then one that all the workspaces have asked before.
        await ask.send(first, "Is this paid for again?")
        await ask.send(last, "What is kept?")
        assert {name: one.cached for name, one in (await ask.answers(last)).items()} == dict.fromkeys(WORKSPACES, True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AI_PARTITIONS", str(AFTER))
            expected = {name: (f"{cost:.9f}", "0.000000000") for name, cost in spent.items()}
            await eventually(lambda: _counted(expected), every=0.5, what="each account goes on where it was")
            await eventually(_agrees, within=60, every=1.0, what="requests, answers, usage, ledger and budgets agree")
    repeated = [name for name in await _answered(ask.servers) if name.startswith(first)]
    assert len(repeated) == len(WORKSPACES), "a name that is known is answered once"
    assert len(MOVED) > 2, "some of them have moved"


async def _counted(expected: dict[str, tuple[str, str]]) -> bool:
    listed = json.loads((await spillway("budget", "list", "--json")).output)["budgets"]
    return {one["workspace_id"]: (one["spent"], one["reserved"]) for one in listed} == expected


async def _agrees() -> bool:
    return (await spillway("audit", "--json")).exit_code == 0


async def _answered(servers: str) -> list[str]:
    found: list[str] = []
    async with reading(servers, RESPONSES, from_start=True) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += [json.loads(record.value)["request_id"] for record in batch]
    return found
