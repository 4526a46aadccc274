"""`spillway audit`: whether requests, responses, usage, ledger and budgets of a period agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.audit.findings import Example, Figures, Kind
    from app.audit.run import Asked, Report
    from app.settings import Settings

#: Exit statuses.
FOUND, NOT_CHECKED = 1, 2
#: Examples of each kind that a person is shown.
SHOWN = 3


def audit(
    start: Annotated[str | None, typer.Option("--from", help="First day (UTC), or a moment.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until just before this day or moment (now).")] = None,
    month: Annotated[str | None, typer.Option(help="YYYY-MM, in UTC, instead of --from and --to.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Only this workspace.")] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that a record may be on its way before it counts as missing.")
    ] = 60.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 where retention left gaps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare requests, responses, usage, ledger and budgets, and say what is missing, doubled or in doubt.

    Without a period: the last 24 hours. It only reads. Exit status: 0 all agree, 1 findings, 2 could not check.
    Examples:

      spillway audit
      spillway audit --month 2026-11 --workspace acme
      spillway audit --from 2026-11-24 --to 2026-11-25 --json
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - start-up time of the other commands

    from app.audit.run import Asked  # noqa: PLC0415
    from app.cli.period import chosen  # noqa: PLC0415

    report = _report(Asked(chosen(start, end, month, datetime.now(UTC)), workspace, patience))
    if as_json:
        from app.cli.output import print_json  # noqa: PLC0415

        print_json(as_data(report))
    else:
        _show(report)
    if not report.verdict.findings.clean:
        raise typer.Exit(FOUND)
    if strict and report.gaps:
        raise typer.Exit(NOT_CHECKED)


def _report(asked: Asked) -> Report:
    from app.audit.run import AuditError, audit  # noqa: PLC0415
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.errors import is_expected  # noqa: PLC0415
    from app.cli.output import problem  # noqa: PLC0415

    try:
        settings: Settings = command_settings()
        return run(audit(settings, asked))
    except Exception as error:
        if not (isinstance(error, AuditError) or is_expected(error)):
            raise
        for line in str(error).splitlines():
            problem(f"Could not check: {line}")
        raise typer.Exit(NOT_CHECKED) from None


# For people ----------------------------------------------------------------------------------------------------------


def _show(report: Report) -> None:
    from app.cli.output import count, problem, title  # noqa: PLC0415
    from app.cli.period import told  # noqa: PLC0415

    findings = report.verdict.findings
    title(f"Audit of {report.asked.workspace or 'all workspaces'}, {told(report.asked.period)}")
    _table(report.verdict.figures)
    for line in _remarks(report):
        typer.echo(line)
    typer.echo()
    if findings.clean:
        return typer.echo("All that could be compared agrees.")
    for kind, number in findings.counts.items():
        _finding(kind, number, findings.amounts[kind], findings.examples[kind])
    return problem(f"{count(sum(findings.counts.values()), 'finding')}.")


def _table(figures: Figures) -> None:
    from app.audit.facts import dollars  # noqa: PLC0415
    from app.cli.output import money, print_table  # noqa: PLC0415

    counts, costs = figures.counts, figures.costs

    def told(*parts: tuple[str, str]) -> str:
        return ", ".join(f"{counts[name]:,} {text}" for name, text in parts if counts[name])

    statuses = ("succeeded", "failed", "rejected", "expired")
    lines = (
        ("requests", told(("requests_open", "still open"), ("sent_on", "sent on"), ("repeats_dropped", "repeated"))),
        ("responses", told(*((f"responses_{name}", name) for name in statuses), ("responses_again", "redelivered"))),
        ("outcomes", told(("responses_waiting", "on their way"))),
        (
            "usage",
            told(
                ("usage_waiting", "on their way"),
                ("usage_again", "redelivered"),
                ("doubts_resolved", "no longer in doubt"),
            ),
        ),
        ("rows", told(("in_doubt", "in doubt"), ("corrected", "corrected"), ("rows_too_new", "newer than ai.usage"))),
        ("budgets", told(("budgets_moving", "still moving"), ("months_without_state", "months without a state"))),
    )
    cost = {"rows": money(dollars(costs["rows"]))}
    names = {"usage": "attempts on ai.usage", "rows": "attempts in the ledger", "outcomes": "rows of outcomes"}
    print_table(
        ("WHAT", "COUNT", "COST", "OF THESE"),
        [(names.get(name, name), f"{counts[name]:,}", cost.get(name, ""), text) for name, text in lines],
        right=("COUNT", "COST"),
    )


def _remarks(report: Report) -> list[str]:
    """What is no fault, and good to know."""
    from app.audit.facts import dollars  # noqa: PLC0415
    from app.cli.output import count, money  # noqa: PLC0415

    figures, said = report.verdict.figures, []
    if number := figures.counts["in_doubt"]:
        amount = money(dollars(figures.costs["in_doubt"]))
        said.append(f"In doubt: {count(number, 'attempt')} at an estimated {amount}, which may have been billed.")
    if number := figures.counts["told_in_doubt"]:
        said.append(
            f"Answered in doubt: {count(number, 'attempt')} turned out to cost something else than the response says."
        )
    if figures.counts["corrected"]:
        change = figures.costs["corrected"]
        amount = f"{'-' if change < 0 else '+'}{money(abs(dollars(change)))}"
        said.append(f"Corrections have changed the cost by {amount}; budgets have counted what it was before.")
    if report.unreadable:
        said.append(f"Unreadable: {count(report.unreadable, 'record')} on ai.responses or ai.usage.")
    for topic, since in report.held_since.items():
        if report.gaps:
            said.append(f"{topic} holds all of its records only since {since:%Y-%m-%d %H:%M}Z; the rest is gone.")
    said += [
        f"Not compared: {count(figures.counts[name], noun)} from before that."
        for name, noun in (
            ("requests_not_compared", "request"),
            ("outcomes_not_compared", "row of outcomes"),
            ("rows_not_compared", "ledger row"),
        )
        if figures.counts[name]
    ]
    if not report.has_budgets:
        said.append("Budgets: ai.budget.state says nothing of these months, so they are not compared.")
    return said


def _finding(kind: Kind, number: int, amount: int, examples: list[Example]) -> None:
    from app.audit.facts import dollars  # noqa: PLC0415
    from app.audit.findings import SAYS  # noqa: PLC0415
    from app.cli.output import money, title  # noqa: PLC0415

    what, advice = SAYS[kind]
    worth = f" ({'-' if amount < 0 else ''}{money(abs(dollars(amount)))})" if amount else ""
    title(f"{what}: {number:,}{worth}")
    for example in examples[:SHOWN]:
        typer.echo(f"  {example.name}{f'  {example.detail}' if example.detail else ''}")
    if number > SHOWN:
        typer.echo(f"  … and {number - min(len(examples), SHOWN):,} more (--json has up to {len(examples)})")
    typer.echo(f"  To do: {advice}.")


# For programs --------------------------------------------------------------------------------------------------------


def as_data(report: Report) -> dict[str, Any]:
    """The report for programs. Money is text, in US dollars."""
    from app.audit.facts import dollars  # noqa: PLC0415
    from app.audit.findings import SAYS  # noqa: PLC0415

    verdict, period = report.verdict, report.asked.period

    def money(amount: int) -> str:
        return f"{dollars(amount):f}"

    return {
        "clean": verdict.findings.clean,
        "complete": not report.gaps,
        "from": period.start.isoformat(),
        "to": period.end.isoformat(),
        "workspace": report.asked.workspace,
        "counts": dict(verdict.figures.counts),
        "costs": {name: money(cost) for name, cost in verdict.figures.costs.items() if cost},
        "ledger_cost": money(verdict.figures.costs["rows"]),
        "records_read": report.records,
        "unreadable": report.unreadable,
        "held_since": {topic: since.isoformat() for topic, since in report.held_since.items()},
        "budgets_compared": report.has_budgets,
        "findings": [
            {
                "kind": kind.value,
                "count": number,
                "what": SAYS[kind][0],
                "to_do": SAYS[kind][1],
                "amount": money(verdict.findings.amounts[kind]),
                "examples": [
                    {
                        "name": example.name,
                        "detail": example.detail,
                        "amount": None if example.amount is None else money(example.amount),
                    }
                    for example in verdict.findings.examples[kind]
                ],
            }
            for kind, number in verdict.findings.counts.items()
        ],
    }
