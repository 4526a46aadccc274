"""The AsyncAPI document as a file beside the JSON Schemas that it refers to."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from app.asyncapi.document import document
from schemas.export import FOLDER

FILE = FOLDER.parent / "asyncapi.json"


def rendered() -> str:
    """What must be in the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def is_current(file: Path = FILE) -> bool:
    return file.exists() and file.read_text(encoding="utf-8") == rendered()


def main(arguments: Sequence[str]) -> int:
    """Write the file, or with `--check` say whether it is current. Returns the exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("Usage: python -m app.asyncapi [--check]\n")
        return 2
    if is_current():
        return 0
    if arguments:
        sys.stdout.write(f"{FILE.name} is not current; run `make schemas`\n")
        return 1
    FILE.write_text(rendered(), encoding="utf-8")
    sys.stdout.write(f"{FILE.name} written\n")
    return 0
