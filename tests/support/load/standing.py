"""What a worker that stood still may have done, by what a round has counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.devstack.child import Child
from app.settings import Settings
from tests.support.load.rounds import Load, Round, run_round
from tests.support.provider.instant import Provider

RATE = 60.0
#: The load goes on for so many seconds before an accident, and after it.
AROUND = 8.0
#: Seconds for which a worker stands still: longer than its session.
LONG_STILL = 14.0


def load_around(accident: Callable[[], None], seconds: float) -> Load:
    """Goes on while something happens for so long."""
    length = seconds + 2 * AROUND
    return Load(int(length * RATE), RATE, accident, accident_after=int(AROUND * RATE), goes_on=True)


async def harmless_round(
    settings: Settings, provider: Provider, load: Load, workers: Sequence[Child], logs: Callable[[], str]
) -> Round:
    """A round after which these workers stop. What they have done until then is no more than a kill would leave."""
    try:
        done = await run_round(settings, provider, load)
    finally:
        for worker in workers:
            worker.stop()
    assert_no_more_than_a_kill(done, logs())
    return done


def assert_no_more_than_a_kill(done: Round, told: str) -> None:
    assert not done.missing, f"{len(done.missing)} requests have no response, for example {done.missing[:3]}"
    assert not done.contradicted, "terminal responses contradict each other"
    assert set(done.calls) <= set(done.ledger), "a call is not in the ledger"
    assert done.books == [], "the accounts are the ledger"
    twice = {attempt: count for attempt, count in done.calls.items() if count > 1}
    assert not twice, f"called twice under one attempt id: {twice}"
    known = sorted(done.repeated_though_known)
    assert not known, f"called again though reported: {known[:5]}; {done.summary()}"
    assert "second_writer" not in told
    assert "Traceback" not in told
