"""Stacks for tests and benchmarks: Kafka, ClickHouse and the provider simulator on free ports, and no worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.devstack.settings import StackSettings
from app.devstack.stack import DevStack
from app.settings import Settings, load_settings

PORTS = ("kafka_port", "kafka_controller_port", "clickhouse_port", "simulator_port", "ops_port")


def free_stack(folder: Path) -> DevStack:
    """A stack in a folder of its own, to be started."""
    ports: dict[str, Any] = dict.fromkeys(PORTS, 0)
    return DevStack(StackSettings(_env_file=None, dir=folder, workers=0, **ports))


@contextmanager
def running_stack(folder: Path) -> Iterator[DevStack]:
    """A stack with its topics and tables, until the block ends."""
    stack = free_stack(folder)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


def settings_of(stack: DevStack) -> Settings:
    """The settings of a client or worker of the stack."""
    return load_settings(**{name.removeprefix("AI_").lower(): value for name, value in stack.environment().items()})
