"""The embedded stack: a real Kafka broker, ClickHouse's real engine and a provider simulator, without Docker."""

from __future__ import annotations

from pathlib import Path

from app.devstack.errors import StackError

__all__ = ["StackError", "connection_environment"]


def connection_environment(folder: Path) -> dict[str, str] | None:
    """The AI_* variables of the stack that runs in a folder, or None where none is running."""
    from app.devstack import state  # noqa: PLC0415 - takes long to import
    from app.devstack.child import find  # noqa: PLC0415

    known = state.read(folder)
    if known is None or not known.ready or find(known.supervisor) is None:
        return None
    return known.environment()
