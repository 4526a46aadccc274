"""`make prove`: which run goes on, what is skipped, what a failure says, and how a command is ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import prove
from bench.proving.parts import BUDGET, PARTS, Part, Told
from bench.proving.results import KEPT, PartResult, Result, Run, Wanted, begin, choose, read, write
from bench.proving.running import run_live
from bench.proving.version import UNVERSIONED, version

NAMES = ("first", "second")


def run(seed: int, *results: Result, version: str = "now", whole: bool = True) -> Run:
    parts = {name: PartResult(result=result, minutes=1) for name, result in zip(NAMES, results, strict=False)}
    return Run(version=version, seed=seed, whole=whole, parts=parts)


def chosen(runs: list[Run], seed: int | None = None, part: str | None = None, fresh: bool = False) -> int | None:
    found = choose(runs, "now", NAMES, Wanted(seed=seed, part=part, fresh=fresh))
    return found.seed if found else None


@pytest.mark.parametrize(
    "results", [(), (Result.PASSED,), (Result.FAILED,), (Result.PASSED, Result.INTERRUPTED)], ids=str
)
def test_an_unfinished_run_of_the_same_version_goes_on(results: tuple[Result, ...]) -> None:
    assert chosen([run(7, *results)]) == 7


@pytest.mark.parametrize("last", [Result.PASSED, Result.FAILED, Result.LATE])
def test_a_run_that_came_to_its_end_does_not(last: Result) -> None:
    assert chosen([run(7, Result.PASSED, last)]) is None


def test_only_the_last_run_goes_on_and_no_other_version_and_no_single_part() -> None:
    assert chosen([run(7), run(8, Result.PASSED, Result.PASSED)]) is None
    assert chosen([run(7, version="before")]) is None
    assert chosen([run(7), run(8, whole=False)]) == 7


def test_a_seed_takes_back_its_own_run_and_fresh_takes_none() -> None:
    runs = [run(7, Result.PASSED, Result.FAILED), run(8)]
    assert chosen(runs, seed=7) == 7
    assert chosen(runs, seed=9) is None
    assert chosen(runs, fresh=True) is None
    assert chosen(runs, seed=7, fresh=True) is None


def test_one_part_goes_into_the_run_of_its_seed_and_else_into_one_of_its_own() -> None:
    runs = [run(7, Result.PASSED)]
    assert chosen(runs, part="first") is None
    assert chosen(runs, part="first", seed=7) == 7
    assert not begin(runs, "now", NAMES, Wanted(part="first")).whole
    assert begin(runs, "now", NAMES, Wanted(seed=runs[-1].seed)).whole, "now all of it is asked for"


def test_without_a_version_nothing_goes_on() -> None:
    assert choose([run(7, version=UNVERSIONED)], UNVERSIONED, NAMES, Wanted()) is None


def test_results_are_read_as_they_were_written_and_the_oldest_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    runs = [run(seed, Result.PASSED) for seed in range(KEPT + 1)]
    assert read(file) == []
    write(file, runs)
    assert read(file) == runs[1:]


def test_the_parts_fit_into_the_budget_and_have_names_of_their_own() -> None:
    assert sum(part.limit for part in PARTS) <= BUDGET
    assert len({part.name for part in PARTS}) == len(PARTS)


def python(name: str, code: str, limit: float = 1.0) -> Part:
    return Part(name, "Nothing.", limit, lambda told: [sys.executable, "-c", code, str(told.seed), *told.suite])


@pytest.fixture
def same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may work on the tree at this moment."""
    monkeypatch.setattr(prove, "version", lambda: "now")


@pytest.mark.usefixtures("same_version")
def test_all_parts_run_a_failed_one_says_how_to_repeat_it_and_what_has_passed_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = python("first", "import sys; print(sys.argv[1:])"), python("second", "raise SystemExit(3)")
    arguments = ["--seed", "5", "--suite", '-m "not prove"']
    assert prove.main(arguments, (second, first), tmp_path) == 1
    said = capsys.readouterr().out
    assert said.startswith("seed 5, code now\n")
    assert "['5', '-m', 'not prove']" in said
    assert "To repeat it: make prove PART=second SEED=5\n" in said
    assert said.splitlines()[-3:] == [
        "part    result  minutes  seed",
        "second  failed      0.0     5",
        "first   passed      0.0     5",
    ]
    assert (tmp_path / "first.log").read_text() == "['5', '-m', 'not prove']\n"

    repaired = python("second", "")
    assert prove.main(arguments, (repaired, first), tmp_path) == 0
    said = capsys.readouterr().out
    assert "first: has passed for this code and seed already" in said
    assert "second, seed 5" in said

    assert prove.main([*arguments, "--part", "first"], (repaired, first), tmp_path) == 0
    assert "first, seed 5" in capsys.readouterr().out, "one part is always run"


@pytest.mark.usefixtures("same_version")
def test_a_run_that_is_interrupted_goes_on_with_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = (python("first", ""), python("second", ""))
    with monkeypatch.context() as patch:
        patch.setattr(prove, "run_live", interrupted_at("second.log"))
        assert prove.main(["--suite", ""], parts, tmp_path) == 130
    seed = read(tmp_path / "results.json")[-1].seed
    assert f"interrupted; it goes on with: make prove SEED={seed}\n" in capsys.readouterr().out
    assert prove.main(["--suite", ""], parts, tmp_path) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"seed {seed},")
    assert "first: has passed" in said


def interrupted_at(name: str) -> object:
    def run(command: list[str], log: Path, limit: float, environment: dict[str, str]) -> object:
        if log.name == name:
            raise KeyboardInterrupt
        return run_live(command, log, limit, environment)

    return run


def test_a_command_that_takes_too_long_is_ended_in_order(tmp_path: Path) -> None:
    # Where this suite was started in the background, a command would begin by ignoring Ctrl-C as the suite does.
    heed = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('in order')"
    ended = run_live([sys.executable, "-c", f"{heed}\nprint('begun', flush=True)\n{code}"], tmp_path / "log", 2.0)
    assert ended.code is None
    assert ended.seconds < 30
    assert (tmp_path / "log").read_text() == "begun\nin order\n"


def test_what_a_command_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    begun = time.monotonic()
    assert run_live([sys.executable, "-c", code], tmp_path / "log", 20.0).code == 0
    assert time.monotonic() - begun < 15, "it holds the output open until it is ended"


def test_the_version_says_whether_anything_has_been_changed(tmp_path: Path) -> None:
    assert version(tmp_path) == UNVERSIONED

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "--message", "1")
    clean = version(tmp_path)
    (tmp_path / "file").write_text("2")
    changed = version(tmp_path)
    (tmp_path / "other").write_text("3")
    assert "+" not in clean
    assert changed.startswith(f"{clean}+dirty.")
    assert version(tmp_path) not in {clean, changed}
    (tmp_path / "other").unlink()
    (tmp_path / "file").write_text("1")
    assert version(tmp_path) == clean


def test_each_part_names_its_seed_or_needs_none() -> None:
    commands = {part.name: " ".join(part.command(Told(123, ["-m", "not prove"]))) for part in PARTS}
    assert "--hypothesis-seed=123" in commands["models"]
    assert "--seed 123" in commands["kills"]
    assert "--seed 123" in commands["answers"]
    assert "bench/chaos.py 246 247" in commands["chaos"]
    assert "-m not prove" in commands["suite"]
