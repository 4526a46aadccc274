"""What was logged in a test by the one whose words it is about."""

from __future__ import annotations

import logging

import pytest


def said(caplog: pytest.LogCaptureFixture, module: str) -> list[logging.LogRecord]:
    """The records of one module. What a library says, at whatever moment, of things that an earlier test has left
    behind is not among them: asyncio tells of tasks and connections when they are collected as garbage.
    """
    return [record for record in caplog.records if record.name == module]
