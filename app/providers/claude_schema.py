"""JSON Schemas as Claude takes them: for answers, and for the parameters of tools.

Source: "Structured outputs" and "Tool use" of Anthropic's documentation. A schema of an answer has closed objects only
and none of most constraints; the SDK's `transform_schema` puts these into the descriptions. The parameters of a tool
are an object, without alternatives at the top.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from anthropic import transform_schema

from app.providers.translation import SCHEMA_LOOSENED, TOOL_SCHEMA_LOOSENED, Translation
from app.providers.wire import Body, UnsupportedRequestError

_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_ALTERNATIVES = ("oneOf", "anyOf", "allOf")
#: Deeper than any schema that somebody has written.
_DEEPEST = 100


def answer_schema(schema: Body, translation: Translation) -> Body:
    """The schema of an answer. Raises UnsupportedRequestError for one that no closed object can stand for."""
    plain = _plain(schema)
    _check(plain)
    try:
        sent = transform_schema(plain)
    except (ValueError, TypeError, AttributeError, AssertionError):
        raise UnsupportedRequestError("Claude cannot be held to this JSON schema: a part of it has no type") from None
    if _open(sent) != _open(plain):
        translation.note(SCHEMA_LOOSENED)
    return sent


def _plain(schema: Any, depth: int = 0) -> Any:
    """The schema in today's words: definitions at their newer name, a list of types as alternatives."""
    if depth > _DEEPEST:
        raise UnsupportedRequestError("the JSON schema is nested too deeply")
    if isinstance(schema, list):
        return [_plain(part, depth + 1) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(part, depth + 1) for name, part in schema.items() if name != "$schema"}
    if isinstance(plain.get("definitions"), dict):
        plain["$defs"] = {**plain.pop("definitions"), **plain.get("$defs", {})}
    if isinstance(plain.get("$ref"), str):
        plain["$ref"] = plain["$ref"].replace("#/definitions/", "#/$defs/")
    types = plain.get("type")
    if isinstance(types, list) and types:
        rest = {name: part for name, part in plain.items() if name not in ("type", "description", "title")}
        told = {name: plain[name] for name in ("description", "title") if name in plain}
        return {**told, "anyOf": [_of_type(kind, rest) for kind in types]}
    return plain


#: What constrains values of one type only.
_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
}


def _of_type(kind: object, rest: Body) -> Body:
    others = {name for of, names in _OF_TYPE.items() if of != kind for name in names}
    return {"type": kind, **{name: part for name, part in rest.items() if name not in others and kind != "null"}}


def _check(schema: Body) -> None:
    """Raises UnsupportedRequestError for what closing all objects would make into something else."""
    for part in _parts(schema):
        is_object = part.get("type") == "object" and not any(name in part for name in _ALTERNATIVES)
        if isinstance(part.get("additionalProperties"), dict) or "patternProperties" in part:
            raise UnsupportedRequestError("Claude takes no JSON schema of an object with keys of any name")
        if is_object and not part.get("properties"):
            raise UnsupportedRequestError("Claude takes no JSON schema of an object whose keys are not listed")
    definitions = schema.get("$defs")
    if _is_recursive(schema, definitions if isinstance(definitions, dict) else {}):
        raise UnsupportedRequestError("Claude takes no JSON schema that refers to itself")


def _parts(schema: Any) -> Iterator[Body]:
    """All schemas within a schema, itself included. What stands in an example or a default is none."""
    if isinstance(schema, list):
        for part in schema:
            yield from _parts(part)
    elif isinstance(schema, dict):
        yield schema
        for name, part in schema.items():
            if name in ("properties", "$defs", "patternProperties") and isinstance(part, dict):
                yield from _parts(list(part.values()))
            elif name in ("items", "prefixItems", "additionalProperties", "not", *_ALTERNATIVES):
                yield from _parts(part)


def _is_recursive(schema: Body, definitions: Body) -> bool:
    if any(part.get("$ref") == "#" for part in _parts(schema)):
        return True
    leads = {name: set(_named(_parts(part))) for name, part in definitions.items()}
    return any(_comes_back(name, name, leads, set()) for name in leads)


def _named(parts: Iterable[Body]) -> Iterator[str]:
    for part in parts:
        if isinstance(place := part.get("$ref"), str) and place.startswith("#/$defs/"):
            yield place.removeprefix("#/$defs/")


def _comes_back(start: str, at: str, leads: dict[str, set[str]], seen: set[str]) -> bool:
    for name in leads.get(at, ()):
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            if _comes_back(start, name, leads, seen):
                return True
    return False


def _open(schema: Any) -> Any:
    """Without what only closes objects: an answer that fits the closed one fits the other as well."""
    if isinstance(schema, list):
        return [_open(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        "anyOf" if name == "oneOf" else name: _open(part)
        for name, part in schema.items()
        if name != "additionalProperties"
    }


def tool_schema(parameters: object, translation: Translation) -> Body:
    """The parameters of a tool. Raises UnsupportedRequestError for names of parameters that Claude refuses."""
    if not isinstance(parameters, dict) or not parameters:
        return {"type": "object", "properties": {}}
    schema = _resolved(parameters)
    if any(name in schema for name in _ALTERNATIVES):
        translation.note(TOOL_SCHEMA_LOOSENED)
        schema = _merged(schema)
    properties = schema.get("properties")
    for name in properties if isinstance(properties, dict) else ():
        if not _PROPERTY.match(name):
            raise UnsupportedRequestError("Claude takes letters, digits, `_`, `.` and `-` in the name of a parameter")
    # Everywhere, also where it says `null` or nothing.
    return {**schema, "type": "object"}


def _resolved(schema: Body) -> Body:
    """A schema that only names one of its definitions becomes that one."""
    place = schema.get("$ref")
    if not isinstance(place, str):
        return schema
    for home in ("$defs", "definitions"):
        name = place.removeprefix(f"#/{home}/")
        known = schema.get(home)
        if name != place and isinstance(known, dict) and isinstance(known.get(name), dict):
            return {**known[name], home: known}
    return schema


def _merged(schema: Body) -> Body:
    """One object with the parameters of all alternatives; what holds for each of them only is told in words."""
    whole = {name: part for name, part in schema.items() if name not in _ALTERNATIVES}
    properties = dict(whole.get("properties") or {})
    required = set(whole.get("required") or ())
    told = {name: schema[name] for name in _ALTERNATIVES if name in schema}
    for name, variants in told.items():
        objects = [_resolved({**variant, "$defs": schema.get("$defs", {})}) for variant in variants if variant]
        for variant in objects:
            for key, part in (variant.get("properties") or {}).items():
                properties[key] = part if key not in properties else _either(properties[key], part)
        needs = [set(variant.get("required") or ()) for variant in objects]
        if needs:
            required |= set.union(*needs) if name == "allOf" else set.intersection(*needs)
    words = f"The parameters must fit this JSON schema: {orjson.dumps(told).decode()}"
    description = schema.get("description")
    whole |= {"properties": properties, "description": f"{description}\n\n{words}" if description else words}
    return {**whole, "required": sorted(required)} if required else whole


def _either(one: Any, other: Any) -> Any:
    if one == other:
        return one
    variants = one["anyOf"] if isinstance(one, dict) and set(one) == {"anyOf"} else [one]
    return {"anyOf": variants if other in variants else [*variants, other]}
