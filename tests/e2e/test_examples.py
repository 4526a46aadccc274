"""The examples do what they say, each where the machine has its language."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.devstack import kafka
from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.stack.node import installed
from tests.support.stack.slow import quick_and_slow

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = "Why is the sky blue?"


@pytest.fixture(scope="module", autouse=True)
def answering(stack: DevStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with quick_and_slow(stack, tmp_path_factory.mktemp("examples")) as worker:
        yield worker


def needs(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def run(stack: DevStack, *command: str | Path, cwd: Path | None = None) -> str:
    """What the program prints; it must end well."""
    arguments = [str(part) for part in command]
    environment = {**stack.environ, **stack.environment()}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["python_client.py", "python_aiokafka.py"])
def test_python(stack: DevStack, name: str) -> None:
    assert QUESTION in run(stack, sys.executable, EXAMPLES / name, QUESTION)


def test_kcat(stack: DevStack) -> None:
    needs("bash", "kcat", "jq")
    assert QUESTION in run(stack, EXAMPLES / "ask.sh", QUESTION)


def test_java_with_the_header_names_of_spring(stack: DevStack, tmp_path: Path) -> None:
    needs("javac", "java")
    libraries = f"{kafka.packages()}/*"
    run(stack, "javac", "-Xlint:all", "-Werror", "-cp", libraries, "-d", tmp_path, EXAMPLES / "java" / "Ask.java")
    assert QUESTION in run(stack, "java", "-cp", f"{tmp_path}:{libraries}", "Ask", QUESTION)


def test_node(stack: DevStack, tmp_path: Path) -> None:
    folder = installed(tmp_path, EXAMPLES / "node" / "package.json")
    shutil.copy(EXAMPLES / "node" / "ask.mjs", folder)
    assert QUESTION in run(stack, "node", "ask.mjs", QUESTION, cwd=folder)
