"""HTML that cannot be forgotten to be escaped: text becomes HTML only here. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

#: What has no place in a text: control characters, halves of surrogates, and what turns the direction of writing, with
#: which a name could pose as another.
_STRANGE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_VOID = frozenset({"input", "link", "meta", "br", "rect", "line"})


class Html(str):
    """HTML as it is sent. Whatever is only `str` is text, and is escaped before it becomes a part of one."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | Iterable[Child] | None"


def text(value: str) -> Html:
    return Html(escape(_STRANGE.sub("\ufffd", value), quote=True))


def short(value: str, most: int = 80) -> str:
    """The text, or its beginning and an ellipsis: no name may take the whole page."""
    return value if len(value) <= most else value[: most - 1] + "…"


def join(*children: Child) -> Html:
    return Html("".join(_html(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """An element. `class_` is class, `data_key` data-key; True is an attribute without a value, False and None none."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{written}>" if name not in ("rect", "line") else f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def _html(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int):
        return text(str(child))
    return "".join(map(_html, child))


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'
