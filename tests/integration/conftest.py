"""A stack for the tests of single parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.devstack.stack import DevStack
from tests.support.stack.running import running_stack


@pytest.fixture(scope="session")
def stack(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:  # noqa: ARG001
    """Not that of tests/e2e: sinks and audits read whole topics, in which thousands of requests are there."""
    with running_stack(tmp_path_factory.mktemp("parts")) as running:
        yield running
