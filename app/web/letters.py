"""The newest dead letters: what is wrong with each and where it was, never what is in it. Pure."""

from __future__ import annotations

from app.dlq.letters import Letter
from app.web.facts import Seen
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
    words = (clock(each.time, seen.now), " ", state(short(each.code, 60), "bad"), " ", _again(each, seen))
    head = tag("div", words, class_="head")
    origin = each.origin
    came = (
        f"{short(origin.topic)}, partition {origin.partition}, offset {origin.offset}"
        if origin
        else "nobody knows where"
    )
    before = f" It was sent again before, {each.redrives} times." if each.redrives else ""
    place = tag("p", f"From {came}; now at {each.place}.{before}", class_="quiet")
    return tag("div", head, tag("p", short(each.message, MOST), class_="line"), place)


def _again(each: Letter, seen: Seen) -> Html | None:
    """A button, where the letter was not sent again yet and there is somewhere to send it."""
    note = seen.streams.notes.newest(each)
    if note is not None:
        return tag("span", f"sent again at {short(note.at, 40)}", class_="quiet")
    if each.origin is None:
        return None
    hidden = tag("input", type="hidden", name="place", value=str(each.place))
    told = tag("span", f" the dead letter {each.place}", class_="unseen")
    button = tag("button", "Send again", told, id=f"letter-{each.place}")
    ask = f"Send the dead letter {each.place} again?"
    return tag("form", hidden, button, method="post", action="letters/redrive", data_ask=ask)
