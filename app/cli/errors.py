"""The one place that turns what can go wrong into one sentence and an exit code: 1 for failures, 2 for usage."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup


class CommandError(Exception):
    """A command cannot do what it was asked. The message is one sentence for the person at the keyboard."""


#: Named, not imported: an exception can only arrive when its module is loaded, and most commands load few of them.
_TOLD_IN_ONE_SENTENCE = (
    ("app.cli.errors", "CommandError"),
    ("app.settings", "SettingsError"),
    ("app.devstack.errors", "StackError"),
    ("app.kafka", "KafkaUnavailableError"),
    ("app.topics", "TopicsError"),
    ("app.client.errors", "SpillwayError"),
    ("app.dlq.desk", "NoSuchLetterError"),
    ("app.clickhouse.errors", "ClickHouseError"),
    ("app.clickhouse.migrate", "MigrationError"),
)


def is_expected(error: BaseException) -> bool:
    """Whether the error's message says all that a person needs."""
    kinds = (getattr(sys.modules.get(module), name, None) for module, name in _TOLD_IN_ONE_SENTENCE)
    return any(kind is not None and isinstance(error, kind) for kind in kinds)


class Commands(TyperGroup):
    """A group of commands whose expected errors are told without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not (is_expected(error) or _is_no_text(error)):
                raise
            from app.cli.output import problem  # noqa: PLC0415 - start-up time

            told = "What was given is not UTF-8." if _is_no_text(error) else str(error)
            for line in told.splitlines():
                problem(f"Error: {line}")
            raise typer.Exit(1) from None


def _is_no_text(error: Exception) -> bool:
    """Whether it is about bytes of an argument, or of the standard input, that Python has let through as what they are
    not (PEP 383).
    """
    return isinstance(error, UnicodeEncodeError) and any("\udc80" <= sign <= "\udcff" for sign in error.object)
