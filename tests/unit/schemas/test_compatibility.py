"""The rules for published events: what may change within a schema_version, and what may not."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas import compatibility
from schemas.compatibility import breaches
from schemas.containment import Containment
from schemas.export import rendered, written_by_others

TEXT = {"type": "string"}
MAYBE = {"anyOf": [TEXT, {"type": "null"}]}


def event(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def kinds(*names: str) -> dict[str, Any]:
    made = {name: event(kind={"const": name, "type": "string"}, size={"type": "integer"}) for name in names}
    return {"$defs": made, "oneOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def text(**bounds: Any) -> dict[str, Any]:
    return event(a={**TEXT, **bounds})


#: What changes, from, to, and whether it breaks those who write the event, and those who read it.
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], bool, bool]] = [
    ("nothing", event(("a",), a=TEXT), event(("a",), a=TEXT), False, False),
    ("a new optional field", event(a=TEXT), event(a=TEXT, b=TEXT), False, False),
    ("a new required field", event(a=TEXT), event(("b",), a=TEXT, b=TEXT), True, False),
    ("a field goes", event(a=TEXT, b=TEXT), event(a=TEXT), True, True),
    ("a field is renamed", event(a=TEXT), event(b=TEXT), True, True),
    ("optional becomes required", event(a=TEXT), event(("a",), a=TEXT), True, False),
    ("required becomes optional", event(("a",), a=TEXT), event(a=TEXT), False, True),
    ("null comes", event(a=TEXT), event(a=MAYBE), False, True),
    ("null goes", event(a=MAYBE), event(a=TEXT), True, False),
    ("an integer becomes a number", event(a={"type": "integer"}), event(a={"type": "number"}), False, True),
    ("a number becomes an integer", event(a={"type": "number"}), event(a={"type": "integer"}), True, False),
    ("a number becomes a text", event(a={"type": "number"}), event(a=TEXT), True, True),
    ("an enum value comes", text(enum=["x"]), text(enum=["x", "y"]), False, True),
    ("an enum value goes", text(enum=["x", "y"]), text(enum=["x"]), True, False),
    ("a text becomes an enum", text(), text(enum=["x"]), True, False),
    ("a constant becomes an enum", text(const="x"), text(enum=["x", "y"]), False, True),
    ("another constant", text(const="x"), text(const="y"), True, True),
    ("a longer text", text(maxLength=5), text(maxLength=6), False, True),
    ("a shorter text", text(maxLength=6), text(maxLength=5), True, False),
    ("a higher minimum", text(minLength=1), text(minLength=2), True, False),
    ("a bound that goes", text(minLength=1), text(), False, True),
    ("another pattern", text(pattern="^a"), text(pattern="^b"), True, True),
    ("a pattern comes", text(), text(pattern="^b"), True, False),
    ("another format", text(format="date"), text(format="time"), True, True),
    ("an unknown keyword comes", text(), text(contentEncoding="base64"), True, False),
    ("a description", text(), text(description="what it is", title="A"), False, False),
    ("a kind comes", kinds("x", "y"), kinds("x", "y", "z"), False, True),
    ("a kind goes", kinds("x", "y", "z"), kinds("x", "y"), True, False),
    ("the order of kinds", kinds("x", "y"), kinds("y", "x"), False, False),
    (
        "within a list",
        event(a={"type": "array", "items": event(b=MAYBE)}),
        event(a={"type": "array", "items": event(b=TEXT)}),
        True,
        False,
    ),
    (
        "values of a map",
        event(a={"type": "object", "additionalProperties": TEXT}),
        event(a={"type": "object", "additionalProperties": {"type": "integer"}}),
        True,
        True,
    ),
    (
        "an object is closed",
        {**event(a=TEXT), "additionalProperties": True},
        {**event(a=TEXT), "additionalProperties": False},
        True,
        False,
    ),
    ("a default", text(default="x"), text(default="y"), True, False),
    ("a default comes", text(), text(default="y"), True, False),
]


@pytest.mark.parametrize(
    ("old", "new", "writers", "readers"), [row[1:] for row in CHANGES], ids=[r[0] for r in CHANGES]
)
def test_what_breaks_whom(old: dict[str, Any], new: dict[str, Any], writers: bool, readers: bool) -> None:
    assert bool(breaches("event", old, new, written=True)) is writers
    assert bool(breaches("event", old, new, written=False)) is readers


def test_a_breach_names_the_schema_the_field_the_change_and_the_rule() -> None:
    old = event(lines={"type": "array", "items": event(name=MAYBE)})
    new = event(lines={"type": "array", "items": event(name=TEXT)})
    assert [str(breach) for breach in breaches("request", old, new, written=True)] == [
        "request.json, lines[].name: null is not accepted any more, only string. "
        "What was accepted must be accepted: applications write this."
    ]
    assert [str(breach) for breach in breaches("response", new, old, written=False)] == [
        "response.json, lines[].name: null may come, where it was string. "
        "Nothing may come that was not announced: applications read this."
    ]


def test_a_required_field_that_goes_is_told_once() -> None:
    found = breaches("response", event(("a",), a=TEXT), event(), written=False)
    assert [(breach.field, breach.change) for breach in found] == [("a", "the field is gone")]


@pytest.mark.parametrize("name", sorted(Path(file).stem for file in rendered()))
def test_each_event_of_today_is_compatible_with_itself_and_not_without_a_field(name: str) -> None:
    today = json.loads(rendered()[f"{name}.json"])
    written = name in written_by_others()
    assert breaches(name, today, deepcopy(today), written=written) == []
    less = deepcopy(today)
    part = next(iter(less["$defs"].values())) if "properties" not in less else less
    gone = sorted(set(part["properties"]) - {"kind"})[0]
    del part["properties"][gone]
    assert any(gone in breach.field for breach in breaches(name, today, less, written=written))


def test_what_is_published_is_not_broken() -> None:
    assert compatibility.read(), "nothing is published"
    assert compatibility.check(compatibility.read(), rendered()) == []


def test_a_breach_stops_the_check_and_nothing_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = json.loads(rendered()["usage.json"])
    usage["properties"]["colour"] = TEXT
    (tmp_path / "usage.json").write_text(json.dumps(usage))
    (tmp_path / "forgotten.json").write_text(json.dumps(event()))
    monkeypatch.setattr(compatibility.read, "__defaults__", (tmp_path,))
    monkeypatch.setattr(compatibility.publish, "__defaults__", (tmp_path,))
    assert compatibility.main(["--publish"]) == 1
    told = capsys.readouterr().err
    assert "usage.json, colour: the field is gone" in told
    assert "forgotten.json: the schema is gone" in told
    assert "schema_version" in told
    assert {file.name for file in tmp_path.iterdir()} == {"usage.json", "forgotten.json"}

    for file in tmp_path.iterdir():
        file.unlink()
    assert compatibility.main(["--publish"]) == 0
    assert compatibility.main([]) == 0
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == rendered()


# Containment is true of values -------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.fixed_dictionaries({"type": st.just("integer")}, optional={"minimum": st.integers(-2, 2)}),
    st.fixed_dictionaries({"type": st.just("number")}, optional={"maximum": st.integers(-2, 2)}),
    st.fixed_dictionaries(
        {"type": st.just("string")}, optional={"maxLength": st.integers(0, 2), "minLength": st.integers(0, 2)}
    ),
    st.sampled_from([{"type": "null"}, {"const": "a"}, {"enum": ["a", 1]}, {"enum": ["a", "b"], "type": "string"}, {}]),
)
NAMES = st.sampled_from(["a", "b"])


def larger(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, parts, max_size=2)},
        optional={
            "required": st.lists(NAMES, unique=True),
            "additionalProperties": st.one_of(st.booleans(), parts),
        },
    )
    lists = st.fixed_dictionaries({"type": st.just("array"), "items": parts}, optional={"maxItems": st.integers(0, 2)})
    return st.one_of(objects, lists, st.builds(lambda some: {"anyOf": some}, st.lists(parts, min_size=1, max_size=3)))


SCHEMAS = st.recursive(LEAVES, larger, max_leaves=4)
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["", "a", "b", "abc", 0.5])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), inner)),
    max_leaves=4,
)


def closed(schema: Any) -> Any:
    """Without the fields that a schema does not name: an event may carry them, and they are ignored."""
    if isinstance(schema, dict):
        found = {name: closed(part) for name, part in schema.items()}
        ends = found.get("type") == "object" and found.get("additionalProperties", True) is True
        return {**found, "additionalProperties": False} if ends else found
    return [closed(part) for part in schema] if isinstance(schema, list) else schema


@given(narrow=SCHEMAS, wide=SCHEMAS, values=st.lists(VALUES, min_size=5, max_size=10))
def test_where_no_gap_is_found_every_value_of_the_one_is_a_value_of_the_other(
    narrow: dict[str, Any], wide: dict[str, Any], values: list[Any]
) -> None:
    if any(Containment(narrow, wide).gaps()):
        return
    one, other = Draft202012Validator(closed(narrow)), Draft202012Validator(wide)
    assert [value for value in values if one.is_valid(value) and not other.is_valid(value)] == []


@given(schema=SCHEMAS)
def test_a_schema_holds_itself(schema: dict[str, Any]) -> None:
    assert list(Containment(schema, deepcopy(schema)).gaps()) == []
