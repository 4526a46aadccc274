"""What a command needs to know: the settings, with the addresses of the stack that runs here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from app.settings import Settings, load_settings

T = TypeVar("T")

DEFAULT_STACK_DIR = ".spillway"


def command_settings(**overrides: object) -> Settings:
    """Settings for a command; what is None in `overrides` is left to the environment.

    In this order: options, the environment, the embedded stack that runs in AI_STACK_DIR, the file `.env`, defaults.
    The stack stands before the file because it has passwords and ports that no file can know. Raises SettingsError.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    return load_settings(**{**stack_settings(running_stack(), os.environ), **given})


def running_stack() -> Mapping[str, str]:
    """The AI_* variables of the stack that runs here; empty where none does. Raises StackError."""
    from app.devstack import connection_environment  # noqa: PLC0415 - reads processes, and is not always needed

    return connection_environment(Path(os.environ.get("AI_STACK_DIR") or DEFAULT_STACK_DIR)) or {}


def stack_settings(stack: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The stack's variables as settings, without those that the environment states itself. Pure."""
    stated = {name.upper() for name in environment}
    fields = Settings.model_fields
    return {
        field: value
        for name, value in stack.items()
        if name not in stated and (field := name.removeprefix("AI_").lower()) in fields
    }


def run_traced(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    """As `run`, for commands that send requests: their traces begin here, where there is a collector for them."""
    from app.tracing.setup import tracing  # noqa: PLC0415 - start-up time

    try:
        with tracing(settings, "spillway-cli"):
            return run(work)
    finally:
        work.close()  # What was never begun, because tracing cannot be, would be complained of.


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part, with the libraries' own messages kept quiet."""
    from app.logging import quiet_logging  # noqa: PLC0415 - start-up time

    quiet_logging()
    return asyncio.run(work)
