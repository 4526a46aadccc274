"""bench/scaling_out.py: what a step did, by small journals."""

from __future__ import annotations

import pytest

from bench.scaling.figures import Call, Seen, Step, called_twice, figures, one_after_another, silence, table

STEP = Step("kill -9", begin=100.0, end=160.0, took=0.1, killed="w1")
ORDERLY = Step("1 → 2", begin=100.0, end=160.0, took=9.0)
#: Two requests of each of two partitions a second.
PARTITIONS = {f"{letter}{moment}": number for number, letter in enumerate("ab") for moment in range(80, 180)}


def load(silent: dict[str, range], worker_of: dict[str, str] | None = None, answers: bool = True) -> Seen:
    """Each request is called at its moment and answered at once, but for those of a partition that was silent."""
    workers = worker_of or {"a": "w1", "b": "w2"}
    moments = {name: int(name[1:]) for name in PARTITIONS if int(name[1:]) not in silent.get(name[0], ())}
    return Seen(
        PARTITIONS,
        [Call(f"{name}/1", workers[name[0]], moment) for name, moment in moments.items()],
        {f"{name}/1": moment + 0.5 for name, moment in moments.items()},
        list(moments.items()) if answers else [],
    )


def test_a_silence_is_the_longest_time_without_anything_also_at_both_ends() -> None:
    assert silence([], 10, 25) == 15
    assert silence([11, 12, 18, 24], 10, 25) == 6
    assert silence([3, 18, 90], 10, 25) == 8


def test_nothing_is_wrong_where_all_flows() -> None:
    found = figures(load({}), ORDERLY)
    assert found.wrong == []
    assert found.silences == {0: 1.0, 1: 1.0}
    assert found.orphans == frozenset()


@pytest.mark.parametrize(("until", "wrong"), [(114, []), (118, ["a partition of the dead was silent for 18.0 s"])])
def test_a_partition_of_the_dead_may_be_silent_for_longer(until: int, wrong: list[str]) -> None:
    found = figures(load({"a": range(100, until)}), STEP)
    assert found.orphans == {0}
    assert found.wrong == wrong


def test_the_others_may_not() -> None:
    found = figures(load({"b": range(100, 110)}), STEP)
    assert found.wrong == ["a partition was silent for 10.0 s"]


def test_calls_alone_are_not_enough() -> None:
    assert "a partition was silent for 60.0 s" in figures(load({}, answers=False), ORDERLY).wrong


def test_a_request_that_was_called_twice_is_excused_only_by_the_death_of_its_worker() -> None:
    seen = load({})
    seen.calls = [*seen.calls, Call("a90/2", "w2", 112.0), Call("b91/2", "w2", 113.0), Call("b92/2", "w1", 99.0)]
    found = figures(seen, STEP)
    assert found.again == {"a90": "w1", "b91": "w2"}
    assert found.wrong == ["1 requests called twice"]
    assert figures(seen, ORDERLY).wrong == ["2 requests called twice"]
    assert called_twice(seen.calls) == 3


def test_an_attempt_in_doubt_is_excused_by_the_same_or_was_never_called() -> None:
    seen = load({"a": range(99, 112)})
    seen.doubts = [("a90/1", 111.0), ("a90/1", 111.5), ("a99/1", 111.0), ("b90/1", 99.0)]
    found = figures(seen, STEP)
    assert found.in_doubt == 2
    assert found.wrong == []
    seen.doubts = [*seen.doubts, ("b95/1", 120.0)]
    assert figures(seen, STEP).wrong == ["1 in doubt"]
    assert "3 in doubt" in figures(seen, ORDERLY).wrong


def test_a_step_has_all_that_happens_until_the_next() -> None:
    first, second = one_after_another([ORDERLY, Step("2 → 4", 170.0, 200.0, 3.0)])
    assert (first.end, first.until) == (170.0, 170.0)
    assert first.has(169.0)
    assert not first.has(170.0)
    assert second.has(10_000.0)


def test_the_table_has_a_column_for_each_step() -> None:
    lines = table([figures(load({}), ORDERLY), figures(load({"a": range(100, 112)}), STEP)]).splitlines()
    assert lines[0] == "|  | 1 → 2 | kill -9 |"
    assert lines[1] == "|---|---|---|"
    assert "| longest silence of a partition, s | 1.0 | 1.0 |" in lines
    assert "| the same of the killed worker's, s |  | 12.0 |" in lines
    assert {line.count("|") for line in lines} == {4}
