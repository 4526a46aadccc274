"""The public contracts as JSON Schema (draft 2020-12), one file per event in `schemas/json/`.

`python -m schemas.export` writes them, with `--check` it only says whether they are current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from schemas.alert import BudgetAlert, SpendAnomaly
from schemas.budget import BudgetChange, BudgetState
from schemas.cancellation import Cancellation
from schemas.chunk import Chunk
from schemas.control import ControlEvent, LaneState
from schemas.request import Request
from schemas.response import Response
from schemas.usage import UsageEvent

FOLDER = Path(__file__).parent / "json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: File name → the event, and whether others write it (validation) or read it (serialization): money comes in as any
#: decimal and goes out as a string.
_EVENTS: dict[str, tuple[Any, Literal["validation", "serialization"], str]] = {
    "request": (Request, "validation", "AI request"),
    "cancellation": (Cancellation, "validation", "Cancellation of an AI request"),
    "response": (Response, "serialization", "AI response"),
    "chunk": (Chunk, "serialization", "Piece of an AI response"),
    "usage": (UsageEvent, "serialization", "Usage of one attempt at a provider"),
    "budget-alert": (BudgetAlert, "serialization", "Budget alert"),
    "spend-anomaly": (SpendAnomaly, "serialization", "Hour that costs far more than usual"),
    "budget": (BudgetChange, "validation", "Budget of a workspace"),
    "budget-state": (BudgetState, "serialization", "What a workspace has spent and reserved"),
    "control": (ControlEvent, "validation", "Control event"),
    "lane": (LaneState, "serialization", "State of a lane"),
}


def written_by_others() -> frozenset[str]:
    """Names of the events that applications write; the others they read."""
    return frozenset(name for name, (_, mode, _) in _EVENTS.items() if mode == "validation")


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a public event. Raises KeyError for another name."""
    event, mode, title = _EVENTS[name]
    found = TypeAdapter(event).json_schema(mode=mode)
    # An OpenAPI keyword; in JSON Schema the constant `kind` of each alternative says the same.
    found.pop("discriminator", None)
    return {**found, "$schema": DIALECT, "$id": f"urn:spillway:event:{name}:1", "title": title}


def rendered() -> dict[str, str]:
    """File names and what must be in them."""
    return {
        f"{name}.json": json.dumps(schema(name), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name in _EVENTS
    }


def outdated(folder: Path = FOLDER) -> list[str]:
    """Names of the files that are missing, differ, or do not belong there."""
    wanted = rendered()
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(folder: Path = FOLDER) -> list[str]:
    """Bring the files up to date; returns the names of those that changed."""
    changed = outdated(folder)
    wanted = rendered()
    folder.mkdir(exist_ok=True)
    for name in changed:
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return changed


def main(arguments: Sequence[str]) -> int:
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("Usage: python -m schemas.export [--check]\n")
        return 2
    check = bool(arguments)
    for name in (found := outdated() if check else write()):
        sys.stdout.write(f"{name} {'is not current' if check else 'written'}\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
