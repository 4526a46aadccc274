"""The workspaces' budgets: limit, spent, reserved. Pure."""

from __future__ import annotations

from app.cli.standing import Standing, all_standings
from app.web.chart import FULL, NARROW, bar
from app.web.facts import Seen
from app.web.markup import Html, tag
from app.web.words import count, money, state

#: Workspaces that are shown, those with the least left first.
MOST = 24


def budgets(seen: Seen) -> Html:
    found = all_standings(seen.streams.book, seen.streams.states, None, seen.now)
    if not found:
        said = "No workspace has a budget of its own, and none has spent anything."
        return tag("p", said if seen.streams.at else "Nothing is known of budgets.", class_="quiet")
    found.sort(key=lambda each: (-_used(each), each.workspace_id))
    more = len(found) - MOST
    rest = tag("p", f"And {count(more, 'workspace')} more: spillway budget list.", class_="quiet") if more > 0 else None
    return tag("div", tag("div", map(_workspace, found[:MOST]), class_="cards"), rest)


def _used(found: Standing) -> float:
    """Percent of the budget that is spent or reserved."""
    return float((found.spent + found.reserved) * FULL / found.budget.amount)


def _workspace(found: Standing) -> Html:
    reserved = float(found.reserved * FULL / found.budget.amount)
    kind = "bad" if found.percent >= FULL else "warn" if _used(found) >= NARROW else "good"
    then = "refused" if found.budget.refuses else "alerts only"
    left = f"{money(found.left)} left, then {then}" if found.left >= 0 else f"over by {money(-found.left)}, {then}"
    line = f"{money(found.spent)} spent and {money(found.reserved)} reserved of {money(found.budget.amount)}; {left}."
    head = tag("div", tag("h3", found.workspace_id), state(f"{found.percent:g} %", kind), class_="head")
    month = tag("p", f"{found.month}. ", line, class_="line")
    return tag("article", head, month, bar(found.percent, reserved), class_="card")
