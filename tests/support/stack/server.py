"""A command of the program that serves HTTP, as a process."""

from __future__ import annotations

import sys

from app.devstack.child import Child
from app.devstack.ports import choose
from app.devstack.stack import DevStack
from tests.support.provider.simulator import is_there


def server(stack: DevStack, name: str, command: str, *options: str, **environment: str) -> tuple[Child, int]:
    """`spillway <command>` on a free port, not started yet, and the port. `name` is the first part of its log's."""
    port = choose(0, "")
    process = Child(
        name=f"{name}-{port}",
        command=[sys.executable, "-m", "app.cli.main", command, "--port", str(port), *options],
        log=stack.log(f"{name}-{port}"),
        ready=lambda: is_there(port),
        environment={**stack.environ, **stack.environment(), **environment},
        grace=30.0,
    )
    return process, port
