"""`spillway replay`: past requests published again, without paying again for what was answered unless told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from app.clickhouse.client import ClickHouse
    from app.clickhouse.period import Period
    from app.replay.choose import Again, Chooser, Stored, Wanted
    from app.settings import Settings

#: Requests that the dry run names.
SHOWN = 20

_WHY = {
    "unreadable": "no requests, and would be refused again",
    "repeated": "repeats of an id, or of an earlier replay with this suffix",
    "succeeded": "answered with success; --again asks, and pays, once more",
    "known": "younger than AI_DEDUP_WINDOW: admission knows the id and would drop it; --again gives new ids",
    "too_late": "past the deadline that they name themselves",
    "id_too_long": "whose id has no room for the suffix",
}


def replay(
    start: Annotated[str, typer.Option("--from", help="First day (UTC), or a moment: when they were published.")],
    end: Annotated[str, typer.Option("--to", help="Until just before this day or moment.")],
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Only those that fit, like workspace_id=acme, model=gpt-*, status=failed."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Give them new ids: they are answered, and paid for, once more.")
    ] = False,
    suffix: Annotated[str | None, typer.Option(help="With --again: what is put behind their ids.")] = None,
    send: Annotated[bool, typer.Option("--send", help="Publish them. Without it only the plan is shown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Publish past requests of ai.requests again, byte for byte.

    Under their own ids nothing that has succeeded is sent. With --again each has a new id, and is asked, and paid for,
    once more. Answers go to ai.responses and to the reply topics that the requests name. Examples:

      spillway replay --from 2026-11-01 --to 2026-11-08 --filter status=failed
      spillway replay --from 2026-11-01 --to 2026-11-08 --filter workspace_id=acme --again --suffix .redo --send
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - start-up time of the other commands

    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.output import print_json  # noqa: PLC0415
    from app.cli.period import between  # noqa: PLC0415
    from app.replay.choose import Wanted  # noqa: PLC0415

    if suffix is not None and not again:
        raise typer.BadParameter("A suffix is for new ids; give --again as well.", param_hint="--suffix")
    period, now = between(start, end), datetime.now(UTC)
    settings = command_settings()
    wanted = Wanted(
        now=now.timestamp(),
        window=settings.dedup_window,
        filters=_filters(filters or []),
        suffix=(suffix or f".replay-{now:%Y%m%dT%H%M%S}") if again else None,
    )
    chosen, skipped = run(_replay(settings, period, wanted, send=send))
    if as_json:
        return print_json(as_data(chosen, skipped, wanted, send=send))
    return _show(chosen, skipped, send=send)


def _filters(texts: Sequence[str]) -> dict[str, str]:
    from app.replay.choose import FIELDS, STATUS  # noqa: PLC0415

    found = {}
    for text in texts:
        name, given, pattern = text.partition("=")
        if not given or name not in (*FIELDS, STATUS):
            known = ", ".join((*FIELDS, STATUS))
            raise typer.BadParameter(
                f"{text!r} is no filter: a field ({known}), = and a pattern.", param_hint="--filter"
            )
        found[name] = pattern
    return found


async def _replay(
    settings: Settings, period: Period, wanted: Wanted, *, send: bool
) -> tuple[list[Again], dict[str, int]]:
    """What is chosen, and how many are skipped, by the reason. All is chosen before the first is sent: a replay never
    reads what it has written.
    """
    from collections import Counter  # noqa: PLC0415

    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.clickhouse.client import ClickHouse  # noqa: PLC0415
    from app.clickhouse.reprice import TIMEOUT  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from app.replay.choose import Again, Chooser  # noqa: PLC0415
    from app.replay.source import behind, stored_requests  # noqa: PLC0415

    if wanted.suffix is None:
        left = await behind(cluster_of(settings), settings.kafka_application_id, wanted.now - wanted.window)
        if left:
            # What has succeeded would be sent, and paid for, once more: neither admission nor the ledger knows it.
            raise CommandError(
                f"{left:,} responses and usage records that are older than AI_DEDUP_WINDOW are not in the ledger yet: "
                "nobody knows what has succeeded. Let the workers write them first (`spillway audit`)."
            )

    chooser = Chooser(wanted, settings.max_request_bytes)
    chosen: list[Again] = []
    skipped: Counter[str] = Counter()
    async with ClickHouse(settings, timeout=TIMEOUT) as database:
        async for batch in _batches(stored_requests(cluster_of(settings), period)):
            for verdict in await _verdicts(database, chooser, batch, period):
                if isinstance(verdict, Again):
                    chosen.append(verdict)
                elif verdict is not None:
                    skipped[str(verdict)] += 1
    if send and chosen:
        await _send(settings, chosen)
    return chosen, dict(skipped)


async def _batches(records: AsyncIterator[Stored]) -> AsyncIterator[list[Stored]]:
    from app.replay.source import ROUND  # noqa: PLC0415

    batch: list[Stored] = []
    async for record in records:
        batch.append(record)
        if len(batch) >= ROUND:
            yield batch
            batch = []
    yield batch


async def _verdicts(database: ClickHouse, chooser: Chooser, batch: Sequence[Stored], period: Period) -> list[Any]:
    from app.replay.source import statuses  # noqa: PLC0415

    parsed = [(stored, chooser.read(stored)) for stored in batch]
    keys = {(each.envelope.workspace_id, each.envelope.request_id) for _, each in parsed if each}
    known = await statuses(database, keys, period.start)
    return [
        chooser.choose(
            stored, each, known.get((each.envelope.workspace_id, each.envelope.request_id)) if each else None
        )
        for stored, each in parsed
    ]


async def _send(settings: Settings, chosen: Sequence[Again]) -> None:
    import asyncio  # noqa: PLC0415

    from app.cli.wire import producing  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from streams.topology import REQUESTS  # noqa: PLC0415

    async with producing(cluster_of(settings)) as producer:
        for first in range(0, len(chosen), 1_000):
            sent = [
                await producer.send(
                    REQUESTS,
                    each.value,
                    key=each.stored.key,
                    partition=each.stored.partition,
                    headers=list(each.headers),
                )
                for each in chosen[first : first + 1_000]
            ]
            await asyncio.gather(*sent)


def as_data(chosen: Sequence[Again], skipped: dict[str, int], wanted: Wanted, *, send: bool) -> dict[str, Any]:
    """The replay for programs."""
    return {
        "sent": send,
        "suffix": wanted.suffix,
        "requests": [{"workspace_id": each.workspace, "request_id": each.request_id} for each in chosen],
        "skipped": skipped,
    }


def _show(chosen: Sequence[Again], skipped: dict[str, int], *, send: bool) -> None:
    from app.cli.output import count, print_table, remark  # noqa: PLC0415

    if chosen:
        print_table(("WORKSPACE", "REQUEST"), [(each.workspace, each.request_id) for each in chosen[:SHOWN]])
    if len(chosen) > SHOWN:
        remark(f"{len(chosen) - SHOWN:,} more are in --json.")
    for why, number in sorted(skipped.items()):
        typer.echo(f"Not sent: {count(number, 'record')}, {_WHY[why]}.")
    if send:
        return typer.echo(f"{count(len(chosen), 'request')} published again.")
    return typer.echo(f"{count(len(chosen), 'request')} would be published again; --send does it.")
