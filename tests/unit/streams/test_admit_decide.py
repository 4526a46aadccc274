"""Admission decides from what it is shown, the same each time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest, ReplyAddress, SearchRequest
from schemas.response import Status
from streams.accounts import Account
from streams.admit.decide import (
    AdmissionPolicy,
    Answer,
    Decision,
    Duplicate,
    Forward,
    Rebook,
    Seen,
    Settle,
    decide,
    reject,
)
from streams.admit.look import writes_of
from streams.admit.parse import Envelope, Parsed, Refusal
from streams.budgets import Budget
from streams.lifecycle import ADMISSION, UNKNOWN, RequestRecord
from streams.outlook import Outlook
from streams.sharing import NOTHING_IS_KEPT, CachePolicy

NOW = datetime(2026, 1, 31, 23, 59, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=3)
TEXT = frozenset({"completion"})
POLICY = AdmissionPolicy(
    ("claude", "openai", "perplexity"),
    {"claude": TEXT, "openai": TEXT | {"embedding"}, "perplexity": TEXT | {"search"}},
    600.0,
)
BUDGET = Budget(Decimal(1000))
ENVELOPE = Envelope("r-1", "acme", ReplyAddress(topic="replies"), "00-abc-def-01")


def completion(**fields: Any) -> Parsed:
    return Parsed(ENVELOPE, CompletionRequest(prompt="hi", workspace_id="acme", metadata={"k": "v"}, **fields))


def seen(offset: int, known: RequestRecord | None = None, wait: Outlook | None = None, **fields: Any) -> Seen:
    return Seen(offset, fields.pop("budget", BUDGET), known, wait, **fields)


def forwarded(decision: Decision) -> Forward:
    assert isinstance(decision, Forward), decision
    return decision


def answered(decision: Decision) -> Answer:
    assert isinstance(decision, Answer), decision
    return decision


def test_a_new_request_is_forwarded_to_the_providers_in_their_order() -> None:
    decision = forwarded(decide(completion(), seen(7), POLICY, NOW))
    assert decision.command.route == ("claude", "openai", "perplexity")
    assert decision.command.attempts == ()
    record = decision.record
    assert (record.admitted_by, record.admitted_at, record.month) == (7, NOW.timestamp(), "2026-01")
    assert (record.closed, record.reserved, record.sharing, record.route) == (False, 0, None, ())
    admitted = decision.command.admitted
    assert (admitted.request_id, admitted.workspace_id) == ("r-1", "acme")
    assert (admitted.reply, admitted.traceparent) == (ENVELOPE.reply, ENVELOPE.traceparent)
    assert (admitted.admitted_at, admitted.deadline) == (NOW, NOW + timedelta(seconds=600))


def test_the_same_id_from_another_record_is_a_duplicate() -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    assert decide(completion(), seen(8, first.record), POLICY, NOW) == Duplicate()
    assert decide(completion(), seen(8, first.record.close(3, 1.0)), POLICY, NOW) == Duplicate()


def test_an_id_that_settlement_met_first_is_a_duplicate() -> None:
    known = RequestRecord(admitted_by=UNKNOWN, admitted_at=NOW.timestamp())
    assert decide(completion(), seen(7, known), POLICY, NOW) == Duplicate()


def test_a_redelivery_of_an_open_request_is_forwarded_again_exactly_as_before() -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    again = decide(completion(), seen(7, first.record), POLICY, NOW + timedelta(seconds=90))
    assert again == first


def test_a_redelivery_of_a_request_that_was_answered_since_does_nothing() -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    assert decide(completion(), seen(7, first.record.close(3, 1.0)), POLICY, NOW) == Duplicate()


@pytest.mark.parametrize(
    ("account", "booked"),
    [
        (
            Account(reserved=-5, open_requests=-1, admitted_to=6, settled_to=3),
            Account(admitted_to=7, settled_to=3, touched_at=NOW.timestamp()),
        ),
        (
            Account(admitted_to=6, settled_to=2),
            Account(reserved=5, open_requests=1, admitted_to=7, settled_to=2, touched_at=NOW.timestamp()),
        ),
    ],
    ids=["released already", "to be released: the account's row is older than the record's"],
)
def test_a_redelivery_whose_reservation_is_released_and_never_booked_is_booked(
    account: Account, booked: Account
) -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    closed = replace(first.record, reserved=5).close(3, 1.0)
    again = seen(7, closed, account=account)
    decision = decide(completion(), again, POLICY, NOW)
    assert decision == Rebook("acme", closed)
    assert writes_of(decision, again, NOW) == {"@account/acme/2026-01": booked}


@pytest.mark.parametrize(
    "account",
    [
        Account(admitted_to=7, settled_to=3),
        Account(),
    ],
    ids=["booked", "restored"],
)
def test_a_redelivery_whose_reservation_is_no_debt_of_the_account_changes_nothing(account: Account) -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    closed = replace(first.record, reserved=5).close(3, 1.0)
    assert decide(completion(), seen(7, closed, account=account), POLICY, NOW) == Duplicate()


def test_a_redelivery_after_the_deadline_goes_to_its_lane_again_which_knows_whether_it_was_answered() -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    assert decide(completion(), seen(7, first.record), POLICY, LATER) == first


def test_a_redelivery_that_no_provider_answers_any_more_is_left_to_settlement() -> None:
    first = forwarded(decide(completion(), seen(7), POLICY, NOW))
    again = decide(completion(), seen(7, first.record), AdmissionPolicy((), {}), LATER)
    assert isinstance(again, Settle)
    assert again.response.status is Status.REJECTED


@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=1)])
def test_a_request_that_comes_at_its_deadline_or_later_is_expired(late: timedelta) -> None:
    decision = answered(decide(completion(deadline=NOW - late), seen(7), POLICY, NOW))
    assert decision.response.status is Status.EXPIRED
    assert decision.response.error is not None
    assert decision.response.error.code == "deadline_exceeded"
    assert decision.response.error.retryable
    assert decision.record.closed_by == ADMISSION
    assert decision.bury is None


def test_an_answer_of_admission_is_repeated_to_the_second_when_its_request_is_redelivered() -> None:
    for parsed in (completion(deadline=NOW), Parsed(ENVELOPE, CompletionRequest(prompt="hi"))):
        nobody = AdmissionPolicy((), {})
        first = answered(decide(parsed, seen(7), nobody, NOW))
        assert decide(parsed, seen(7, first.record), nobody, LATER) == first


@pytest.mark.parametrize(
    ("own", "header", "used"),
    [(30, 60, 30), (None, 60, 60), (30, None, 30), (None, None, 600)],
)
def test_the_deadline_is_the_requests_own_or_its_headers_or_the_default(
    own: int | None, header: int | None, used: int
) -> None:
    moments = [NOW + timedelta(seconds=seconds) if seconds else None for seconds in (own, header)]
    parsed = replace(completion(deadline=moments[0]), envelope=replace(ENVELOPE, expires=moments[1]))
    admitted = forwarded(decide(parsed, seen(7), POLICY, NOW)).command.admitted
    assert admitted.deadline == NOW + timedelta(seconds=used)


def test_the_requests_own_id_beats_the_envelopes() -> None:
    decision = forwarded(decide(completion(request_id="mine"), seen(7), POLICY, NOW))
    assert decision.command.admitted.request_id == "mine"


@pytest.mark.parametrize(
    ("preferred", "route"),
    [
        ((), ("claude", "openai", "perplexity")),
        (("perplexity",), ("perplexity", "claude", "openai")),
        (("openai", "claude"), ("openai", "claude", "perplexity")),
        (("openai", "openai"), ("openai", "claude", "perplexity")),
        (("unheard-of", "openai"), ("openai", "claude", "perplexity")),
    ],
)
def test_preferred_providers_come_first_and_each_one_once(preferred: tuple[str, ...], route: tuple[str, ...]) -> None:
    decision = forwarded(decide(completion(preferred_providers=preferred), seen(7), POLICY, NOW))
    assert decision.command.route == route


def test_a_provider_that_is_not_in_the_order_can_still_be_preferred() -> None:
    policy = AdmissionPolicy(("claude",), {"claude": TEXT, "openai": TEXT})
    decision = forwarded(decide(completion(preferred_providers=("openai",)), seen(7), policy, NOW))
    assert decision.command.route == ("openai", "claude")


@pytest.mark.parametrize(
    ("request_", "route"),
    [
        (EmbeddingRequest(kind="embedding", input="x"), ("openai",)),
        (SearchRequest(kind="search", query="x"), ("perplexity",)),
        (SearchRequest(kind="search", query="x", preferred_providers=("claude",)), ("perplexity",)),
    ],
)
def test_a_request_goes_only_to_providers_that_answer_its_kind(
    request_: EmbeddingRequest | SearchRequest, route: tuple[str, ...]
) -> None:
    assert forwarded(decide(Parsed(ENVELOPE, request_), seen(7), POLICY, NOW)).command.route == route


def test_a_kind_that_nobody_answers_is_rejected_and_buried() -> None:
    policy = AdmissionPolicy(("claude",), {"claude": TEXT})
    parsed = Parsed(ENVELOPE, SearchRequest(kind="search", query="x", metadata={"k": "v"}))
    decision = answered(decide(parsed, seen(7), policy, NOW))
    assert decision.response.status is Status.REJECTED
    assert decision.response.error is not None
    assert decision.response.error.code == "unsupported_operation"
    assert decision.response.error == decision.bury
    assert decision.bury is not None
    assert decision.bury.message == "None of the configured providers (claude) answers search requests."
    assert decision.response.metadata == {"k": "v"}
    assert decision.record.closed_by == ADMISSION


def test_only_unknown_providers_are_rejected_with_the_names_of_the_known_ones() -> None:
    decision = answered(decide(completion(preferred_providers=("gpt", "bard")), seen(7), POLICY, NOW))
    assert decision.response.status is Status.REJECTED
    assert decision.bury is not None
    assert decision.bury.message == (
        "None of the preferred providers (gpt, bard) is configured here; configured are: claude, openai, perplexity."
    )


class Models:
    """`local` has all llamas, `openai` all GPTs, and both one of each other's."""

    OWN: ClassVar = {"local": ("llama", "gpt-oss"), "openai": ("gpt",), "absent": ("rare",)}

    def claimants(self, model: str) -> tuple[str, ...]:
        return tuple(name for name, begins in self.OWN.items() if model.startswith(begins))

    def told(self, providers: Iterable[str]) -> str:
        return "; ".join(sorted(providers))

    def plain(self, request: CommonRequest) -> CommonRequest:
        return request.model_copy(update={"model": (request.model or "").removeprefix("openai/")})


