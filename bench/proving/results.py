"""What `make prove` has found so far, by version and seed, and where a run that was interrupted goes on."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter

from bench.proving.version import UNVERSIONED

#: How many runs are kept.
KEPT = 50


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    LATE = "out of time"
    INTERRUPTED = "interrupted"


class PartResult(BaseModel):
    result: Result
    minutes: float


class Run(BaseModel):
    """The parts of one version under one seed. It is not whole when it was only ever asked for one part."""

    version: str
    seed: int
    whole: bool = True
    begun: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    parts: dict[str, PartResult] = Field(default_factory=dict)

    def passed(self, name: str) -> bool:
        return name in self.parts and self.parts[name].result == Result.PASSED

    def unfinished(self, names: Sequence[str]) -> bool:
        """Whether a part has not come to its end, good or bad."""
        return any(name not in self.parts or self.parts[name].result == Result.INTERRUPTED for name in names)


class Wanted(BaseModel):
    """What was asked for: a seed or any, all parts or one, and whether earlier results count."""

    seed: int | None = None
    part: str | None = None
    fresh: bool = False


_RUNS = TypeAdapter(list[Run])


def read(file: Path) -> list[Run]:
    return _RUNS.validate_json(file.read_bytes()) if file.exists() else []


def write(file: Path, runs: Sequence[Run]) -> None:
    """All at once: whoever is killed in the middle leaves what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_bytes(_RUNS.dump_json(list(runs)[-KEPT:], indent=2))
    beside.replace(file)


def choose(runs: Sequence[Run], version: str, names: Sequence[str], wanted: Wanted) -> Run | None:
    """The run to go on with: the one of that seed, or else the last one of this version, if it is unfinished."""
    if wanted.fresh or version == UNVERSIONED:
        return None
    same = [run for run in runs if run.version == version]
    if wanted.seed is not None:
        return next((run for run in reversed(same) if run.seed == wanted.seed), None)
    last = next((run for run in reversed(same) if run.whole), None)
    return last if last and wanted.part is None and last.unfinished(names) else None


def begin(runs: list[Run], version: str, names: Sequence[str], wanted: Wanted) -> Run:
    """The run to go on with, or a new one at the end of `runs`."""
    run = choose(runs, version, names, wanted)
    if run is None:
        run = Run(version=version, seed=draw() if wanted.seed is None else wanted.seed, whole=False)
        runs.append(run)
    run.whole = run.whole or wanted.part is None
    return run


def draw() -> int:
    """A seed that is short enough to be typed."""
    return secrets.randbelow(1_000_000)
