"""`spillway reprice`: what history costs under the prices of today, and the correction of what was priced wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from app.clickhouse.reprice import Which
    from app.repricing import Line, Occasion, Tally
    from app.settings import Settings
    from schemas.usage import UsageEvent

#: Corrections on their way to Kafka at once.
IN_FLIGHT = 1_000
#: Seconds that the workers may take to bring the corrections into the ledger before the command stops waiting.
ARRIVAL = 60.0
_POLL = 0.5


def reprice(
    start: Annotated[str, typer.Option("--from", help="First day (UTC), or a moment: when the calls began.")],
    end: Annotated[str, typer.Option("--to", help="Until just before this day or moment.")],
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Only this workspace.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model, as the ledger names it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    reported: Annotated[
        bool, typer.Option("--reported", help="Also replace costs that the provider has reported itself.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "repriced with the current price book",
    by: Annotated[str | None, typer.Option(help="Who, for the history (the user of this machine).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Price the attempts of a period again, and correct those whose cost differs.

    A correction is a new record on ai.usage and a later version in the ledger; the table `corrections` keeps who, when,
    why, and both costs. Budgets keep what they have counted. Examples:

      spillway reprice --from 2026-11-01 --to 2026-12-01 --dry-run
      spillway reprice --from 2026-11-01 --to 2026-12-01 --model gpt-4o --reason "list price was wrong"
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.period import between, told  # noqa: PLC0415
    from app.clickhouse.reprice import Which  # noqa: PLC0415

    which = Which(between(start, end), workspace, provider, model)
    settings = command_settings()
    occasion = _occasion(by, reason)
    tally, arrived = run(_reprice(settings, which, occasion, reported=reported, dry_run=dry_run))
    if as_json:
        from app.cli.output import print_json  # noqa: PLC0415

        print_json(as_data(tally, occasion, dry_run=dry_run))
    else:
        _show(tally, told(which.period))
        _conclude(tally, occasion, dry_run=dry_run, arrived=arrived)
    if not dry_run and arrived < tally.total.changed:
        raise typer.Exit(1)


def _occasion(by: str | None, reason: str) -> Occasion:
    import getpass  # noqa: PLC0415
    import secrets  # noqa: PLC0415
    from datetime import UTC, datetime  # noqa: PLC0415

    from app.repricing import Occasion  # noqa: PLC0415

    now = datetime.now(UTC)
    if by is None:
        try:
            by = getpass.getuser()
        except (OSError, KeyError):
            by = "unknown"
    return Occasion(f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", now, by[:256], reason[:1_024])


async def _reprice(
    settings: Settings, which: Which, occasion: Occasion, *, reported: bool, dry_run: bool
) -> tuple[Tally, int]:
    """What the run comes to, and how many of its corrections the ledger has."""
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.clickhouse.client import ClickHouse  # noqa: PLC0415
    from app.clickhouse.migrate import pending  # noqa: PLC0415
    from app.clickhouse.reprice import TIMEOUT, priced_attempts  # noqa: PLC0415
    from app.prices import Prices  # noqa: PLC0415
    from app.repricing import Tally, reprice  # noqa: PLC0415
    from schemas.usage import UsageEvent  # noqa: PLC0415

    if await pending(settings):
        raise CommandError("The ledger is of an older version: run `spillway migrate` first.")
    tally, prices = Tally(), Prices(settings.price_overrides())
    async with ClickHouse(settings, timeout=TIMEOUT) as database:
        async with _publishing(settings, dry_run=dry_run) as publish:
            async for attempt in priced_attempts(database, which):
                verdict = reprice(attempt, prices, occasion, reported=reported)
                tally.add(attempt, verdict)
                if isinstance(verdict, UsageEvent):
                    await publish(verdict)
        return tally, 0 if dry_run else await _arrival(database, occasion.run, tally.total.changed)


def _publishing(settings: Settings, *, dry_run: bool) -> AbstractAsyncContextManager[Callable[[UsageEvent], Any]]:
    """Takes corrections; all of them are with the broker when the block ends. A dry run drops them."""
    import asyncio  # noqa: PLC0415
    from contextlib import asynccontextmanager  # noqa: PLC0415

    from app.cli.wire import producing  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from app.topics import build_topology  # noqa: PLC0415
    from schemas.codec import encode, event_headers  # noqa: PLC0415
    from streams.topology import USAGE  # noqa: PLC0415

    topology = build_topology(settings)

    @asynccontextmanager
    async def to_kafka() -> AsyncIterator[Callable[[UsageEvent], Any]]:
        async with producing(cluster_of(settings)) as producer:
            sent: list[Any] = []

            async def publish(usage: UsageEvent) -> None:
                at = usage.correction.at if usage.correction else usage.started_at
                workspace = usage.workspace_id
                headers = event_headers(
                    event_id=usage.event_id, event_type=usage.ce_type, workspace_id=workspace, time=at
                )
                home = topology.workspace_partition(workspace)
                sent.append(
                    await producer.send(
                        USAGE, encode(usage), key=workspace.encode(), partition=home, headers=list(headers)
                    )
                )
                if len(sent) >= IN_FLIGHT:
                    await asyncio.gather(*sent)
                    sent.clear()

            yield publish
            await asyncio.gather(*sent)

    @asynccontextmanager
    async def to_nobody() -> AsyncIterator[Callable[[UsageEvent], Any]]:
        async def publish(_: UsageEvent) -> None: ...

        yield publish

    return to_nobody() if dry_run else to_kafka()


async def _arrival(database: Any, run: str, wanted: int) -> int:
    """Wait until the workers have brought the corrections into the ledger, and say how many are there."""
    import asyncio  # noqa: PLC0415

    from app.clickhouse.reprice import arrived_corrections  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    deadline = loop.time() + ARRIVAL
    while True:
        arrived = await arrived_corrections(database, run) if wanted else 0
        if arrived >= wanted or loop.time() > deadline:
            return arrived
        await asyncio.sleep(_POLL)


def _show(tally: Tally, period: str) -> None:
    from app.cli.output import print_table, title  # noqa: PLC0415

    title(f"Attempts from {period}, priced again")
    if not tally.lines:
        return typer.echo("No attempts.")
    numbers = ("ATTEMPTS", "CHANGED", "OLD", "NEW", "DIFFERENCE")
    rows = [(provider, model, *_cells(line)) for (provider, model), line in sorted(tally.lines.items())]
    rows.append(("total", "", *_cells(tally.total)))
    print_table(("PROVIDER", "MODEL", *numbers), rows, right=numbers)
    for text in _left(tally):
        typer.echo(text)
    return None


def _cells(line: Line) -> tuple[str, ...]:
    difference = line.new - line.old
    return (
        f"{line.attempts:,}",
        f"{line.changed:,}",
        f"${line.old:,f}",
        f"${line.new:,f}",
        f"{'-' if difference < 0 else '+' if difference else ''}${abs(difference):,f}",
    )


def _left(tally: Tally) -> list[str]:
    """What was not priced again, and why."""
    from app.cli.output import count, money  # noqa: PLC0415
    from app.repricing import Left  # noqa: PLC0415

    told = {
        Left.REPORTED: "the provider has reported the cost itself; --reported replaces it",
        Left.NO_TOKENS: "in doubt, and nobody knows the tokens, so the estimate stays",
        Left.NO_PRICE: "no price is known; state one in AI_SETTINGS_FILE",
    }
    return [
        f"Left alone: {count(tally.left[why], 'attempt')} ({money(tally.left_cost[why])}): {text}."
        for why, text in told.items()
        if tally.left[why]
    ]


def _conclude(tally: Tally, occasion: Occasion, *, dry_run: bool, arrived: int) -> None:
    from app.cli.output import count, problem  # noqa: PLC0415

    changed = tally.total.changed
    if not changed:
        return typer.echo("Nothing to correct.")
    if dry_run:
        return typer.echo(f"{count(changed, 'attempt')} would be corrected; nothing was written.")
    if arrived < changed:
        return problem(
            f"{changed:,} corrections are on ai.usage, {arrived:,} of them in the ledger: the workers bring the rest. "
            "Do not run this again before `spillway audit` shows no usage that waits."
        )
    typer.echo(f"{count(changed, 'attempt')} corrected: run {occasion.run} in the table `corrections`.")
    return typer.echo(
        "Budgets keep what they have counted for these months; the ledger and its reports have the new cost."
    )


def as_data(tally: Tally, occasion: Occasion, *, dry_run: bool) -> dict[str, Any]:
    """The run for programs. Money is text, in US dollars."""
    return {
        "dry_run": dry_run,
        "run": None if dry_run else occasion.run,
        "total": _line(tally.total),
        "lines": [
            {"provider": provider, "model": model, **_line(line)}
            for (provider, model), line in sorted(tally.lines.items())
        ],
        "left": {why.value: {"attempts": n, "cost": f"{tally.left_cost[why]:f}"} for why, n in tally.left.items()},
    }


def _line(line: Line) -> dict[str, Any]:
    money = {"old": line.old, "new": line.new, "difference": line.new - line.old}
    return {"attempts": line.attempts, "changed": line.changed, **{name: f"{cost:f}" for name, cost in money.items()}}