NAMED = replace(POLICY, kinds={**POLICY.kinds, "local": TEXT}, models=Models())


@pytest.mark.parametrize(
    ("fields", "route"),
    [
        ({}, ("claude", "openai", "perplexity")),
        ({"model": "llama-4"}, ("local", "claude", "openai", "perplexity")),
        ({"model": "gpt-5"}, ("openai", "claude", "perplexity")),
        ({"model": "gpt-oss"}, ("local", "openai", "claude", "perplexity")),
        ({"model": "llama-4", "preferred_providers": ("claude",)}, ("claude", "local", "openai", "perplexity")),
        ({"preferred_providers": ("local",)}, ("local", "claude", "openai", "perplexity")),
        ({"model": "rare-1"}, ("claude", "openai", "perplexity")),
        ({"model": "who-knows", "preferred_providers": ("local",)}, ("local", "claude", "openai", "perplexity")),
    ],
)
def test_a_model_goes_to_those_who_claim_it_after_those_who_are_preferred(
    fields: dict[str, Any], route: tuple[str, ...]
) -> None:
    assert forwarded(decide(completion(**fields), seen(7), NAMED, NOW)).command.route == route


@pytest.mark.parametrize("preferred", [None, ("claude", "openai")])
def test_a_model_that_nobody_claims_is_rejected_with_what_is_known(preferred: tuple[str, ...] | None) -> None:
    asked = completion(model="who-knows", preferred_providers=preferred)
    decision = answered(decide(asked, seen(7), NAMED, NOW))
    assert decision.response.status is Status.REJECTED
    assert decision.bury is not None
    assert decision.bury.code == "unknown_model"
    assert "'who-knows'; known are: claude; local; openai; perplexity." in decision.bury.message
    assert decision.response.error == decision.bury


def test_without_any_provider_every_request_is_rejected() -> None:
    decision = answered(decide(completion(), seen(7), AdmissionPolicy((), {}), NOW))
    assert decision.response.status is Status.REJECTED


def test_a_refusal_is_answered_with_its_reason() -> None:
    response = reject(Refusal(ENVELOPE, "not_json", "The value is not JSON."), NOW)
    assert (response.request_id, response.workspace_id) == ("r-1", "acme")
    assert response.status is Status.REJECTED
    assert response.error is not None
    assert (response.error.code, response.error.message) == ("not_json", "The value is not JSON.")
    assert response.answered_at == NOW


def test_an_answer_is_kept_under_one_key_with_the_vendor_before_its_model_and_without() -> None:
    keeping = replace(NAMED, cache=CachePolicy())
    one, other = (CompletionRequest(prompt="hi", model=model) for model in ("openai/gpt-5", "gpt-5"))
    assert keeping.cache_key(one) == keeping.cache_key(other) is not None
    assert replace(keeping, models=None).cache_key(one) != replace(keeping, models=None).cache_key(other)
    assert replace(NAMED, cache=NOTHING_IS_KEPT).cache_key(one) is None
