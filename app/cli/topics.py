"""`spillway topics`: create what is missing, show what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import CommandError

if TYPE_CHECKING:
    from app.topics import TopicsReport


def topics(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 when something is missing or differs.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Also put settings right that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create the topics that are missing, and show how all of them stand.

    A different number of partitions cannot be fixed, and is an error. Examples:

      spillway topics
      spillway topics --check --json
      spillway topics --fix
    """
    if check and fix:
        raise typer.BadParameter("--check changes nothing, --fix does; give one of them.")
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.topics import TopicsError, ensure_topics, inspect_topics  # noqa: PLC0415

    settings = command_settings()
    try:
        report = run(inspect_topics(settings) if check else ensure_topics(settings, fix=fix))
    except TopicsError as error:
        _show(error.report, as_json=as_json)
        raise CommandError(str(error)) from None
    _show(report, as_json=as_json)
    if check and not report.ok:
        raise typer.Exit(1)


def _show(report: TopicsReport, *, as_json: bool) -> None:
    from app.cli.output import print_json, print_table  # noqa: PLC0415

    if as_json:
        return print_json(as_data(report))
    return print_table(
        ("TOPIC", "STATE", "PARTITIONS", "FOR", "WHAT"),
        [
            (
                topic.spec.name,
                topic.state,
                str(topic.spec.partitions),
                topic.spec.audience,
                "; ".join(map(str, topic.differences)) or topic.spec.purpose,
            )
            for topic in report.topics
        ],
        right=("PARTITIONS",),
    )


def as_data(report: TopicsReport) -> dict[str, Any]:
    """The report for programs."""
    return {
        "ok": report.ok,
        "topics": [
            {
                "name": topic.spec.name,
                "state": topic.state,
                "partitions": topic.spec.partitions,
                "audience": topic.spec.audience,
                "purpose": topic.spec.purpose,
                "config": topic.spec.config(),
                "differences": [
                    {
                        "name": difference.name,
                        "expected": difference.expected,
                        "actual": difference.actual,
                        "fixable": difference.fixable,
                    }
                    for difference in topic.differences
                ],
            }
            for topic in report.topics
        ],
    }
