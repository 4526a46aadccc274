"""Stacked columns and bars as SVG, without a style attribute: the page's policy allows none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.web.markup import Html, tag

WIDTH, HEIGHT = 720, 120
GAP = 0.25
FULL = 100
#: From here on a bar says that little is left, in percent.
NARROW = 80


@dataclass(frozen=True)
class Column:
    """One column: its name, and a value for each series, from the bottom up."""

    name: str
    values: Sequence[Decimal | int]
    told: str


def columns(label: str, shown: Sequence[Column], classes: Sequence[str]) -> Html:
    """The chart. `label` says for those who do not see it what it shows; each column has a title for the pointer."""
    highest = max((sum(column.values) for column in shown), default=0)
    step = WIDTH / max(len(shown), 1)
    bars = [_column(column, place * step, step, highest, classes) for place, column in enumerate(shown)]
    ground = tag("line", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT, class_="ground")
    box = f"0 0 {WIDTH} {HEIGHT + 1}"
    return tag(
        "svg", bars, ground, viewBox=box, preserveAspectRatio="none", role="img", aria_label=label, class_="chart"
    )


def _column(column: Column, left: float, step: float, highest: Decimal | int, classes: Sequence[str]) -> Html:
    parts: list[Html] = []
    floor = float(HEIGHT)
    for value, class_ in zip(column.values, classes, strict=True):
        if not value or not highest:
            continue
        # A value that is there is seen, however small it is beside the others.
        height = max(float(value / highest) * HEIGHT, 1.5)
        floor -= height
        width = f"{step * (1 - GAP):.1f}"
        x = f"{left + step * GAP / 2:.1f}"
        parts.append(tag("rect", x=x, y=f"{max(floor, 0):.1f}", width=width, height=f"{height:.1f}", class_=class_))
    # A rectangle over the whole height, so that the pointer need not hit a small bar.
    over = tag("rect", x=f"{left:.1f}", y=0, width=f"{step:.1f}", height=HEIGHT, class_="over")
    return tag("g", tag("title", f"{column.name}: {column.told}"), parts, over)


def bar(percent: float, second: float = 0.0) -> Html:
    """A bar beside its own words, so it is nothing to those who do not see it. `second` comes after the first part."""
    first = min(max(percent, 0.0), FULL)
    more = min(max(second, 0.0), FULL - first)
    kind = "bad" if percent >= FULL else "warn" if percent + second >= NARROW else "good"
    parts = (
        tag("rect", width=FULL, height=6, class_="rail"),
        tag("rect", width=f"{first:.1f}", height=6, class_=kind),
        tag("rect", x=f"{first:.1f}", width=f"{more:.1f}", height=6, class_="second") if more else None,
    )
    return tag("svg", parts, viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true", class_="bar")
