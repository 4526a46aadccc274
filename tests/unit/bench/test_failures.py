"""bench/failures.py: what a seed draws, and what is a broken promise."""

from __future__ import annotations

from bench.failures import NEVER, NEVER_BY_A_STOP, WORKERS, broken_promises, drawn

QUIET = dict.fromkeys(NEVER + NEVER_BY_A_STOP, 0)


def test_without_a_seed_it_is_the_first_worker_in_the_middle() -> None:
    assert drawn(None, "kill", 3, 600) == (0, 300)


def test_a_seed_draws_the_same_again_and_other_rounds_otherwise() -> None:
    rounds = [drawn(7, kind, number, 3000) for kind in ("kill", "term") for number in range(1, 30)]
    assert rounds == [drawn(7, kind, number, 3000) for kind in ("kill", "term") for number in range(1, 30)]
    assert {victim for victim, _ in rounds} == set(range(WORKERS))
    assert len({after for _, after in rounds}) > 50
    assert all(300 <= after < 2700 for _, after in rounds)


def test_only_an_orderly_stop_may_repeat_nothing_at_all() -> None:
    assert broken_promises("kill", QUIET) == broken_promises("term", QUIET) == ""
    repeated = QUIET | {"responses repeated": 3}
    assert broken_promises("kill", repeated) == ""
    assert broken_promises("term", repeated) == "responses repeated: 3"
    assert broken_promises("kill", QUIET | {"lost": 2, "contradicted": 1}) == "lost: 2, contradicted: 1"
