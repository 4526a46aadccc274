"""Which past requests are published again, and as what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.replay.choose import Again, Chooser, Skipped, Stored, Wanted
from schemas.codec import Headers, header
from streams.admit.parse import Parsed, Raw, parse

NOW = 1_800_000_000.0
WINDOW = 86_400.0
OLD = NOW - WINDOW - 1


def stored(body: Any = None, *, headers: Headers = (), timestamp: float = OLD, offset: int = 0) -> Stored:
    value = (
        body if isinstance(body, bytes) else json.dumps({"prompt": "hi", "request_id": "r", **(body or {})}).encode()
    )
    return Stored(b"k", value, headers, 3, timestamp, f"ai.requests/3/{offset}/0")


def choose(record: Stored, status: str | None = None, **wanted: Any) -> Again | Skipped | None:
    chooser = Chooser(Wanted(NOW, WINDOW, **wanted), 100_000)
    return chooser.choose(record, chooser.read(record), status)


def admitted(again: Again) -> Parsed:
    """What admission makes of it, at another place of the topic."""
    found = parse(Raw(again.value, again.headers, "ai.requests/0/99/1"), max_bytes=100_000)
    assert isinstance(found, Parsed)
    return found


def sent(verdict: Again | Skipped | None) -> Again:
    assert isinstance(verdict, Again), verdict
    return verdict


@pytest.mark.parametrize("status", [None, "failed", "rejected", "expired"])
def test_what_has_not_succeeded_goes_again_byte_for_byte(status: str | None) -> None:
    record = stored({"unknown": [1, 2.50]}, headers=(("x", b"1"),))
    again = sent(choose(record, status))
    assert (again.value, again.headers, again.request_id) == (record.value, record.headers, "r")


def test_what_has_succeeded_or_is_known_to_admission_does_not_go_under_its_own_id() -> None:
    assert choose(stored(), "succeeded") is Skipped.SUCCEEDED
    assert choose(stored(timestamp=NOW - WINDOW + 1), "failed") is Skipped.KNOWN


@pytest.mark.parametrize("status", [None, "failed", "succeeded"])
def test_again_gives_a_new_id_whatever_became_of_it(status: str | None) -> None:
    again = sent(choose(stored({"metadata": {"a": "b"}}, timestamp=NOW), status, suffix=".2"))
    found = admitted(again)
    assert found.envelope.request_id == again.request_id == "r.2"
    assert found.request.metadata == {"a": "b"}


def test_an_id_in_the_header_is_replaced_there_and_the_value_stays() -> None:
    record = stored(b'{"prompt":  "spaced"}', headers=(("CE_ID", b"h"), ("correlation_id", b"c")))
    again = sent(choose(record, suffix=".2"))
    assert again.value == record.value
    assert again.headers == (("correlation_id", b"c"), ("ce_id", b"h.2"))
    assert admitted(again).envelope.request_id == "h.2"


def test_a_cloud_event_in_structured_mode_gets_its_new_id_inside() -> None:
    event = {"id": "e", "type": "ai.request", "data": {"prompt": "hi", "request_id": "r"}}
    record = stored(json.dumps(event).encode(), headers=(("content-type", b"application/cloudevents+json"),))
    assert admitted(sent(choose(record, suffix=".2"))).envelope.request_id == "r.2"


def test_a_request_that_brought_no_id_keeps_the_one_it_was_given() -> None:
    record = stored(b'{"prompt":"hi"}')
    again = sent(choose(record))
    assert again.value == record.value
    assert header(again.headers, "ce_id") == again.request_id.encode()
    assert admitted(again).envelope.request_id == again.request_id


def test_the_second_record_of_an_id_is_a_repeat() -> None:
    chooser = Chooser(Wanted(NOW, WINDOW), 100_000)
    verdicts = [chooser.choose(each, chooser.read(each), None) for each in (stored(), stored(offset=1))]
    assert [type(verdict) for verdict in verdicts] == [Again, Skipped]
    assert verdicts[1] is Skipped.REPEATED


def test_an_earlier_replay_with_the_same_suffix_is_not_replayed() -> None:
    assert choose(stored({"request_id": "r.2"}), suffix=".2") is Skipped.REPEATED
    assert sent(choose(stored({"request_id": "r.2"}), suffix=".3")).request_id == "r.2.3"


def test_what_cannot_be_answered_any_more_is_left() -> None:
    assert choose(stored({"deadline": "2020-01-01T00:00:00Z"})) is Skipped.TOO_LATE
    assert choose(stored(headers=(("ce_expirytime", b"2020-01-01T00:00:00Z"),)), suffix=".2") is Skipped.TOO_LATE
    assert choose(stored(b"not json")) is Skipped.UNREADABLE
    assert choose(stored(b"not json"), filters={"kind": "completion"}) is None
    assert choose(stored({"request_id": "r" * 199}), suffix=".22") is Skipped.ID_TOO_LONG


@pytest.mark.parametrize(
    ("filters", "meant"),
    [
        ({"workspace_id": "acme"}, True),
        ({"workspace_id": "other"}, False),
        ({"model": "gpt-*", "kind": "completion"}, True),
        ({"model": "gpt-*", "kind": "search"}, False),
        ({"status": "failed"}, True),
        ({"status": "none"}, False),
        ({"purpose": "?*"}, False),
        ({"priority": "batch"}, True),
    ],
)
def test_all_filters_must_fit(filters: dict[str, str], meant: bool) -> None:
    record = stored({"workspace_id": "acme", "model": "gpt-4o", "priority": "batch"})
    assert isinstance(choose(record, "failed", filters=filters), Again) is meant
    assert (choose(record, "failed", filters=filters) is None) is not meant


@given(
    request_id=st.one_of(st.none(), st.from_regex(r"\A[\x21-\x7e]{1,200}\Z")),
    ce_id=st.one_of(st.none(), st.from_regex(r"\A[\x21-\x7e]{1,200}\Z")),
    age=st.floats(0, 3 * WINDOW),
    status=st.sampled_from([None, "failed", "succeeded"]),
    suffix=st.one_of(st.none(), st.just(".again")),
)
def test_admission_reads_the_id_that_is_told_and_nothing_that_succeeded_keeps_its_own(
    request_id: str | None, ce_id: str | None, age: float, status: str | None, suffix: str | None
) -> None:
    body = {"prompt": "hi"} | ({"request_id": request_id} if request_id else {})
    headers = (("ce_id", ce_id.encode()),) if ce_id else ()
    record = stored(json.dumps(body).encode(), headers=headers, timestamp=NOW - age)
    verdict = choose(record, status, suffix=suffix)
    if not isinstance(verdict, Again):
        return
    assert admitted(verdict).envelope.request_id == verdict.request_id
    if suffix is None:
        assert status != "succeeded"
        assert verdict.value == record.value
    else:
        assert verdict.request_id.endswith(suffix)
