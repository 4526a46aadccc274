"""What waits in each topic, and how near it is to being deleted unread: a part of `spillway status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.ops.ages import Age

#: Seconds that the look may take: the command has more to say.
PATIENCE = 15.0
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def look(folder: Path) -> list[Age] | str | None:
    """The backlogs, the most urgent first; or why nobody knows, in a sentence. None where there is nobody to ask: no
    stack runs in the folder, and the environment names no Kafka.
    """
    import asyncio  # noqa: PLC0415 - start-up time of the other commands
    import os  # noqa: PLC0415

    from app.cli.context import run, stack_settings  # noqa: PLC0415
    from app.cli.errors import is_expected  # noqa: PLC0415
    from app.devstack import connection_environment  # noqa: PLC0415
    from app.ops.ages import backlog_ages  # noqa: PLC0415
    from app.settings import load_settings  # noqa: PLC0415

    stack = connection_environment(folder) if folder.exists() else None
    if stack is None and "AI_KAFKA_BOOTSTRAP_SERVERS" not in os.environ:
        return None
    try:
        settings = load_settings(**stack_settings(stack or {}, os.environ))
        return run(asyncio.wait_for(backlog_ages(settings), PATIENCE))
    except TimeoutError:
        return f"Kafka did not answer within {PATIENCE:g} seconds."
    except Exception as error:
        if not is_expected(error):
            raise
        return str(error)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `5.5 h`, `3.2 d`."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < DAY else f"{seconds / DAY:.1f} d"


def warnings(found: Sequence[Age]) -> list[str]:
    """What somebody must see to."""
    return [
        f"{age.topic}: the oldest unread record is {duration(age.seconds or 0.0)} old, {age.share:.0%} of the topic's "
        "retention; what is older than that is deleted unread: start workers, or raise the topic's retention.ms."
        for age in found
        if age.is_near
    ]


def show(found: list[Age] | str) -> None:
    """For people. A warning is on the standard error."""
    from app.cli.output import print_table, problem  # noqa: PLC0415

    typer.echo()
    if isinstance(found, str):
        return typer.echo(f"What waits is not known: {found}")
    if not found:
        return typer.echo("Nothing waits in the topics.")
    numbers = ("UNREAD", "OLDEST", "RETENTION", "SHARE")
    print_table(("TOPIC", *numbers), [_row(age) for age in found], right=numbers)
    for line in warnings(found):
        problem(line)
    return None


def _row(age: Age) -> tuple[str, ...]:
    return (
        age.topic,
        f"{age.records:,}",
        "–" if age.seconds is None else duration(age.seconds),
        "for ever" if age.retention is None else duration(age.retention),
        "–" if age.share is None else f"{age.share:.0%}",
    )


def as_data(found: list[Age] | str) -> dict[str, Any]:
    """For programs. Ages in seconds."""
    if isinstance(found, str):
        return {"unknown": found, "topics": []}
    return {
        "unknown": None,
        "topics": [
            {
                "topic": age.topic,
                "unread": age.records,
                "oldest_seconds": age.seconds,
                "retention_seconds": age.retention,
                "share": age.share,
                "near": age.is_near,
            }
            for age in found
        ],
    }
