"""Packages of Node, installed for a test where Node is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def installed(folder: Path, package: Path) -> Path:
    """A folder with what a package.json names. Skips the test where Node, npm or the registry is not to be had."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    shutil.copy(package, folder / "package.json")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm could not fetch the packages within two minutes")
    if done.returncode:
        pytest.skip(f"npm could not fetch the packages: {done.stderr.strip()[:200]}")
    return folder
