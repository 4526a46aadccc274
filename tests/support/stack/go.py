"""Programs in Go, built for a test where Go is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def built(folder: Path, module: Path) -> Path:
    """The program of a module. Skips the test where Go or what it fetches is not to be had."""
    if shutil.which("go") is None:
        pytest.skip("not on this machine: go")
    program = folder / "program"
    try:
        done = subprocess.run(
            ["go", "build", "-o", str(program), "."],
            cwd=module,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("go could not fetch and build within four minutes")
    if done.returncode:
        pytest.skip(f"go could not build it: {done.stderr.strip()[:200]}")
    return program
