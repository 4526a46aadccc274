"""The newest dead letters: what is wrong with each and where it was, never what is in it. Pure."""

from __future__ import annotations

from app.web.facts import Letter, Seen
from app.web.markup import Html, short, tag
from app.web.words import clock, state

#: Of a reason: it may name what the sender has named, as long as that is.
MOST = 300


def letters(seen: Seen) -> Html:
    if not seen.streams.letters:
        said = "There is no dead letter." if seen.streams.at else "Nothing is known of dead letters."
        return tag("p", said, class_="quiet")
    return tag("ul", [tag("li", _letter(each, seen), class_="letter") for each in seen.streams.letters], class_="list")


def _letter(each: Letter, seen: Seen) -> Html:
    head = tag(
        "div", clock(each.at, seen.now), " ", state(short(each.code, 60), "bad"), " ", _redrive(each), class_="head"
    )
    place = tag("p", f"From {short(each.origin, 120)}; now at {each.place}.", class_="quiet")
    return tag("div", head, tag("p", short(each.message, MOST), class_="line"), place)


def _redrive(each: Letter) -> Html:
    hidden = tag("input", type="hidden", name="place", value=each.place)
    told = tag("span", f" the dead letter {each.place}", class_="unseen")
    button = tag("button", "Send again", told, id=f"letter-{each.place}")
    return tag(
        "form",
        hidden,
        button,
        method="post",
        action="letters/redrive",
        data_ask=f"Send the dead letter {each.place} again?",
    )
