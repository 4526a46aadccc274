"""The whole document, its live parts, and the small pages beside it. Pure: values in, HTML out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from app.web.budgets import budgets
from app.web.costs import costs
from app.web.facts import Seen
from app.web.flow import flow
from app.web.lanes import lanes
from app.web.latest import latest
from app.web.letters import letters
from app.web.markup import Child, Html, join, tag
from app.web.words import clock

log = logging.getLogger(__name__)

#: The parts of the page, in order: id, heading, and what makes it.
SECTIONS: tuple[tuple[str, str, Callable[[Seen], Html]], ...] = (
    ("flow", "Now", flow),
    ("lanes", "Lanes", lanes),
    ("budgets", "Budgets", budgets),
    ("costs", "Cost", costs),
    ("latest", "Latest requests", latest),
    ("letters", "Dead letters", letters),
)
#: Seconds between two looks of a browser without JavaScript.
WITHOUT_SCRIPT = 5


def live(seen: Seen) -> dict[str, str]:
    """What changes, by the id of its element."""
    parts = {f"live-{name}": _made(make, seen) for name, _, make in SECTIONS}
    return {"at": join("As of ", clock(seen.now, seen.now), " UTC"), "notices": notices(seen), **parts}


def _made(make: Callable[[Seen], Html], seen: Seen) -> Html:
    """One part that cannot be made must not take the others away."""
    try:
        return make(seen)
    except Exception:
        log.exception("page_part_failed")
        return tag("p", "This part cannot be shown; the page's log says why.", class_="quiet")


def notices(seen: Seen) -> Html:
    """What is away, a sentence each, and how old the rest is."""
    found = []
    for source, shows in ((seen.streams, "Lanes, budgets and dead letters"), (seen.ledger, "Figures and requests")):
        if source.problem is not None:
            since = join(f"{shows} are as of ", clock(source.at, seen.now), " UTC: ") if source.at else None
            found.append(tag("p", since, source.problem, class_="notice"))
    return join(found)


def document(parts: Mapping[str, str], *, can_leave: bool = False) -> Html:
    """The page with its live parts in it, so that it says something before any script has run."""
    links = [tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in SECTIONS]
    leave = tag("form", tag("button", "Log out"), method="post", action="logout") if can_leave else None
    top = tag(
        "header",
        tag("h1", "Spillway"),
        tag("p", _part(parts, "at"), id="at", class_="quiet"),
        tag("nav", tag("ul", links), aria_label="Parts of the page"),
        leave,
    )
    said = tag("div", tag("div", _part(parts, "notices"), id="notices"), tag("p", id="said"), role="status")
    sections = [_section(name, heading, parts) for name, heading, _ in SECTIONS]
    refresh = tag("noscript", tag("meta", http_equiv="refresh", content=WITHOUT_SCRIPT))
    head = (refresh, tag("script", src="page.js", defer=True))
    skip = tag("a", "To the figures", href="#main", class_="skip")
    return _html("Spillway", join(skip, top, said, tag("main", sections, id="main")), head)


def _section(name: str, heading: str, parts: Mapping[str, str]) -> Html:
    title = tag("h2", heading, id=f"title-{name}")
    return tag(
        "section",
        title,
        tag("div", _part(parts, f"live-{name}"), id=f"live-{name}"),
        id=name,
        aria_labelledby=f"title-{name}",
    )


def _part(parts: Mapping[str, str], name: str) -> Html:
    """`live` has made it, as HTML."""
    return Html(parts.get(name, ""))


def login(problem: str | None = None) -> Html:
    field = tag(
        "input",
        type="password",
        id="token",
        name="token",
        autocomplete="current-password",
        required=True,
        autofocus=True,
    )
    told = tag("p", problem, class_="notice", role="alert") if problem else None
    form = tag(
        "form", tag("label", "Token (AI_WEB_TOKEN)", for_="token"), field, tag("button", "Log in"), method="post"
    )
    return _html("Spillway: log in", tag("main", tag("h1", "Spillway"), told, form, class_="login"))


def message(told: str, back: str) -> Html:
    """One sentence, for browsers without JavaScript and for what went wrong."""
    return _html(
        "Spillway",
        tag("main", tag("h1", "Spillway"), tag("p", told), tag("p", tag("a", "Back to the page", href=back))),
        base=back,
    )


def _html(title: str, body: Html, head: Child = None, base: str = "./") -> Html:
    metas = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("link", rel="stylesheet", href=f"{base}page.css"),
    )
    return join(Html("<!doctype html>\n"), tag("html", tag("head", metas, head), tag("body", body), lang="en"))
