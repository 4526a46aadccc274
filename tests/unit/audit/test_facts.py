"""What an audit keeps of records."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from app.audit.facts import Place, RequestReader, answered, dollars, milliseconds, nanos, used
from app.repricing import Occasion, Priced, reprice
from schemas.codec import encode
from schemas.response import AttemptSummary, Response, Status, Usage
from schemas.usage import Outcome
from streams.admit.parse import Raw, parse
from tests.support.values.usage import NOVEMBER, PerToken, usage

PLACE = Place("ai.requests", 3, 42, 1_700_000_000_000)
READER = RequestReader(max_bytes=1_000, deadline=600.0)


def body(**fields: object) -> bytes:
    return json.dumps({"prompt": "hello", **fields}).encode()


def test_a_request_is_named_as_admission_names_it() -> None:
    _, named = READER.read(body(request_id="r", workspace_id="w"), (), PLACE, waits=False)
    _, by_header = READER.read(body(), (("ce_id", b"r-1"),), PLACE, waits=False)
    _, by_place = READER.read(body(), (), PLACE, waits=True)
    identity = "ai.requests/3/42/1700000000000"
    assert (named.key, by_header.key) == ("w/r", "default/r-1")
    assert by_place.key == f"default/{parse(Raw(body(), (), identity), max_bytes=1_000).envelope.request_id}"
    assert by_place.waits


def test_a_request_is_due_at_its_own_deadline_or_at_the_default_one() -> None:
    late = datetime(2030, 1, 1, tzinfo=UTC)
    headers = (("ce_expirytime", late.isoformat().encode()),)
    assert READER.read(body(), (), PLACE, waits=False)[1].due == PLACE.timestamp + 600_000
    assert READER.read(body(deadline=late.isoformat()), (), PLACE, waits=False)[1].due == milliseconds(late)
    assert READER.read(body(), headers, PLACE, waits=False)[1].due == milliseconds(late)


@pytest.mark.parametrize("value", [None, b"{", b"[]", body(kind="telepathy"), b"x" * 2_000])
def test_what_is_no_request_is_refused_where_it_lies_and_due_at_once(value: bytes | None) -> None:
    workspace, fact = READER.read(value, (), PLACE, waits=False)
    assert (workspace, fact.refused, fact.home, fact.due) == ("default", True, True, PLACE.timestamp)


def response(**fields: object) -> Response:
    attempts = (
        AttemptSummary(attempt=1, provider="openai", model="m", outcome=Outcome.FAILED),
        AttemptSummary(attempt=2, provider="openai", model="m", outcome=Outcome.SUCCEEDED, cost=Decimal("0.25")),
    )
    given = {
        "request_id": "r",
        "workspace_id": "w",
        "status": Status.SUCCEEDED,
        "attempts": attempts,
        "usage": Usage(cost=Decimal("0.25")),
        "latency": 2.0,
        "answered_at": NOVEMBER,
        **fields,
    }
    return Response(**given)


def test_a_response_is_kept_as_names_and_money() -> None:
    fact = answered(encode(response(content="secret")), waits=False)
    assert fact is not None
    assert (fact.key, fact.status, fact.cost) == ("w/r", "succeeded", 250_000_000)
    assert fact.attempts == ((1, 0, False), (2, 250_000_000, False))
    assert fact.at - fact.asked == 2_000
    assert "secret" not in repr(fact)


def test_repeats_mean_the_same_whenever_they_were_given_and_another_answer_does_not() -> None:
    def meaning(**fields: object) -> int:
        fact = answered(encode(response(**fields)), waits=False)
        assert fact is not None
        return fact.meaning

    assert meaning() == meaning(answered_at=NOVEMBER + timedelta(seconds=1), latency=3.0)
    assert len({meaning(), meaning(content="x"), meaning(status=Status.FAILED), meaning(cached=True)}) == 4


def test_usage_is_kept_with_its_version_and_its_cost_before_corrections() -> None:
    event = usage("w", request_id="r", attempt=2, cost="0.5")
    occasion = Occasion("run", NOVEMBER, "ann", "why")
    right = reprice(Priced(event, event.version), PerToken("0.01"), occasion)
    assert not isinstance(right, str)
    before, after = used(encode(event), waits=False), used(encode(right), waits=False)
    assert before is not None
    assert after is not None
    assert (before.key, before.attempt, before.version, before.month) == ("w/r", 2, event.version, "2026-11")
    assert (before.cost, before.original, before.corrected) == (500_000_000, 500_000_000, False)
    assert (after.cost, after.original, after.corrected) == (1_200_000_000, 500_000_000, True)
    assert before.known
    assert after.version > before.version


@pytest.mark.parametrize("value", [None, b"", b"{}", b"not json"])
def test_what_cannot_be_read_is_nothing(value: bytes | None) -> None:
    assert answered(value, waits=False) is None
    assert used(value, waits=False) is None


def test_money_and_back() -> None:
    assert dollars(nanos(Decimal("123.456789012"))) == Decimal("123.456789012")
