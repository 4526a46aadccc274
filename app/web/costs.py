"""Cost by provider and model over the last hours: a chart, and the table that says the same. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from app.web.chart import Column, columns
from app.web.facts import HourCost, Seen
from app.web.markup import Html, short, tag
from app.web.words import money, number
from schemas.money import ZERO

HOURS = 24
#: Models with a colour of their own, the dearest; the others share one.
SERIES = 5
OTHERS = ("others", "")

Name = tuple[str, str]


def costs(seen: Seen) -> Html:
    found = seen.ledger.costs
    if seen.ledger.at is None:
        return tag("p", "Nothing is known of costs.", class_="quiet")
    if not found:
        return tag("p", f"No provider was called in the last {HOURS} hours.", class_="quiet")
    totals = by_model(found)
    own = [line.name for line in totals[:SERIES]]
    hours = hours_until(seen.now)
    total = sum((line.cost for line in totals), ZERO)
    label = f"Cost by hour and model, the last {HOURS} hours: {money(total)}. The tables below say the same."
    names = [*own, OTHERS]
    bars = [_column(hour, found, names) for hour in hours]
    shown = columns(label, bars, [f"s{n}" for n in range(len(names))])
    axis = tag(
        "div",
        tag("span", f"{hours[0]:%H:%M}"),
        tag("span", f"{hours[-1]:%H:%M} UTC"),
        class_="axis",
        aria_hidden="true",
    )
    highest = max(by_hour(found).values())
    caption = tag("figcaption", f"Cost by hour, {money(total)} in {HOURS} hours, {money(highest)} in one at most")
    return tag("div", tag("figure", caption, shown, axis), _table(totals, own, total), _hours(found, hours))


class Total:
    """What a model cost in all hours."""

    def __init__(self, name: Name) -> None:
        self.name = name
        self.attempts = 0
        self.tokens = 0
        self.cost = ZERO

    def add(self, line: HourCost) -> None:
        self.attempts += line.attempts
        self.tokens += line.tokens
        self.cost += line.cost


def by_model(found: Iterable[HourCost]) -> list[Total]:
    """The dearest first."""
    totals: dict[Name, Total] = {}
    for line in found:
        name = (line.provider, line.model)
        totals.setdefault(name, Total(name)).add(line)
    return sorted(totals.values(), key=lambda total: (-total.cost, -total.attempts, total.name))


def by_hour(found: Iterable[HourCost]) -> dict[datetime, Decimal]:
    sums: defaultdict[datetime, Decimal] = defaultdict(lambda: ZERO)
    for line in found:
        sums[line.hour] += line.cost
    return dict(sums)


def hours_until(now: datetime) -> list[datetime]:
    """The hours that are shown, oldest first; the last one is not over."""
    last = now.replace(minute=0, second=0, microsecond=0)
    return [last - timedelta(hours=back) for back in reversed(range(HOURS))]


def _column(hour: datetime, found: Iterable[HourCost], names: Sequence[Name]) -> Column:
    values: defaultdict[Name, Decimal] = defaultdict(lambda: ZERO)
    for line in found:
        if line.hour == hour:
            name = (line.provider, line.model)
            values[name if name in names else OTHERS] += line.cost
    told = ", ".join(f"{short(' '.join(name).strip(), 40)} {money(cost)}" for name, cost in values.items())
    return Column(f"{hour:%H:%M}", [values[name] for name in names], told or "nothing")


def _table(totals: Sequence[Total], own: Sequence[Name], total: Decimal) -> Html:
    head = tag("tr", [tag("th", name, scope="col", class_=class_) for name, class_ in _COLUMNS])
    rows = [_row(line, own.index(line.name) if line.name in own else len(own)) for line in totals]
    foot = tag(
        "tr",
        tag("th", "all", scope="row"),
        tag("td"),
        tag("td", class_="extra"),
        tag("td", money(total), class_="number"),
    )
    caption = tag("caption", f"By provider and model, the last {HOURS} hours", class_="unseen")
    return tag("table", caption, tag("thead", head), tag("tbody", rows), tag("tfoot", foot))


_COLUMNS = (("Provider and model", None), ("Attempts", "number"), ("Tokens", "number extra"), ("Cost", "number"))


def _row(line: Total, place: int) -> Html:
    provider, model = line.name
    swatch = tag("span", class_=f"swatch s{place}", aria_hidden="true")
    name = tag("th", swatch, tag("span", short(provider), " ", tag("b", short(model, 60))), scope="row", class_="name")
    values = (number(line.attempts), number(line.tokens), money(line.cost))
    classes = [class_ for _, class_ in _COLUMNS[1:]]
    return tag("tr", name, [tag("td", value, class_=class_) for value, class_ in zip(values, classes, strict=True)])


def _hours(found: Iterable[HourCost], hours: Sequence[datetime]) -> Html:
    sums = by_hour(found)
    rows = [
        tag("tr", tag("th", f"{hour:%Y-%m-%d %H:%M}", scope="row"), tag("td", money(sums[hour]), class_="number"))
        for hour in reversed(hours)
        if hour in sums
    ]
    head = tag("tr", tag("th", "Hour (UTC)", scope="col"), tag("th", "Cost", scope="col", class_="number"))
    table = tag("table", tag("caption", "Cost by hour", class_="unseen"), tag("thead", head), tag("tbody", rows))
    return tag("details", tag("summary", "By hour, as a table"), table, data_key="hours")
