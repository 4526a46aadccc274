"""`spillway report`: what a workspace used in a month."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.clickhouse.report import Period, UsageLine, UsageReport


def report(
    workspace: Annotated[str, typer.Argument(help="The workspace.")],
    month: Annotated[str | None, typer.Option(help="YYYY-MM, in UTC (this month, unless given).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a workspace's requests, tokens, cost, errors and latencies of a month.

    Examples:

      spillway report team-search
      spillway report team-search --month 2026-11 --json
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.clickhouse.report import usage_report  # noqa: PLC0415

    period = _period(month)
    found = run(usage_report(command_settings(), workspace, period))
    if as_json:
        from app.cli.output import print_json  # noqa: PLC0415

        return print_json(found.model_dump(mode="json"))
    return _show(found, period)


def _period(month: str | None) -> Period:
    from datetime import UTC, datetime  # noqa: PLC0415

    from app.clickhouse.report import Period  # noqa: PLC0415

    if month is None:
        return Period.month_of(datetime.now(UTC))
    try:
        return Period.month(month)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--month") from None


def _show(found: UsageReport, period: Period) -> None:
    from app.cli.output import money, problem, title  # noqa: PLC0415

    title(f"{found.workspace_id} in {period.name}")
    if not found.total.attempts:
        return typer.echo("No usage.")
    for heading, lines in (
        ("PROVIDER", found.by_provider),
        ("MODEL", found.by_model),
        ("PURPOSE", found.by_purpose),
    ):
        typer.echo()
        _table(heading, [*lines, found.total])
    typer.echo()
    if found.total.estimated_cost:
        typer.echo(f"{money(found.total.estimated_cost)} of the cost is estimated, not confirmed by a provider.")
    if found.total.unpriced_attempts:
        problem(f"{found.total.unpriced_attempts:,} attempts used a model whose price is not known.")
    return None


def _table(title: str, lines: Sequence[UsageLine]) -> None:
    from app.cli.output import money, print_table, seconds  # noqa: PLC0415

    total = lines[-1]
    names = ("REQUESTS", "ATTEMPTS", "FAILED", "IN DOUBT", "TOKENS", "COST", "P50", "P95")
    print_table(
        (title, *names),
        [
            (
                "total" if line is total else line.name or "(none)",
                f"{line.requests:,}",
                f"{line.attempts:,}",
                f"{line.error_rate:.1%}",
                f"{line.in_doubt_attempts:,}",
                f"{line.total_tokens:,}",
                money(line.cost),
                seconds(line.latency_p50),
                seconds(line.latency_p95),
            )
            for line in lines
        ],
        right=names,
    )
