"""What flows now, and what waits. Pure: values in, HTML out."""

from __future__ import annotations

from app.web.chart import FULL, Column, columns
from app.web.facts import Flow, Minute, Seen
from app.web.markup import Html, tag
from app.web.words import count, number, seconds

#: Minutes over which the figures beside the chart are counted.
WINDOW = 5

#: What waits, in the order of the way, and what it waits for.
STEPS = ("admission", "settlement", "the ledger")


def flow(seen: Seen) -> Html:
    found, known = seen.ledger.flow, seen.ledger.at is not None
    tiles = (
        _tile("Came in", number(seen.streams.arriving), "in the last minute"),
        _tile("Answered", _rate(found) if known else "–", f"a minute, of {WINDOW}"),
        _tile("Succeeded", number(found.succeeded if known else None), _share(found.succeeded, found.answered)),
        _tile("Of these from cache", number(found.cached if known else None), _share(found.cached, found.answered)),
        _tile("Not succeeded", number(found.failed if known else None), _share(found.failed, found.answered)),
        _tile("Latency, median", seconds(found.p50), "admission to answer"),
        _tile("Latency, 95 %", seconds(found.p95), "are faster"),
        *(_tile(f"Wait for {step}", number(seen.streams.waiting.get(step)), "records") for step in STEPS),
    )
    return tag("div", tag("dl", tiles, class_="tiles"), _chart(found) if known else None)


def _tile(name: str, value: str, remark: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", tag("strong", value), " ", tag("span", remark)))


def _rate(found: Flow) -> str:
    rate = found.answered / WINDOW
    return f"{rate:,.0f}" if rate >= 10 or rate == int(rate) else f"{rate:.1f}"  # noqa: PLR2004 - two digits do


def _share(part: int, whole: int) -> str:
    return f"{part * FULL / whole:.0f} % in {WINDOW} minutes" if whole else f"in {WINDOW} minutes"


def _chart(found: Flow) -> Html:
    total = sum(each.succeeded + each.failed for each in found.minutes)
    if not total:
        return tag("p", f"Nothing was answered in the last {len(found.minutes)} minutes.", class_="quiet")
    label = f"Answers by minute, the last {len(found.minutes)} minutes: {count(total, 'answer')}."
    legend = [
        tag("li", tag("span", class_=f"swatch {class_}", aria_hidden="true"), name)
        for class_, name in (("calls", "by a call"), ("cached", "from the cache"), ("failed", "not succeeded"))
    ]
    shown = columns(label, [_column(each) for each in found.minutes], ("calls", "cached", "failed"))
    most = max(each.succeeded + each.failed for each in found.minutes)
    first, last = found.minutes[0].at, found.minutes[-1].at
    axis = tag(
        "div", tag("span", f"{first:%H:%M}"), tag("span", f"{last:%H:%M} UTC"), class_="axis", aria_hidden="true"
    )
    return tag(
        "figure",
        tag("figcaption", f"Answers by minute, {number(most)} at most"),
        shown,
        axis,
        tag("ul", legend, class_="legend"),
    )


def _column(each: Minute) -> Column:
    called = each.succeeded - each.cached
    told = f"{called} by a call, {each.cached} from the cache, {each.failed} not succeeded"
    return Column(f"{each.at:%H:%M}", (called, each.cached, each.failed), told)
