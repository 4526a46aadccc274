"""What is known becomes a page: all of it is there, escaped, and nothing else."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dlq.letters import Place
from app.dlq.notes import Note, Notes
from app.web import page
from app.web.budgets import MOST
from app.web.costs import SERIES, by_model
from app.web.facts import Seen
from app.web.markup import Html, join, tag, text
from schemas.control import Mode
from tests.unit.web import making
from tests.unit.web.making import HOSTILE, NOW, seen

#: Characters that turn the direction of writing.
TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Reader(HTMLParser):
    """Reads a document as a browser would; one that is not well nested fails."""

    VOID = frozenset({"meta", "link", "input"})

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def said(self) -> str:
        return re.sub(" (?=[:.,])", "", " ".join(" ".join(self.words).split()))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == name]


def read(of: Seen) -> Reader:
    return Reader(page.document(page.live(of)))


@pytest.mark.parametrize(
    "said",
    [
        "Came in 77 in the last minute",
        "Answered 3.6 a minute",
        "Succeeded 16 89 % in 5 minutes",
        "Of these from cache 4",
        "Not succeeded 2 11 % in 5 minutes",
        "Latency, median 250 ms",
        "Latency, 95 % 2.5 s",
        "Wait for admission 3 records",
        "Wait for the ledger 12 records",
        "requests a minute 30 of 50",
        "0 waiting, 0 in flight. Backlog 1,234.",
        "acme 80 %",
        "$8.00 spent and $1.00 reserved of $10.00; $1.00 left, then refused.",
        "Cost by hour, $0.5000 in 24 hours",
        "claude m 2 30 $0.5000",
        "15:04:05 succeeded acme claude 1.5 s $0.5000",
        "attempt 1: claude m in lane claude/0: succeeded, 1.2 s, 15 tokens, $0.5000 computed, started 15:04:05",
        "not_json Send again",
        "The value is not JSON. From ai.requests, partition 1, offset 2; now at 3@17.",
    ],
)
def test_what_is_known_is_on_the_page(said: str) -> None:
    assert said in read(seen()).said


def test_a_budget_that_is_passed_says_by_how_much() -> None:
    over = making.budget_state(spent="12.5", reserved="0")
    said = read(seen(making.streams(states={over.key: over}))).said
    assert "$12.50 spent and $0 reserved of $10.00; over by $2.50, refused." in said


def test_a_limit_that_is_none_has_no_bar() -> None:
    assert "tokens an hour" not in read(seen()).said


def test_before_anybody_has_answered_the_page_says_so_and_offers_no_button() -> None:
    found = read(making.nothing())
    assert found.said.count("Nothing is known of") == 2 + 4
    assert not found.all("button")


def test_an_empty_system_is_said_to_be_empty() -> None:
    streams = replace(making.nothing().streams, at=NOW)
    found = read(seen(streams, making.ledger(flow=making.nothing().ledger.flow, costs=(), latest=()))).said
    for sentence in (
        "No work yet.",
        "No workspace has",
        "No provider was called",
        "No request was",
        "There is no dead",
    ):
        assert sentence in found


def hostile(value: Any) -> Any:
    """The same value with every text in it hostile."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(map(hostile, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: hostile(getattr(value, each.name)) for each in fields(value)})
    return value


def test_hostile_text_is_text() -> None:
    ledger = replace(hostile(making.ledger()), problem=HOSTILE)
    state = making.lane_state(lane=HOSTILE, provider=HOSTILE)
    streams = making.streams(letters=(hostile(making.letter()),), lanes={"claude/0": state}, problem=HOSTILE)
    document = page.document(page.live(seen(streams, ledger)))
    found = Reader(document)
    assert "alert(" in found.said
    assert [attributes.get("src") for attributes in found.all("script")] == ["page.js"]
    assert not re.search("[\u202a-\u202e\x00]", document)
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on") or name == "style"]


@given(st.text())
def test_any_text_comes_out_as_itself_or_with_what_is_strange_replaced(value: str) -> None:
    html = tag("p", value, title=value)
    html.encode()
    found = Reader(html)
    assert [name for name, _ in found.tags] == ["p"]
    assert found.all("p")[0]["title"] == "".join(found.words)
    for given_, shown in zip(value, "".join(found.words), strict=True):
        strange = unicodedata.category(given_) in ("Cc", "Cs") and given_ not in "\t\n"
        assert shown == ("\ufffd" if strange or given_ in TURNING else given_)


