"""What all tests share: an environment of their own, and one real stack for those that need it."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

from app.devstack import ports
from app.devstack.stack import DevStack
from app.logging import _FLOORS
from app.settings import Settings
from tests.support.stack.running import running_stack, settings_of
from tests.support.values.examples import prepare

#: How many lines of each log a failure shows, and how much of each line.
LAST_WORDS, LINE = 25, 300

#: The tests of single parts.
PARTS = "tests/integration/"

prepare()


@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[None]:
    """Neither the developer's AI_* variables nor a `.env` may decide what a test sees. Processes that test at the same
    time choose their ports from different ones: a port that one has chosen may be taken before it is listened on.
    """
    with pytest.MonkeyPatch.context() as patch:
        number, count = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
        patch.setattr(ports, "FREE", ports.FREE[int(number.removeprefix("gw")) % int(count) :: int(count)])
        # A broker of a test lives for minutes: compiling it thoroughly costs more than it brings.
        patch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
        for name in os.environ:
            if name.upper().startswith(("AI_", "OTEL_")):
                patch.delenv(name)
        patch.setitem(Settings.model_config, "env_file", None)
        yield


@pytest.fixture(autouse=True)
def nobody_is_silenced() -> None:
    """Logging is as Python begins with it, whatever a command that was run in this process has made of it: it silences
    everybody, and writes to a stream that is closed by now.
    """
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.handlers[:] = [handler for handler in root.handlers if not is_ours(handler)]
    for name in _FLOORS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def is_ours(handler: logging.Handler) -> bool:
    """Whether the program has put it there, and not pytest."""
    return isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter)


@pytest.fixture(scope="session")
def stack(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:  # noqa: ARG001
    """Kafka, ClickHouse and the provider simulator, with topics and tables, on free ports; no worker runs.

    One for the whole session: tests keep apart by names of their own (tests/support/values). A test that stops a part
    must start it again.
    """
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


#: Simulated ones.
HISTORIES = "tests/simulation/"


class Together(LoadFileScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """Whole files to processes, as `--dist loadfile` gives them; those of single parts to one, with a stack. Simulated
    histories need nothing and are long: each goes where there is room.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(HISTORIES):
            return nodeid
        return PARTS if nodeid.startswith(PARTS) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: the end is then short ones, which keep all processes busy."""
    items.sort(key=lambda item: not item.nodeid.startswith(PARTS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure on the stack tells what the workers said last: elsewhere nobody can look into their folder."""
    report = yield
    running = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(running, DevStack):
        for log in sorted((running.folder / "logs").glob("worker-*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:]
            report.sections.append((log.name, "\n".join(line[:LINE] for line in lines)))
    return report


@pytest.fixture
def settings(stack: DevStack) -> Settings:
    """The settings of a client or worker of the stack."""
    return settings_of(stack)
