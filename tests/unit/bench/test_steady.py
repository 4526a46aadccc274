"""`make steady`: what is read of a run, how runs add up, and the process that takes a core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench import steady
from bench.proving.busy import busy_core
from bench.proving.repeated import OneRun, append, read, sum_up

TESTS = """
import pytest
def test_passes(): pass
@pytest.mark.parametrize("a", [1])
def test_fails(a): assert a == 2
@pytest.mark.skip
def test_is_skipped(): pass
class TestGroup:
    def test_fails_too(self): raise ValueError
    def test_is_not_prepared(self, no_such_fixture): pass
"""


def one(*failures: str, seconds: float = 60, code: int | None = None, version: str = "now") -> OneRun:
    ended = (1 if failures else 0) if code is None else code
    return OneRun(version=version, seconds=seconds, code=ended, failures=list(failures))


def test_a_report_of_pytest_is_read(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    (tmp_path / "test_a.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
    subprocess.run([*command, f"--junitxml={report}", "test_a.py"], cwd=tmp_path, check=False, capture_output=True)
    run = OneRun(version="now", code=1)
    run.read(report)
    assert (run.passed, run.skipped) == (1, 1)
    assert run.failures == [
        "test_a.py::TestGroup::test_fails_too",
        "test_a.py::TestGroup::test_is_not_prepared",
        "test_a.py::test_fails[1]",
    ]


def test_runs_of_one_version_add_up(tmp_path: Path) -> None:
    file = tmp_path / "new" / "steady.jsonl"
    assert read(file, "now") == []
    runs = [one("a", seconds=61), one("b", "a"), one()]
    for run in [*runs[:2], one("c", version="before"), runs[2]]:
        append(file, run)
    assert read(file, "now") == runs
    assert sum_up(runs).splitlines() == ["2 of 3 runs: a", "1 of 3 runs: b", "seconds: 61, 60, 60"]


def test_nothing_that_failed_is_said_too() -> None:
    assert sum_up([one()] * 10).startswith("nothing failed in 10 of 10 runs\n")


def test_a_run_without_a_report_has_failed() -> None:
    late = OneRun(version="now", code=None)
    assert not late.good
    assert late.names() == ["the run itself: out of time"]
    assert one(code=4).names() == ["the run itself: exit code 4"]


def test_the_command_runs_beside_a_busy_core_and_keeps_the_output_of_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "version", lambda: "now")
    tests = tmp_path / "test_a.py"
    tests.write_text("def test_is_steady(): pass")
    suite = f"-q -p no:cacheprovider -c {tmp_path / 'none.ini'} --rootdir {tmp_path} {tests}"
    (tmp_path / "none.ini").write_text("[pytest]\n")
    assert steady.main(["--runs", "2", "--suite", suite], tmp_path) == 0
    assert "nothing failed in 2 of 2 runs" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.log"))

    tests.write_text("def test_is_steady(): assert False")
    assert steady.main(["--runs", "1", "--suite", suite], tmp_path) == 1
    said = capsys.readouterr().out
    assert "1 of 3 runs: test_a.py::test_is_steady" in said
    last = read(tmp_path / "steady.jsonl", "now")[-1]
    assert last.log is not None
    assert "assert False" in (tmp_path / last.log).read_text()


def test_a_busy_core_is_ended_with_its_block_and_by_its_time() -> None:
    with busy_core(60) as process:
        assert psutil.pid_exists(process.pid)
    assert process.returncode is not None
    with busy_core(0.1) as process:
        assert process.wait(20) == 0