def test_only_html_is_taken_for_html() -> None:
    assert join("<", Html("<b>"), 1, None, ["&"]) == "&lt;<b>1&amp;"
    assert text("'\"") == "&#x27;&quot;"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"mode": Mode.PAUSED}, "paused: 0 waiting"),
        ({"circuit": "open", "reopens_at": NOW + timedelta(seconds=9)}, "circuit open, reopens in 9 s: 0 waiting"),
        ({"paused_until": NOW + timedelta(seconds=4)}, "waits 4 s (the provider asked): 0 waiting"),
        ({"waiting": 12, "in_flight": 3, "wait": 61.0}, "12 waiting, 3 in flight, about 61.0 s of waiting."),
        ({"at": NOW - timedelta(minutes=1)}, "silent since 2026-11-25 15:03:05 UTC. Backlog 1,234."),
    ],
)
def test_how_a_lane_stands(state: dict[str, Any], said: str) -> None:
    assert said in read(seen(making.streams(lanes={"claude/0": making.lane_state(**state)}))).said


def test_a_lane_that_is_paused_has_a_button_that_resumes_it_even_before_it_has_said_a_word() -> None:
    found = read(seen(making.streams(lanes={}, modes={"claude": Mode.PAUSED})))
    assert "Resume claude paused. No work yet." in found.said
    assert "Pause openai" in found.said
    assert [each["action"] for each in found.all("form")] == ["lanes/resume", "lanes/pause", "letters/redrive"]


def test_a_letter_that_was_sent_again_has_no_second_button() -> None:
    sent = making.letter()
    notes = Notes()
    notes.hear(Note(sent.place, sent.buried_at, "done", "run", "2026-11-25T15:00:00+00:00"))
    found = read(seen(making.streams(letters=(sent, making.letter(origin=None, place=Place(0, 1))), notes=notes)))
    assert "sent again at 2026-11-25T15:00:00+00:00" in found.said
    assert "From nobody knows where; now at 0@1." in found.said
    assert "letters/redrive" not in [each["action"] for each in found.all("form")]


def test_budgets_with_the_least_left_come_first_and_too_many_are_counted() -> None:
    names = [f"w{number:03}" for number in range(MOST + 5)]
    states = [making.budget_state(name, spent=str(number), reserved="0") for number, name in enumerate(names)]
    said = read(seen(making.streams(states={each.key: each for each in states}))).said
    assert said.index(names[-1]) < said.index(names[-2])
    # acme's own budget is one more.
    assert names[4] not in said
    assert names[5] in said
    assert "And 6 workspaces more" in said


def test_models_without_a_colour_of_their_own_share_one_and_none_is_lost() -> None:
    lines = tuple(making.cost(f"m{number}", str(number + 1)) for number in range(SERIES + 3))
    found = read(seen(of_ledger=making.ledger(costs=lines)))
    assert [total.name[1] for total in by_model(lines)][:2] == [f"m{SERIES + 2}", f"m{SERIES + 1}"]
    total = sum(line.cost for line in lines)
    assert f"Cost by hour, ${total}.00 in 24 hours" in found.said
    assert len([each for each in found.all("span") if each.get("class") == f"swatch s{SERIES}"]) == 3


def test_what_is_away_is_said_with_the_age_of_what_is_shown() -> None:
    minute_ago = NOW - timedelta(minutes=1)
    notices = Reader(page.notices(seen(making.streams(problem="Kafka is away."), making.ledger(at=minute_ago)))).said
    assert notices == "Lanes, budgets and dead letters are as of 15:04:05 UTC: Kafka is away."
    notices = Reader(page.notices(seen(of_ledger=making.ledger(at=minute_ago, problem="ClickHouse is away.")))).said
    assert notices == "Figures and requests are as of 15:03:05 UTC: ClickHouse is away."
    assert page.notices(seen()) == ""


def test_one_part_that_cannot_be_made_leaves_the_others() -> None:
    broken = replace(seen(), ledger=making.ledger(costs=(None,)))
    said = read(broken).said
    assert "This part cannot be shown" in said
    assert "The value is not JSON." in said


def test_the_document_is_made_for_everybody() -> None:
    found = read(seen())
    assert found.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in found.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {each["aria-labelledby"] for each in found.all("section")} <= set(ids)
    assert {(each["href"] or "")[1:] for each in found.all("a")} <= set(ids)
    for svg in found.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg.get("role") == "img" and svg.get("aria-label"))
    assert all(each.get("scope") for each in found.all("th"))
    assert [each.get("role") for each in found.all("div") if each.get("role")] == ["status"]


def test_the_log_in_page_has_a_label_for_its_field() -> None:
    found = Reader(page.login(HOSTILE))
    assert found.all("label")[0]["for"] == found.all("input")[0]["id"]
    assert found.all("input")[0]["type"] == "password"
    assert not found.all("script")
