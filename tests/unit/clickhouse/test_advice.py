"""What could be saved, computed from what was used."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from app.clickhouse.advice import Advice, Repeated, Used, advise, cheaper_model
from app.prices import Prices
from schemas.usage import Tokens

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Book:
    """A dollar for a prompt token of a dear model, ten cents for one of a cheap model; answers cost nothing."""

    def cost(self, provider: str, model: str, tokens: Tokens, at: datetime) -> Decimal | None:  # noqa: ARG002
        if model == "unknown":
            return None
        return tokens.prompt_tokens * Decimal("0.1" if model in {"gpt-4o-mini", "sonar"} else 1)


def used(**fields: object) -> Used:
    values = {"provider": "openai", "model": "gpt-4o", "purpose": "chat", "priority": "", "calls": 10}
    tokens = {"prompt_tokens": 1_000, "completion_tokens": 100, "cached_tokens": 0, "reasoning_tokens": 0}
    return Used(**{**values, **tokens, "cost": Decimal(1_000), **fields})  # type: ignore[arg-type]


def only(kind: str, *lines: Used, repeated: tuple[Repeated, ...] = ()) -> list[Advice]:
    return [advice for advice in advise(lines, repeated, Book(), NOW) if advice.kind == kind]


def test_a_cheaper_model_saves_the_difference_for_the_same_tokens() -> None:
    [advice] = only("cheaper_model", used(), used(purpose="search", calls=1, prompt_tokens=50))
    assert (advice.subject, advice.saves) == ("gpt-4o", Decimal(945))
    assert "gpt-4o-mini" in advice.text
    assert "11 calls" in advice.text


@pytest.mark.parametrize("model", ["gpt-4o-mini", "unknown", "sonar"])
def test_no_cheaper_model_is_invented(model: str) -> None:
    assert only("cheaper_model", used(model=model)) == []


def test_every_cheaper_model_is_cheaper_and_has_a_price() -> None:
    prices, tokens = Prices(), Tokens(prompt_tokens=1_000, completion_tokens=500)
    for provider, model in (
        ("claude", "claude-opus-5"),
        ("claude", "claude-sonnet-5-5"),
        ("openai", "gpt-4o"),
        ("openai", "gpt-4.1"),
        ("openai", "gpt-4.1-mini"),
        ("openai", "gpt-5"),
        ("openai", "gpt-5-mini"),
        ("perplexity", "sonar-pro"),
        ("perplexity", "sonar-reasoning-pro"),
    ):
        cheaper = cheaper_model(provider, model)
        assert cheaper is not None
        now, then = (prices.cost(provider, name, tokens, NOW) for name in (model, cheaper))
        assert now is not None
        assert then is not None
        assert then < now, (model, cheaper)


def test_long_prompts_save_what_their_tokens_above_the_limit_cost() -> None:
    [advice] = only("long_prompts", used(model="x", prompt_tokens=30_000))
    assert (advice.subject, advice.saves) == ("chat", Decimal(10_000))
    assert "3,000 tokens on average" in advice.text


def test_prompts_of_exactly_the_limit_are_not_long() -> None:
    assert only("long_prompts", used(model="x", prompt_tokens=20_000)) == []


def test_a_purpose_is_long_by_the_average_of_all_its_models() -> None:
    assert only("long_prompts", used(model="x", prompt_tokens=25_000), used(model="y", prompt_tokens=1_000)) == []


def test_repeats_that_are_not_cached_save_at_most_what_they_cost() -> None:
    [advice] = only("cache", repeated=(Repeated("faq", 40, 30, Decimal(3)),))
    assert (advice.subject, advice.saves, advice.at_most) == ("faq", Decimal(3), True)


@pytest.mark.parametrize(("answers", "repeats"), [(12, 9), (100, 49)])
def test_a_few_repeats_are_no_habit(answers: int, repeats: int) -> None:
    assert only("cache", repeated=(Repeated("faq", answers, repeats, Decimal(3)),)) == []


def test_what_has_the_priority_batch_saves_the_provider_s_discount() -> None:
    [advice] = only("batch", used(priority="batch", cost=Decimal(8)), used(priority="normal", cost=Decimal(100)))
    assert (advice.subject, advice.saves) == ("openai", Decimal(4))


def test_a_provider_without_a_batch_interface_gets_no_such_advice() -> None:
    assert only("batch", used(provider="perplexity", priority="batch")) == []


def test_the_best_advice_comes_first_and_what_saves_nothing_is_left_out() -> None:
    found = advise([used(), used(priority="batch", model="y", cost=Decimal("0.001"))], [], Book(), NOW)
    assert [advice.kind for advice in found] == ["cheaper_model"]


def test_no_usage_has_no_advice() -> None:
    assert advise([], [], Book(), NOW) == ()
