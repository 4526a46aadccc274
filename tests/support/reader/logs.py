"""What was logged by the one whom a test is about: a run of a process, or a module."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.devstack.child import rotate


@dataclass(frozen=True)
class LogPart:
    """A log from a place on: the file goes on over all runs of a stack, and those before are other tests' affair."""

    file: Path
    begin: int

    @classmethod
    def from_now_on(cls, file: Path) -> LogPart:
        """Before the process is started. What is too long would be put aside then: it is now."""
        rotate(file)
        return cls(file, file.stat().st_size if file.exists() else 0)

    def text(self) -> str:
        with self.file.open("rb") as log:
            log.seek(self.begin)
            return log.read().decode(errors="replace")


def said(caplog: pytest.LogCaptureFixture, module: str) -> list[logging.LogRecord]:
    """The records of one module. What a library says, at whatever moment, of things that an earlier test has left
    behind is not among them: asyncio tells of tasks and connections when they are collected as garbage.
    """
    return [record for record in caplog.records if record.name == module]
