"""The latest requests with their attempts; never what was asked or answered. Pure."""

from __future__ import annotations

from datetime import datetime

from app.web.facts import Answered, Seen, Tried
from app.web.markup import Html, short, tag
from app.web.words import clock, count, money, number, seconds, state

_KINDS = {"succeeded": "good", "failed": "bad", "rejected": "warn", "expired": "warn", "in_doubt": "warn"}


def latest(seen: Seen) -> Html:
    if seen.ledger.at is None:
        return tag("p", "Nothing is known of requests.", class_="quiet")
    if not seen.ledger.latest:
        return tag("p", "No request was answered in the last seven days.", class_="quiet")
    return tag("ul", [tag("li", _request(each, seen.now)) for each in seen.ledger.latest], class_="list")


def _request(each: Answered, now: datetime) -> Html:
    came = "cache" if each.cached else each.provider or "no provider"
    line = (
        clock(each.answered_at, now),
        state(each.status, _KINDS.get(each.status, "plain")),
        tag("span", short(each.workspace, 40), class_="who"),
        tag("span", short(came, 40)),
        tag("span", seconds(each.latency), class_="number"),
        tag("span", money(each.cost), class_="number"),
    )
    summary = tag("summary", [_spaced(part) for part in line])
    return tag(
        "details", summary, _fields(each, now), _attempts(each, now), data_key=f"{each.workspace}/{each.request_id}"
    )


def _spaced(part: Html) -> Html:
    """Screen readers and copied text need the space that the layout makes by itself."""
    return Html(f"{part} ")


def _fields(each: Answered, now: datetime) -> Html:
    shown: tuple[tuple[str, str | Html | None], ...] = (
        ("Request", short(each.request_id, 200)),
        ("Kind", each.kind),
        ("Model", each.model and short(each.model)),
        ("Purpose", each.purpose and short(each.purpose)),
        ("Error", each.error_code and short(each.error_code)),
        ("Admitted", clock(each.requested_at, now) if each.requested_at else None),
        ("Tokens", number(each.tokens)),
        ("Saved", money(each.saved) if each.saved else None),
    )
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in shown if value], class_="fields")


def _attempts(each: Answered, now: datetime) -> Html:
    if not each.tried:
        said = "Answered from the cache; no provider was called." if each.cached else "No attempt is in the ledger."
        return tag("p", said, class_="quiet")
    return tag("ol", [tag("li", _attempt(tried, now), value=tried.number) for tried in each.tried], class_="attempts")


def _attempt(tried: Tried, now: datetime) -> list[Html | str]:
    model = f"{short(tried.provider, 40)} {short(tried.model, 60)}"
    lane = f" in lane {short(tried.lane, 60)}" if tried.lane else ""
    words = tried.outcome.replace("_", " ")
    error = f" ({short(tried.error_code)})" if tried.error_code else ""
    told = f" {model}{lane}, {seconds(tried.latency)}, {count(tried.tokens, 'token')}, "
    paid = f"{money(tried.cost)} {tried.cost_source}, started "
    return [state(words + error, _KINDS.get(tried.outcome, "plain")), told, paid, clock(tried.started_at, now)]
