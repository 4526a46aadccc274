"""`spillway demo`: a few requests through the whole of Spillway, their answers, and what they cost."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from app.clickhouse.client import Row
    from app.settings import Settings
    from schemas.response import Response

#: Seconds.
PATIENCE = 60.0
LEDGER_DEADLINE = 30.0
POLL = 0.2
#: Characters of an answer that are shown.
SHOWN = 64

COST = """
SELECT provider, model, count(), sum(prompt_tokens), sum(completion_tokens), sum(cost)
FROM ledger WHERE request_id IN {ids:Array(String)} GROUP BY provider, model ORDER BY provider, model
"""


def demo() -> None:
    """Publish example requests, show the replies, and what ClickHouse says they cost.

    Two of them ask the same, and are answered by one call. The last one is no valid request, to show what happens to
    such. Example:

      spillway up --detach && spillway demo
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.output import money, print_table  # noqa: PLC0415

    answers, cost = run(_demo(command_settings()))
    print_table(
        ("PROVIDER", "STATUS", "LATENCY", "COST", "ANSWER"),
        [
            (
                answer.provider or "–",
                "cached" if answer.cached else str(answer.status),
                f"{answer.latency * 1000:.0f} ms",
                money(answer.usage.cost),
                _text(answer),
            )
            for answer in answers
        ],
        right=("LATENCY", "COST"),
    )
    typer.echo("\nWhat the ledger in ClickHouse says of them:\n")
    print_table(
        ("PROVIDER", "MODEL", "ATTEMPTS", "TOKENS IN", "TOKENS OUT", "COST"),
        [(*map(str, row[:5]), money(row[5])) for row in cost],
        right=("ATTEMPTS", "TOKENS IN", "TOKENS OUT", "COST"),
    )


def _text(answer: Response) -> str:
    text = answer.error.message if answer.error else (answer.content or "")
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


async def _demo(settings: Settings) -> tuple[list[Response], list[Row]]:
    from app.cli.answers import AnswerReader  # noqa: PLC0415
    from app.cli.bulk import outgoing  # noqa: PLC0415
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.wire import consuming, producing  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from streams.topology import REQUESTS, RESPONSES  # noqa: PLC0415

    lines = (files("app.cli") / "demo.jsonl").read_bytes().splitlines()
    records = [outgoing(line) for line in lines]
    cluster = cluster_of(settings)
    found: list[Response] = []
    async with consuming(cluster, RESPONSES) as consumer, producing(cluster) as producer:
        reader = AnswerReader(consumer)
        await reader.start()
        typer.echo(f"Publishing {len(records)} requests to {REQUESTS}, and waiting for their replies.\n")
        for record in records:
            await producer.send_and_wait(REQUESTS, record.value, key=record.key, headers=list(record.headers))
        wanted = [record.request_id for record in records]
        missing = await reader.collect(wanted, patience=PATIENCE, on_answer=found.append)
    if missing:
        raise CommandError(f"{len(missing)} requests got no reply within {PATIENCE:.0f} s; is a worker running?")
    found.sort(key=lambda answer: wanted.index(answer.request_id))
    return found, await _cost(settings, found)


async def _cost(settings: Settings, answers: list[Response]) -> list[Row]:
    """What the ledger says, once every attempt is in it: the sink writes in batches."""
    from app.clickhouse.client import ClickHouse  # noqa: PLC0415

    attempts = sum(len(answer.attempts) for answer in answers)
    ids = [answer.request_id for answer in answers]
    until = asyncio.get_running_loop().time() + LEDGER_DEADLINE
    async with ClickHouse(settings) as database:
        while True:
            rows = (await database.query(COST, {"ids": ids})).rows
            if sum(row[2] for row in rows) >= attempts or asyncio.get_running_loop().time() > until:
                return rows
            await asyncio.sleep(POLL)
