"""Whether each value of one JSON Schema is a value of another, keyword by keyword. Pure.

It knows the keywords that our exported schemas use. Where it cannot tell (two different patterns, a keyword that it
does not know) it answers no: somebody has to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Node = Mapping[str, Any]

#: Of these the schema with the higher value holds less, of the others the one with the lower value.
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
#: Where these differ nobody can tell which holds more; a schema without them holds more than one with them.
_ONLY_EQUAL = ("pattern", "format", "multipleOf", "uniqueItems", "not", "if", "then", "else", "contains", "prefixItems")
_ALTERNATIVES = ("anyOf", "oneOf")
#: What says nothing about values.
_REMARKS = frozenset(
    (
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "$defs",
        "$id",
        "$schema",
        "$comment",
        "discriminator",
    )
)
_PARTS = (
    *("type", "const", "enum", "required", "properties", "items", "additionalProperties", "patternProperties"),
    *("propertyNames", "$ref", "allOf"),
)
_KNOWN = frozenset((*_AT_LEAST, *_AT_MOST, *_ONLY_EQUAL, *_ALTERNATIVES, *_PARTS))


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a value of the narrow schema may be none of the wide one. `field` is a path like `messages[].role`."""

    field: str
    keyword: str
    narrow: Any
    wide: Any


@dataclass
class Containment:
    """Compares two schemas, each with its own definitions."""

    narrow_root: Node
    wide_root: Node
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def gaps(self) -> Iterator[Gap]:
        """All places where the wide schema does not hold what the narrow one does."""
        yield from self._gaps(self.narrow_root, self.wide_root, "")

    def _gaps(self, narrow: Node, wide: Node, path: str) -> Iterator[Gap]:
        names = str(narrow.get("$ref")), str(wide.get("$ref"))
        if all(name != "None" for name in names):
            if names in self._seen:
                return
            self._seen.add(names)
        lefts, rights = alternatives(narrow, self.narrow_root), alternatives(wide, self.wide_root)
        for left in lefts:
            right = closest(left, rights)
            if right is None:
                yield Gap(path, "type", told(left), " or ".join(told(each) for each in rights))
            else:
                yield from self._single(left, right, path)

    def _single(self, narrow: Node, wide: Node, path: str) -> Iterator[Gap]:
        yield from _value_gaps(narrow, wide, path)
        for name in sorted(set(wide.get("required", ())) - set(narrow.get("required", ()))):
            yield Gap(_step(path, name), "required", False, True)
        yield from self._properties(narrow, wide, path)
        if "items" in wide:
            yield from self._gaps(narrow.get("items", {}), wide["items"], f"{path}[]")
        yield from self._free(narrow, wide, path)

    def _properties(self, narrow: Node, wide: Node, path: str) -> Iterator[Gap]:
        mine, theirs = narrow.get("properties", {}), wide.get("properties", {})
        free, other_free = narrow.get("additionalProperties"), wide.get("additionalProperties")
        for name in sorted(mine.keys() | theirs.keys()):
            left, right = mine.get(name, free), theirs.get(name, other_free)
            if right is False and left is not False:
                yield Gap(_step(path, name), "additionalProperties", True, False)
            # A field that the narrow schema does not name is not expected in its values, though it would be ignored.
            elif isinstance(left, Mapping) and isinstance(right, Mapping):
                yield from self._gaps(left, right, _step(path, name))

    def _free(self, narrow: Node, wide: Node, path: str) -> Iterator[Gap]:
        """Fields that have no names of their own."""
        mine, theirs = narrow.get("additionalProperties", True), wide.get("additionalProperties", True)
        if theirs is False and mine is not False:
            yield Gap(path, "additionalProperties", mine, theirs)
        elif isinstance(theirs, Mapping) and mine is not False:
            yield from self._gaps(mine if isinstance(mine, Mapping) else {}, theirs, f"{path}{{}}")
        if "propertyNames" in wide:
            yield from self._gaps(narrow.get("propertyNames", {}), wide["propertyNames"], f"{path}{{name}}")
        own, other = narrow.get("patternProperties", {}), wide.get("patternProperties", {})
        for pattern, part in other.items():
            if pattern not in own:
                yield Gap(path, "patternProperties", sorted(own), sorted(other))
            else:
                yield from self._gaps(own[pattern], part, f"{path}{{}}")


