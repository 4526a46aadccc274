"""The benchmarks are run by hand, and seldom: what they import must still be there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCH = sorted(file.stem for file in (Path(__file__).parents[2] / "bench").glob("[!_]*.py"))


@pytest.mark.parametrize("name", BENCH)
def test_a_benchmark_finds_all_that_it_imports(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").main)
