"""The lanes: how each stands, what it spent of its limits, and the buttons that pause and resume it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from app.cli.lanes import standing
from app.web.chart import FULL, bar
from app.web.facts import Seen
from app.web.markup import Html, join, tag
from app.web.words import number, seconds, state
from schemas.control import LaneState, LimitState, Mode
from streams.topology import Lane

_LIMITS = (
    ("rpm", "requests a minute"),
    ("rph", "requests an hour"),
    ("tpm", "tokens a minute"),
    ("tph", "tokens an hour"),
)
_KINDS = {"open": "good", "paused": "warn", "draining": "warn", "waits": "warn", "circuit_half_open": "warn"}


def lanes(seen: Seen) -> Html:
    quotas = [(quota, list(found)) for quota, found in groupby(seen.lanes, lambda lane: lane.quota)]
    return tag("div", [_quota(quota, found, seen) for quota, found in quotas], class_="cards")


def _quota(quota: str, found: list[Lane], seen: Seen) -> Html:
    mode = seen.streams.modes.get(quota, Mode.OPEN)
    head = tag("div", tag("h3", quota), _buttons(quota, mode) if seen.streams.at else None, class_="head")
    return tag("article", head, [_lane(lane, seen, alone=len(found) == 1) for lane in found], class_="card")


def _buttons(quota: str, mode: Mode) -> Html:
    """One of the two. Its name says what it is for: a list of buttons is read without what stands around them."""
    action, said = ("pause", "Pause") if mode is Mode.OPEN else ("resume", "Resume")
    hidden = tag("input", type="hidden", name="target", value=quota)
    button = tag("button", said, tag("span", f" {quota}", class_="unseen"), id=f"mode-{quota}")
    return tag("form", hidden, button, method="post", action=f"lanes/{action}")


def _lane(lane: Lane, seen: Seen, *, alone: bool) -> Html:
    found = seen.streams.lanes.get(lane.name)
    name = None if alone else tag("h4", lane.name)
    backlog = _backlog(seen.streams.lane_backlog.get(lane.name))
    asked = seen.streams.modes.get(lane.quota, Mode.OPEN)
    # What an operator has asked of a lane holds, whether the lane has said so yet or not.
    wanted = None if asked is Mode.OPEN else join(state(asked, "warn"), ". ")
    if found is None:
        words = f"No work yet. {backlog}" if seen.streams.at else "Nothing is known of it."
        return tag("div", name, tag("p", wanted, words, class_="quiet"))
    word, told = standing(found, seen.now)
    if word == "silent":
        # Its windows have moved on since, so its limits are not shown.
        return tag("div", name, tag("p", wanted, state(told, "plain"), f". {backlog}", class_="line"))
    kind = _KINDS.get(word, "bad" if word.startswith("circuit") else "plain")
    line = tag("p", state(told, kind), ": ", _work(found), " ", backlog, class_="line")
    return tag("div", name, line, tag("ul", _bars(found), class_="bars"))


def _work(found: LaneState) -> str:
    wait = f", about {seconds(found.wait)} of waiting" if found.wait else ""
    return f"{number(found.waiting)} waiting, {number(found.in_flight)} in flight{wait}."


def _backlog(backlog: int | None) -> str:
    return "" if backlog is None else f"Backlog {number(backlog)}."


def _bars(found: LaneState) -> Iterable[Html]:
    for name, what in _LIMITS:
        limit: LimitState = getattr(found, name)
        if limit.limit is not None:
            told = f"{number(limit.used)} of {number(limit.limit)}"
            yield tag("li", tag("span", what), tag("span", told), bar(limit.used * FULL / limit.limit))