def _value_gaps(narrow: Node, wide: Node, path: str) -> Iterator[Gap]:
    if not _types(narrow) <= _types(wide):
        yield Gap(path, "type", told(narrow), told(wide))
    allowed, possible = _values(wide), _values(narrow)
    if allowed is not None and (possible is None or any(value not in allowed for value in possible)):
        yield Gap(path, "enum", possible, allowed)
    for keywords, sign in ((_AT_LEAST, 1), (_AT_MOST, -1)):
        for name in keywords:
            if name in wide and (name not in narrow or sign * narrow[name] < sign * wide[name]):
                yield Gap(path, name, narrow.get(name), wide[name])
    unknown = sorted(wide.keys() - _KNOWN - _REMARKS)
    for name in (*_ONLY_EQUAL, *unknown):
        # A constant has its form already.
        if name in wide and narrow.get(name) != wide[name] and possible is None:
            yield Gap(path, name, narrow.get(name), wide[name])


def resolved(node: Node, root: Node) -> Node:
    """The schema itself, where only its name is given; what stands beside the name counts as well."""
    while "$ref" in node or len(node.get("allOf", ())) == 1:
        if "$ref" in node:
            name = str(node["$ref"]).removeprefix("#/$defs/")
            found, beside = root["$defs"][name], "$ref"
        else:
            found, beside = node["allOf"][0], "allOf"
        node = {**found, **{key: value for key, value in node.items() if key != beside}}
    return node


def alternatives(node: Node, root: Node) -> list[Node]:
    """The schemas one of which a value must match, without alternatives of their own."""
    node = resolved(node, root)
    for keyword in _ALTERNATIVES:
        if keyword in node:
            beside = {key: value for key, value in node.items() if key != keyword and key not in _REMARKS}
            return [{**beside, **each} for part in node[keyword] for each in alternatives(part, root)]
    types = node.get("type")
    return [{**node, "type": one} for one in types] if isinstance(types, list) else [node]


def closest(one: Node, others: list[Node]) -> Node | None:
    """The alternative that is meant by the same: of the same type, and of the same `kind` or name where there are
    several.
    """
    if one in others:
        return one
    fitting = [other for other in others if _types(one) <= _types(other)]
    if len(others) > 1 and _tag(one) is not None:
        return next((other for other in fitting if _tag(other) == _tag(one)), None)
    if len(fitting) > 1:
        for same in (lambda node: node.get("title"), _values):
            if named := [other for other in fitting if same(one) is not None and same(other) == same(one)]:
                return named[0]
        return next((other for other in fitting if not any(_value_gaps(one, other, ""))), fitting[0])
    return fitting[0] if fitting else None


def _tag(node: Node) -> Any:
    """The constant by which an alternative is told from the others."""
    kind = node.get("properties", {}).get("kind", {})
    return kind.get("const")


_ALL = frozenset(("string", "integer", "number", "boolean", "null", "array", "object"))


def _types(node: Node) -> frozenset[str]:
    stated = node.get("type")
    if stated is None:
        return _ALL
    return frozenset(("integer", "number")) if stated == "number" else frozenset((stated,))


def _values(node: Node) -> list[Any] | None:
    """The only values there are; None where they are not listed."""
    if "const" in node:
        return [node["const"]]
    return list(node["enum"]) if "enum" in node else None


def told(node: Node) -> str:
    """A schema in a word."""
    kind = _tag(node)
    return f"kind {kind}" if kind is not None else str(node.get("type", "anything"))


def _step(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
