"""Runs of the same tests, again and again: what each came to, and what failed how often."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field


class OneRun(BaseModel):
    """One run. `failures` are the tests that failed or could not be prepared."""

    version: str
    begun: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0
    code: int | None = None
    passed: int = 0
    skipped: int = 0
    failures: list[str] = Field(default_factory=list)
    log: str | None = None

    @property
    def good(self) -> bool:
        return self.code == 0 and not self.failures

    def read(self, report: Path) -> None:
        """Take the counts out of pytest's JUnit XML, in the form of which a case names its file (xunit1)."""
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []  # noqa: S314 - our own
        self.failures = sorted({_name(case) for case in cases if _has(case, "failure", "error")})
        self.skipped = sum(_has(case, "skipped") for case in cases)
        self.passed = sum(not _has(case, "failure", "error", "skipped") for case in cases)

    def names(self) -> list[str]:
        """What failed; a run that came to no end, or whose failure no test has, counts by itself."""
        if self.failures or self.code == 0:
            return self.failures
        return ["the run itself: " + ("out of time" if self.code is None else f"exit code {self.code}")]


def append(file: Path, run: OneRun) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(run.model_dump_json() + "\n")


def read(file: Path, version: str) -> list[OneRun]:
    """All runs of this version."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [run for run in map(OneRun.model_validate_json, lines) if run.version == version]


def sum_up(runs: Sequence[OneRun]) -> str:
    """What failed how often, the most frequent first, and the seconds of each run."""
    counts = Counter(name for run in runs for name in run.names())
    of = f"{len(runs)} runs"
    lines = [f"{count} of {of}: {name}" for name, count in counts.most_common()]
    seconds = ", ".join(f"{run.seconds:.0f}" for run in runs)
    return "\n".join([*(lines or [f"nothing failed in {len(runs)} of {of}"]), f"seconds: {seconds}"])


def _has(case: ET.Element, *tags: str) -> bool:
    return any(case.find(tag) is not None for tag in tags)


def _name(case: ET.Element) -> str:
    """As pytest writes it: tests/unit/test_a.py::TestClass::test_b."""
    file, inside = case.get("file", ""), case.get("classname", "")
    group = inside.removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
    return "::".join(filter(None, (file, group, case.get("name", ""))))
