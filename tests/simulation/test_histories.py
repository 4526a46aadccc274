"""Whatever fails and whenever: nothing is lost, nothing is called or counted twice, and everything ends.

The real agents over a simulated broker, in virtual time: one seed, one history. `make test` runs the same seeds each
time, `make prove` some thousand others (`python -m tests.simulation 0 500`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable

import pytest

from schemas.internal import DispatchCommand
from streams.commands import GONE_BACK
from streams.dispatch import agent, decide
from tests.simulation.checks import faults_of
from tests.simulation.history import History
from tests.simulation.mutants import MUTANTS, Mutant

#: How many, of the same seeds each time: a minute's worth.
HISTORIES = 90
#: Histories of one test.
CHUNK = 15


#: In so many histories with the right accidents a fault must show.
ENOUGH = 120


def told(seeds: Iterable[int]) -> str:
    """All that happened in some histories, in a few letters."""
    digest = hashlib.sha256()
    for seed in seeds:
        history = History(seed)
        history.run()
        for place, log in sorted(history.broker.logs.items()):
            digest.update(
                repr((tuple(place), [(one.offset, one.timestamp, one.key, one.value) for one in log])).encode()
            )
        history.end()
    return digest.hexdigest()


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_nothing_is_lost_whatever_fails(first: int) -> None:
    seeds = range(first, min(first + CHUNK, HISTORIES))
    found = {seed: faults for seed in seeds if (faults := faults_of(seed))}
    assert not found, f"{found}; `python -m tests.simulation {next(iter(found))}` tells more"


def test_what_goes_back_to_a_provider_is_called_once_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = []

    def onward(command: DispatchCommand, reason: str) -> DispatchCommand | None:
        if reason == GONE_BACK:
            returned.append(command.admitted.request_id)
        return decide.onward(command, reason)

    monkeypatch.setattr(agent, "onward", onward)
    accidents = ("lanes_in_turn", "kill", "stands_still", "join")
    found = {seed: faults for seed in range(6) if (faults := faults_of(seed, requests=30, accidents=accidents))}
    assert not found
    assert len(returned) > 10


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_the_histories_find_a_fault_that_the_product_has_had(mutant: Mutant) -> None:
    with mutant.patch():
        for seed in (mutant.seed, *range(ENOUGH)):
            found = faults_of(seed, accidents=mutant.accidents, **mutant.more)
            if any(mutant.shows in words for words in found):
                return
    pytest.fail(f"{ENOUGH} histories have not shown it")


def test_a_seed_is_a_history_in_any_process() -> None:
    """Whatever the order of sets is there."""
    here = told(range(3))
    command = [sys.executable, "-c", "from tests.simulation.test_histories import told; print(told(range(3)))"]
    there = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == [here]
