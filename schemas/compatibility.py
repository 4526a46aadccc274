"""What may change in a published event: the rules of docs/contract.md, and a check that holds them.

`schemas/published/` has the JSON Schemas as they were published. `python -m schemas.compatibility` compares those of
today with them; with `--publish` it takes today's as the new published ones, if they break nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.containment import Containment, Gap, Node, alternatives, closest
from schemas.export import rendered, written_by_others

PUBLISHED = Path(__file__).parent / "published"

WHAT_TO_DO = (
    "Take it back; or leave this event as it is, and add the change as a new schema_version: a model and a schema of "
    "its own beside this one. docs/contract.md (“What may change”) has the rules."
)


@dataclass(frozen=True, slots=True)
class Breach:
    """A change that a published event does not allow."""

    schema: str
    field: str
    rule: str
    change: str

    def __str__(self) -> str:
        where = f"{self.schema}.json, {self.field}" if self.field else f"{self.schema}.json"
        return f"{where}: {self.change}. {self.rule}"


_WRITTEN = "What was accepted must be accepted: applications write this."
_READ = "Nothing may come that was not announced: applications read this."
_REMOVED = "A field of a published event stays."
_MEANING = "What is left out must mean what it meant."


def breaches(name: str, published: Node, current: Node, *, written: bool) -> list[Breach]:
    """How the current schema of an event breaks the published one. `written`: by applications; else they read it."""
    gone = sorted(_gone(published, current, published, current))
    found = [Breach(name, path, _REMOVED, "the field is gone") for path in gone]
    if written:
        gaps, rule = Containment(published, current).gaps(), _WRITTEN
        for path, old, new in _defaults(published, current, published, current):
            found.append(Breach(name, path, _MEANING, f"the default was {_shown(old)} and is {_shown(new)}"))
    else:
        gaps, rule = Containment(current, published).gaps(), _READ
    found += [Breach(name, gap.field, rule, _change(gap, written=written)) for gap in gaps if gap.field not in gone]
    return list(dict.fromkeys(found))


def _change(gap: Gap, *, written: bool) -> str:
    old, new = (gap.narrow, gap.wide) if written else (gap.wide, gap.narrow)
    if gap.keyword == "required":
        return "the field was optional and is required" if new else "the field was required and is optional"
    if gap.keyword == "type":
        return f"{old} is not accepted any more, only {new}" if written else f"{new} may come, where it was {old}"
    return f"{gap.keyword} was {_shown(old)} and is {_shown(new)}"


def _shown(value: Any) -> str:
    return "not stated" if value is None else value if isinstance(value, str) else json.dumps(value)


_Pair = tuple[str, Node, Node]


def _pairs(old: Node, new: Node, old_root: Node, new_root: Node, path: str = "", depth: int = 0) -> Iterator[_Pair]:
    """Objects that are the same part of an event, in both schemas."""
    if depth > 16:  # noqa: PLR2004 - no event is so deep: it contains itself
        return
    rights = alternatives(new, new_root)
    for left in alternatives(old, old_root):
        right = closest(left, rights)
        if right is None:
            continue
        yield path, left, right
        theirs = right.get("properties", {})
        for name, part in left.get("properties", {}).items():
            if name in theirs:
                step = f"{path}.{name}" if path else name
                yield from _pairs(part, theirs[name], old_root, new_root, step, depth + 1)
        if isinstance(left.get("items"), Mapping) and isinstance(right.get("items"), Mapping):
            yield from _pairs(left["items"], right["items"], old_root, new_root, f"{path}[]", depth + 1)


def _gone(old: Node, new: Node, old_root: Node, new_root: Node) -> Iterator[str]:
    for path, left, right in _pairs(old, new, old_root, new_root):
        for name in left.get("properties", {}).keys() - right.get("properties", {}).keys():
            yield f"{path}.{name}" if path else name


def _defaults(old: Node, new: Node, old_root: Node, new_root: Node) -> Iterator[tuple[str, Any, Any]]:
    for path, left, right in _pairs(old, new, old_root, new_root):
        mine, theirs = left.get("properties", {}), right.get("properties", {})
        for name in mine.keys() & theirs.keys():
            before, after = mine[name].get("default"), theirs[name].get("default")
            if before != after and name not in right.get("required", ()):
                yield f"{path}.{name}" if path else name, before, after


# The published schemas ---------------------------------------------------------------------------------------------


def check(published: Mapping[str, str], current: Mapping[str, str]) -> list[Breach]:
    """All breaches. Both map names of files to their text."""
    found: list[Breach] = []
    written = written_by_others()
    for file, text in sorted(published.items()):
        name = Path(file).stem
        if file not in current:
            found.append(Breach(name, "", "A published event stays.", "the schema is gone"))
            continue
        found += breaches(name, json.loads(text), json.loads(current[file]), written=name in written)
    return found


def read(folder: Path = PUBLISHED) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.json")}


def publish(current: Mapping[str, str], folder: Path = PUBLISHED) -> list[str]:
    """Take these as published; returns the names of the files that are new or differ."""
    before = read(folder)
    changed = sorted(name for name, text in current.items() if before.get(name) != text)
    folder.mkdir(exist_ok=True)
    for name in changed:
        (folder / name).write_text(current[name], encoding="utf-8")
    return changed


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0, 1 with breaches, 2 for a wrong call."""
    if list(arguments) not in ([], ["--publish"]):
        sys.stderr.write("Usage: python -m schemas.compatibility [--publish]\n")
        return 2
    current = rendered()
    if found := check(read(), current):
        sys.stderr.write("".join(f"{breach}\n" for breach in found) + WHAT_TO_DO + "\n")
        return 1
    if arguments:
        for name in publish(current):
            sys.stdout.write(f"{name} published\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
