"""`spillway report`: what a workspace, or each of them, used in a month, and what it could save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from app.clickhouse.advice import Advice
    from app.clickhouse.overview import WorkspaceLine
    from app.clickhouse.report import UsageLine, UsageReport

#: Lines of one part that a table shows; JSON and CSV have all.
SHOWN = 15

_ORDER = ("provider", "model", "purpose", "user", "day", "total")


def report(
    workspace: Annotated[str | None, typer.Argument(help="The workspace; without one, a line for each.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All workspaces, one line each.")] = False,
    month: Annotated[
        str | None, typer.Option(help="YYYY-MM, as its budget counts it (this month in UTC, unless given).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a line for each part.")] = False,
) -> None:
    """Show the requests, tokens, cost, savings, errors and latencies of a month.

    With a workspace: by provider, model, purpose, user and day, with a forecast and what could be saved. Examples:

      spillway report team-search
      spillway report team-search --month 2026-11 --csv > november.csv
      spillway report --all --json
    """
    if as_json and as_csv:
        raise typer.BadParameter("Give one of --json and --csv.")
    if every and workspace is not None:
        raise typer.BadParameter("Give a workspace or --all, not both.")
    period = _month(month)
    if workspace is None:
        return _report_all(period, as_json=as_json, as_csv=as_csv)
    return _report_one(workspace, period, as_json=as_json, as_csv=as_csv)


def _month(text: str | None) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - start-up time of the other commands

    from app.clickhouse.months import checked, month_of  # noqa: PLC0415

    if text is None:
        return month_of(datetime.now(UTC))
    try:
        return checked(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--month") from None


# One workspace -----------------------------------------------------------------------------------------------------


def _report_one(workspace: str, month: str, *, as_json: bool, as_csv: bool) -> None:
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.output import print_json  # noqa: PLC0415
    from app.clickhouse.report import usage_report  # noqa: PLC0415
    from app.prices import Prices  # noqa: PLC0415

    settings = command_settings()
    found = run(usage_report(settings, workspace, month, prices=Prices(settings.price_overrides())))
    if as_json:
        return print_json(found.model_dump(mode="json"))
    if as_csv:
        lines = dict(found.parts())
        return _print_csv(
            ("workspace_id", "month", "dimension"),
            [((workspace, month, name), line) for name in _ORDER for line in lines[name]],  # type: ignore[index]
        )
    return _show(found)


def _show(found: UsageReport) -> None:
    from app.cli.output import money, problem, title  # noqa: PLC0415

    title(f"{found.workspace_id} in {found.month}")
    if not (found.total.attempts or found.total.answers):
        return typer.echo("No usage.")
    for heading, lines in (
        ("PROVIDER", found.by_provider),
        ("MODEL", found.by_model),
        ("PURPOSE", found.by_purpose),
        ("USER", found.by_user),
        ("DAY", found.by_day),
    ):
        typer.echo()
        _table(heading, lines, found.total)
    typer.echo()
    if found.forecast is not None and found.forecast != found.total.cost:
        typer.echo(f"At the pace so far the month will cost {money(found.forecast)}.")
    if found.total.estimated_cost:
        typer.echo(f"{money(found.total.estimated_cost)} of the cost is estimated, not confirmed by a provider.")
    if found.total.unpriced_attempts:
        problem(f"{found.total.unpriced_attempts:,} attempts used a model whose price is not known.")
    return _show_advice(found.recommendations)


def _table(heading: str, lines: Sequence[UsageLine], total: UsageLine) -> None:
    from app.cli.output import money, print_table, remark, seconds  # noqa: PLC0415

    numbers = ("REQUESTS", "ATTEMPTS", "FAILED", "IN DOUBT", "TOKENS", "COST", "CACHED", "SAVED", "P50", "P95", "P99")
    # Of days the last ones, of all else the dearest.
    shown = lines[-SHOWN:] if heading == "DAY" else lines[:SHOWN]
    print_table(
        (heading, *numbers),
        [
            (
                "total" if line is total else line.name or "(none)",
                f"{line.requests:,}",
                f"{line.attempts:,}",
                f"{line.error_rate:.1%}",
                f"{line.in_doubt_attempts:,}",
                f"{line.total_tokens:,}",
                money(line.cost),
                f"{line.cached_answers:,}",
                money(line.saved),
                seconds(line.latency_p50),
                seconds(line.latency_p95),
                seconds(line.latency_p99),
            )
            for line in (*shown, total)
        ],
        right=numbers,
    )
    if len(lines) > SHOWN:
        remark(f"{len(lines) - SHOWN:,} more are in --json and --csv.")


def _show_advice(recommendations: Sequence[Advice]) -> None:
    from app.cli.output import money, title  # noqa: PLC0415

    if not recommendations:
        return
    typer.echo()
    title("What could be saved in this month")
    for advice in recommendations:
        most = "at most " if advice.at_most else ""
        typer.echo(f"- {most}{money(advice.saves)}: {advice.text}")
        typer.echo(f"  ({advice.assumption})")
    typer.echo("Each on its own: together they save less than their sum.")


# All workspaces ----------------------------------------------------------------------------------------------------


def _report_all(month: str, *, as_json: bool, as_csv: bool) -> None:
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.output import print_json, title  # noqa: PLC0415
    from app.clickhouse.overview import overview  # noqa: PLC0415

    found = run(overview(command_settings(), month))
    if as_json:
        return print_json([line.model_dump(mode="json") for line in found])
    if as_csv:
        return _print_csv(("month",), [((month,), line) for line in found])
    title(f"All workspaces in {month}")
    if not found:
        return typer.echo("No usage.")
    return _show_all(found)


def _show_all(found: Sequence[WorkspaceLine]) -> None:
    from app.cli.output import money, print_table  # noqa: PLC0415

    numbers = ("REQUESTS", "FROM CACHE", "ATTEMPTS", "FAILED", "TOKENS", "COST", "FORECAST", "SAVED")
    print_table(
        ("WORKSPACE", *numbers),
        [
            (
                line.workspace_id,
                f"{line.requests:,}",
                f"{line.cached:,}",
                f"{line.attempts:,}",
                f"{line.error_rate:.1%}",
                f"{line.total_tokens:,}",
                money(line.cost),
                "–" if line.forecast is None else money(line.forecast),
                money(line.saved),
            )
            for line in found
        ],
        right=numbers,
    )


def _print_csv(names: Sequence[str], lines: Sequence[tuple[Sequence[str], BaseModel]]) -> None:
    """One line each, with the columns' names first. Nothing is printed where there is nothing."""
    import csv  # noqa: PLC0415
    import io  # noqa: PLC0415

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, (values, line) in enumerate(lines):
        fields: dict[str, Any] = line.model_dump(mode="json")
        if not number:
            writer.writerow([*names, *fields])
        writer.writerow([*values, *("" if value is None else value for value in fields.values())])
    typer.echo(text.getvalue(), nl=False)
