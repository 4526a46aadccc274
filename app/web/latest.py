"""The latest requests with their way through the stages; never what was asked or answered. Pure."""

from __future__ import annotations

from datetime import datetime

from app.web.facts import Answered, Seen, Tried
from app.web.markup import Html, short, tag
from app.web.path import Admitted, Called, Ended, Step, Waited, path
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
    return tag("details", summary, _fields(each), _way(each, now), data_key=f"{each.workspace}/{each.request_id}")


def _spaced(part: Html) -> Html:
    """Screen readers and copied text need the space that the layout makes by itself."""
    return Html(f"{part} ")


def _fields(each: Answered) -> Html:
    shown: tuple[tuple[str, str | Html | None], ...] = (
        ("Request", short(each.request_id, 200)),
        ("Kind", each.kind),
        ("Model", each.model and short(each.model)),
        ("Purpose", each.purpose and short(each.purpose)),
        ("Error", each.error_code and short(each.error_code)),
        ("Tokens", number(each.tokens)),
        ("Saved", money(each.saved) if each.saved else None),
    )
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in shown if value], class_="fields")


def _way(each: Answered, now: datetime) -> Html:
    steps = [tag("li", _step(step, now)) for step in path(each)]
    return tag("ol", steps, class_="way", aria_label="Its way through the stages")


def _step(step: Step, now: datetime) -> list[Html | str]:
    match step:
        case Admitted(at):
            return ["admitted ", clock(at, now)]
        case Waited(waited, lane):
            where = f" in lane {short(lane, 60)}" if lane else ""
            return [f"waited {seconds(waited)}{where}"]
        case Called(tried):
            return _attempt(tried, now)
        case Ended(at, status, cached, took):
            how = " from the cache" if cached else ""
            return [
                state(status, _KINDS.get(status, "plain")),
                f"{how}, {seconds(took)} after admission, ",
                clock(at, now),
            ]


def _attempt(tried: Tried, now: datetime) -> list[Html | str]:
    model = f"{short(tried.provider, 40)} {short(tried.model, 60)}"
    lane = f" in lane {short(tried.lane, 60)}" if tried.lane else ""
    words = tried.outcome.replace("_", " ")
    error = f" ({short(tried.error_code)})" if tried.error_code else ""
    told = (
        f", {seconds(tried.latency)}, {count(tried.tokens, 'token')}, {money(tried.cost)} {tried.cost_source}, started "
    )
    called = f"attempt {tried.number}: {model}{lane}: "
    return [called, state(words + error, _KINDS.get(tried.outcome, "plain")), told, clock(tried.started_at, now)]
