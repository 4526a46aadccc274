"""How much of each package runs, out of coverage's JSON report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from bench.proving.table import table

#: `app/cli` is a package of its own, whatever is below it.
DEPTH = 2


def by_package(report: Mapping[str, Any]) -> list[tuple[str, int, int, float]]:
    """Package, statements, missed statements and percent that ran, and the sum of all at the end."""
    statements: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for name, file in report["files"].items():
        package = "/".join(PurePosixPath(name).parent.parts[:DEPTH])
        for line in (package, "all"):
            statements[line] += file["summary"]["num_statements"]
            missed[line] += file["summary"]["missing_lines"]
    lines = sorted(statements, key=lambda name: (name == "all", name))
    return [(name, statements[name], missed[name], _percent(statements[name], missed[name])) for name in lines]


def _percent(statements: int, missed: int) -> float:
    return 100.0 * (statements - missed) / statements if statements else 100.0


def shown(report: Mapping[str, Any]) -> str:
    rows = [(name, of, missed, f"{percent:.1f}") for name, of, missed, percent in by_package(report)]
    return table(("package", "statements", "missed", "percent"), rows, right=(1, 2, 3))
