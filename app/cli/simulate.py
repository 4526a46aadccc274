"""`spillway simulate`: what another budget, limit or model would have changed in the past, without calling anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.clickhouse.period import Period
    from app.settings import Settings
    from app.simulate.findings import Finding, Waits
    from app.simulate.history import History, Past
    from app.simulate.proposal import Proposal

#: Workspaces that the table shows; JSON has all.
SHOWN = 20


def simulate(
    start: Annotated[str | None, typer.Option("--from", help="First day (UTC), or a moment: when calls began.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until just before this day or moment.")] = None,
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="What counts in this month's budgets.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Only this workspace.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="A month's budget, like acme=50 or acme=50:refuse.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="Limits, like claude:rpm=20,tpm=40000.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Another model, like gpt-4o=gpt-4o-mini or gpt-4*=claude/claude-haiku-4-5.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that a request may wait (AI_DEFAULT_DEADLINE).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the ledger's requests through a proposal: what would have changed in cost, refusals and waits.

    Nobody is called and nothing is written. Options may be repeated. Without a proposal it shows the past as it was.
    Examples:

      spillway simulate --month 2026-11 --budget acme=50:refuse
      spillway simulate --from 2026-11-01 --to 2026-11-08 --limit claude:rpm=20 --model gpt-4o=gpt-4o-mini
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - start-up time of the other commands

    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.output import print_json  # noqa: PLC0415
    from app.cli.period import chosen, told  # noqa: PLC0415

    period = chosen(start, end, month, datetime.now(UTC))
    settings = command_settings()
    proposal = _proposal(settings, budget or [], limit or [], model or [])
    history = run(_history(settings, period, workspace, month))
    patience = deadline or settings.default_deadline
    total, parts = _run(settings, proposal, history, patience)
    assumed = assumptions(proposal, history, patience)
    if as_json:
        return print_json(as_data(total, parts, proposal, assumed))
    return _show(total, parts, proposal, assumed, month or told(period))


def _proposal(settings: Settings, budgets: list[str], limits: list[str], models: list[str]) -> Proposal:
    from app.cli.limits import shards_of  # noqa: PLC0415
    from app.simulate import proposal as read  # noqa: PLC0415

    known, option = settings.quota_limits(), "--budget"
    shards = {target: shards_of(settings, target) for target in known}
    try:
        new_budgets = dict(read.budget(text, settings.default_budget()) for text in budgets)
        option = "--limit"
        new_limits = dict(read.limit(text, known, shards) for text in limits)
        option = "--model"
        new_models = dict(read.model(text, settings.known_providers()) for text in models)
    except read.ProposalError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None
    return read.Proposal(new_budgets, new_limits, new_models)


async def _history(settings: Settings, period: Period, workspace: str | None, month: str | None) -> History:
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.clickhouse.client import ClickHouse  # noqa: PLC0415
    from app.clickhouse.migrate import pending  # noqa: PLC0415
    from app.clickhouse.reprice import TIMEOUT  # noqa: PLC0415
    from app.simulate.history import read_history  # noqa: PLC0415

    if await pending(settings):
        raise CommandError("The ledger is of an older version: run `spillway migrate` first.")
    async with ClickHouse(settings, timeout=TIMEOUT) as database:
        return await read_history(database, period, workspace=workspace, month=month)


def _run(
    settings: Settings, proposal: Proposal, history: History, patience: float
) -> tuple[Finding, Sequence[Finding]]:
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.simulate.findings import by_workspace, finding  # noqa: PLC0415
    from app.simulate.lanes import LaneRules  # noqa: PLC0415
    from app.simulate.pricing import PriceUnknownError  # noqa: PLC0415
    from app.simulate.run import Simulation  # noqa: PLC0415
    from app.topics import build_topology  # noqa: PLC0415

    rules = LaneRules(
        build_topology(settings),
        proposal.limits,
        concurrency=settings.max_in_flight,
        look_ahead=settings.look_ahead,
        weights=settings.workspace_weights(),
    )
    try:
        would = _priced(settings, proposal, history)
    except PriceUnknownError as error:
        raise CommandError(str(error)) from None
    fates = Simulation(proposal, rules, history, patience).run(would)
    return finding("total", history.requests, fates), by_workspace(history.requests, fates)


def _priced(settings: Settings, proposal: Proposal, history: History) -> Sequence[Past]:
    from app.prices import Prices  # noqa: PLC0415
    from app.simulate.pricing import under  # noqa: PLC0415

    if not proposal.models:
        return history.requests
    prices = Prices(settings.price_overrides())
    return [under(proposal, past, prices) for past in history.requests]


def assumptions(proposal: Proposal, history: History, patience: float) -> list[str]:
    """What the figures take for granted, as far as it matters for a proposal."""
    from app.cli.output import count  # noqa: PLC0415

    found = []
    if refused := sum(history.refused.values()):
        found.append(
            f"Not in it: {count(refused, 'request')} that a budget refused then; what they would use is not known."
        )
    if proposal.budgets:
        found.append("A request reserves what it has cost; the real reservation is higher, and may refuse earlier.")
        found.append("Budgets that are not proposed refuse nobody here. Answers from the cache cost nothing, as then.")
    if proposal.limits:
        found.append(
            f"Lanes are empty at the beginning; calls take as long, and as many tokens, as then; after {patience:g} s "
            "without its turn a request expires, and none is passed on to another provider."
        )
        found.append("Limits that are not proposed are as they were: the waits there are those of the past.")
    if proposal.models:
        found.append("Another model uses as many tokens, takes as long, and succeeds as often.")
    return found


def as_data(total: Finding, parts: Sequence[Finding], proposal: Proposal, assumed: Sequence[str]) -> dict[str, Any]:
    """The result for programs. Money is text, in US dollars; waits are in seconds."""
    from app.simulate.proposal import told  # noqa: PLC0415

    return {
        "proposal": told(proposal),
        "total": _values(total),
        "workspaces": [{"workspace_id": part.name, **_values(part)} for part in parts],
        "assumptions": list(assumed),
    }


def _values(found: Finding) -> dict[str, Any]:
    first = found.first_refused
    return {
        "requests": found.requests,
        "then": {"cost": f"{found.then:f}", "attempts": found.attempts, "wait": _waits(found.waits_then)},
        "simulated": {
            "cost": f"{found.cost:f}",
            "attempts": found.attempts_made,
            "refused": found.refused,
            "first_refused": first.isoformat() if first else None,
            "expired": found.expired,
            "wait": _waits(found.waits),
        },
        "difference": f"{found.difference:f}",
    }


def _waits(found: Waits) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value, 3)
        for name, value in (("p50", found.p50), ("p95", found.p95), ("longest", found.longest))
    }


def _show(total: Finding, parts: Sequence[Finding], proposal: Proposal, assumed: Sequence[str], when: str) -> None:
    from app.cli.output import print_table, remark, title  # noqa: PLC0415
    from app.simulate.proposal import told  # noqa: PLC0415

    title(f"Requests of {when}, as they were and as they would have been")
    for line in told(proposal) or ["nothing is proposed"]:
        typer.echo(f"- {line}")
    if not total.requests:
        return typer.echo("No requests.")
    typer.echo()
    numbers = (
        "REQUESTS",
        "COST THEN",
        "COST",
        "DIFFERENCE",
        "REFUSED",
        "EXPIRED",
        "P50 THEN",
        "P50",
        "P95 THEN",
        "P95",
    )
    print_table(
        ("WORKSPACE", *numbers, "FIRST REFUSED"), [_cells(each) for each in (*parts[:SHOWN], total)], right=numbers
    )
    typer.echo("Waits are from the request to its first call.")
    if len(parts) > SHOWN:
        remark(f"{len(parts) - SHOWN:,} more workspaces are in --json.")
    for line in assumed:
        remark(line)
    return None


def _cells(found: Finding) -> tuple[str, ...]:
    from app.cli.output import seconds  # noqa: PLC0415

    sign = "-" if found.difference < 0 else "+" if found.difference else ""
    return (
        found.name,
        f"{found.requests:,}",
        f"${found.then:,f}",
        f"${found.cost:,f}",
        f"{sign}${abs(found.difference):,f}",
        f"{found.refused:,}",
        f"{found.expired:,}",
        *(seconds(each) for each in (found.waits_then.p50, found.waits.p50, found.waits_then.p95, found.waits.p95)),
        f"{found.first_refused:%Y-%m-%d %H:%M}Z" if found.first_refused else "–",
    )
