"""What the provider bills is what the ledger says, whatever is killed, repeated or read again. More: bench/audit.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.devstack.stack import DevStack
from tests.support.load.reconcile import WORKSPACES, reconcile
from tests.support.stack.running import running_stack, settings_of

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.timeout(420)]

REQUESTS = 400


@pytest.fixture
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Not the shared one: all of its usage is read again, and its budgets are compared by the month."""
    with running_stack(tmp_path_factory.mktemp("own")) as running:
        yield running


async def test_after_a_kill_and_a_replay_the_audit_is_clean_and_the_ledger_is_the_providers_own_bill(
    own_stack: DevStack, tmp_path: Path
) -> None:
    found = await reconcile(own_stack, settings_of(own_stack), tmp_path, REQUESTS, rate=40.0)
    told = found.summary()
    counts = found.report.verdict.figures.counts
    assert found.report.verdict.findings.clean, (found.report.verdict.findings, told)
    assert counts["requests"] == counts["responses"] == REQUESTS, told
    assert (counts["requests_open"], counts["usage_waiting"]) == (0, 0), told
    assert counts["budgets"] == WORKSPACES, told
    assert counts["rows"] == counts["usage"] == found.attempts > REQUESTS, told
    assert (found.missing, found.different) == ([], []), told
    assert found.known == found.billed > 0, told
    assert found.in_doubt == counts["in_doubt"] > 0, told
    # The faults that were asked for have happened, and both providers have answered.
    assert found.ends.keys() == {"answered", "cut off", "404", "429", "500", "529"}, told
    assert found.providers == 2
