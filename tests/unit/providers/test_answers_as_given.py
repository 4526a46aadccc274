"""Answers as providers really give them, through the real clients over HTTP, down to the ledger's row.

Each case is a file in tests/support/provider/answers/cases; a new one is tested as soon as it is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from app.providers.base import Access, VendorProvider
from app.providers.claude import ClaudeProvider
from app.providers.compatible import CompatibleProvider
from app.providers.keys import KeyRing
from app.providers.openai import OpenAIProvider
from app.providers.perplexity import PerplexityProvider
from schemas.request import CompletionRequest
from schemas.usage import Outcome, UsageEvent
from streams.dispatch.decide import RetryPolicy, judge_answer, judge_failure
from streams.dispatch.ports import Answer, Call, Delta, Failure
from tests.support.provider.answers.case import KINDS, TIMEOUT, Case, all_cases
from tests.support.provider.answers.server import AnswerServer, answering
from tests.unit.streams.making import ESTIMATE, NOW, attempt

PROMPT = "When is high water at the harbour of Saint-Malo?"
#: US dollars for a token in these tests.
PRICE = Decimal("0.001")
CASES = {case.name: case for case in all_cases()}


def provider_of(kind: str, base: str, timeout: float) -> VendorProvider:
    keys = KeyRing("KEY", "sk-test-1234")
    if kind == "claude":
        return ClaudeProvider(Access(keys, base, "claude-x", timeout))
    if kind in ("perplexity", "agent"):
        interface = "agent" if kind == "agent" else "sonar"
        return PerplexityProvider(Access(keys, base, "sonar", timeout, interface=interface))
    if kind == "openai":
        return OpenAIProvider(Access(keys, base, "gpt-x", timeout))
    return CompatibleProvider("mine", Access(keys, base, "llama-x", timeout))


@pytest.fixture
async def server() -> AsyncIterator[AnswerServer]:
    async with answering(CASES.values()) as running:
        yield running


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", [*KINDS, "agent"])
async def test_every_answer_becomes_what_it_is(server: AnswerServer, kind: str, streamed: bool, caplog: Any) -> None:
    cases = [case for case in cases_of(kind, streamed=streamed) if case.timeout == TIMEOUT]
    mistakes = await mistakes_in(server, kind, cases, streamed=streamed)
    assert not mistakes, "\n".join(mistakes)
    assert len(server.asked) == len(cases), "one call each, and none at an address that nobody has named"
    ours = [record for record in caplog.records if record.name.startswith(("app", "streams"))]
    assert not [record for record in ours if record.exc_info], "no traceback for what a provider does"


async def test_a_silence_ends_a_call_and_a_sign_of_life_ends_a_silence(server: AnswerServer) -> None:
    """On their own: a short time-out is no match for a hundred other calls that begin with it."""
    found = [
        (kind, streamed, [case for case in cases_of(kind, streamed=streamed) if case.timeout != TIMEOUT])
        for kind in KINDS
        for streamed in (False, True)
    ]
    assert sum(len(cases) for _, _, cases in found) > 2
    mistakes = await asyncio.gather(
        *(mistakes_in(server, kind, cases, streamed=streamed) for kind, streamed, cases in found if cases)
    )
    assert not any(mistakes), mistakes


def cases_of(kind: str, *, streamed: bool) -> list[Case]:
    return [case for case in CASES.values() if kind in case.providers and case.given(streamed=streamed) is not None]


async def mistakes_in(server: AnswerServer, kind: str, cases: list[Case], *, streamed: bool) -> list[str]:
    """What is wrong with what the cases have become, all called at once."""
    providers = {
        timeout: provider_of(kind, server.address(None, kind), timeout) for timeout in {case.timeout for case in cases}
    }
    try:
        found = await asyncio.gather(*(mistake_in(case, providers[case.timeout], streamed) for case in cases))
    finally:
        for provider in providers.values():
            await provider.close()
    return [mistake for mistake in found if mistake is not None]


async def mistake_in(case: Case, provider: VendorProvider, streamed: bool) -> str | None:
    """What is wrong with what a case has become."""
    told: list[Delta] = []

    async def tell(delta: Delta) -> None:
        told.append(delta)

    request = CompletionRequest(prompt=PROMPT, stream=streamed)
    call = Call(request, provider.model_for(request), timeout=10.0, attempt_id=f"{case.name}/1")
    result = await provider.call(call, tell if streamed else None)
    try:
        check(result, case.expected(streamed=streamed), told if streamed else None)
    except AssertionError as error:
        return f"{case.name}: {error}"
    return None


def check(result: Answer | Failure, expected: dict[str, Any], told: list[Delta] | None) -> None:
    if "failure" in expected:
        check_failure(result, expected)
    else:
        check_answer(result, expected)
        assert isinstance(result, Answer)
        if told is not None:
            check_told(result, told)
    check_row(row_of(result), result)


def check_failure(result: Answer | Failure, expected: dict[str, Any]) -> None:
    assert isinstance(result, Failure), result
    assert (result.code, result.may_be_billed) == (expected["failure"], expected["billed"])
    assert expected.get("message", "") in result.message
    assert PROMPT not in result.message
    if "tokens" in expected:
        assert result.tokens is not None
        assert [result.tokens.prompt_tokens, result.tokens.completion_tokens] == expected["tokens"]


def check_answer(result: Answer | Failure, expected: dict[str, Any]) -> None:
    assert isinstance(result, Answer), result
    calls = [f"{call['function']['name']} {call['function']['arguments']}" for call in result.tool_calls]
    found = {
        "content": result.content,
        "calls": calls,
        "ids": [call["id"] for call in result.tool_calls],
        "finish_reason": result.finish_reason,
        "raw": result.finish_reason_raw,
        "tokens": [result.tokens.prompt_tokens, result.tokens.completion_tokens],
        "estimated": result.is_estimated,
    }
    assert {name: found[name] for name in expected if name in found} == {
        name: value for name, value in expected.items() if name in found
    }
    assert [warning.code for warning in result.warnings] == expected.get("warnings", [])
    assert result.tokens.total_tokens > 0, "no answer is for nothing"
    assert len({call["id"] for call in result.tool_calls}) == len(calls)
    assert result.model


def check_told(answer: Answer, told: list[Delta]) -> None:
    """The pieces together are the answer."""
    assert "".join(delta.content for delta in told) == (answer.content or "")
    calls: dict[int, dict[str, str]] = {}
    for piece in (piece for delta in told for piece in delta.tool_calls):
        call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] += piece.get("id", "")
        for name in ("name", "arguments"):
            call[name] += piece.get("function", {}).get(name, "")
    assert [call["name"] for _, call in sorted(calls.items())] == [
        call["function"]["name"] for call in answer.tool_calls
    ]
    assert [call["id"] for _, call in sorted(calls.items())] == [call["id"] for call in answer.tool_calls]


def row_of(result: Answer | Failure) -> UsageEvent:
    """The ledger's row of an attempt with this result."""
    tokens = result.tokens
    priced = None if tokens is None else tokens.total_tokens * PRICE
    if isinstance(result, Answer):
        report = judge_answer(attempt(), result, priced, NOW)
    else:
        report = judge_failure(attempt(), result, RetryPolicy(), NOW, 0.0, priced=priced).report
    assert report.usage is not None
    return report.usage


def check_row(row: UsageEvent, result: Answer | Failure) -> None:
    """Nothing is booked without a reason, and what is stated comes before what was expected."""
    if isinstance(result, Answer):
        assert row.outcome is Outcome.SUCCEEDED
        assert row.cost == result.tokens.total_tokens * PRICE
        assert row.cost_source == ("estimated" if result.is_estimated else "computed")
    elif not result.may_be_billed:
        assert (row.outcome, row.cost, row.tokens.total_tokens) == (Outcome.FAILED, Decimal(0), 0)
    else:
        assert row.outcome is Outcome.IN_DOUBT
        assert row.cost == (ESTIMATE if result.tokens is None else result.tokens.total_tokens * PRICE)


def test_every_form_of_answer_has_cases_of_every_sort() -> None:
    kinds = {kind for case in CASES.values() for kind in case.providers}
    assert kinds >= set(KINDS)
    for kind in KINDS:
        own = [case for case in CASES.values() if kind in case.providers]
        assert any("failure" in case.expect for case in own)
        assert any("content" in case.expect for case in own)


def test_every_answer_could_be_written_into_a_record() -> None:
    for case in CASES.values():
        json.dumps(case.expect, ensure_ascii=False).encode()
