"""Costs, by hand and against the price list itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers as price_list
from genai_prices.types import ModelInfo, TimeOfDateConstraint
from hypothesis import given
from hypothesis import strategies as st

from app.prices import VENDORS, Prices
from app.settings.file import PricePart
from schemas.money import usd
from schemas.request import CompletionRequest
from schemas.usage import Tokens
from streams.tokens import LARGEST_ANSWER, UNLIMITED_ANSWER, estimate_tokens, reserved_tokens

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRICES = Prices()


def priced_models() -> Iterator[tuple[str, str, ModelInfo]]:
    for ours, theirs in VENDORS.items():
        vendor = next(vendor for vendor in price_list if vendor.id == theirs)
        for model in vendor.models:
            yield ours, theirs, model


MODELS = [(ours, theirs, model.id) for ours, theirs, model in priced_models()]


def test_claude_charges_cached_and_written_tokens_at_their_own_rates() -> None:
    # Sonnet 4.5: $3 in, $0.30 read, $3.75 written, $15 out for a million: 400, 500, 100 and 300 tokens.
    tokens = Tokens(prompt_tokens=1000, completion_tokens=300, cached_tokens=500, cache_write_tokens=100)
    cost = PRICES.cost("claude", "claude-sonnet-4-5-20250929", tokens, AT)
    assert cost == Decimal("0.0012") + Decimal("0.00015") + Decimal("0.000375") + Decimal("0.0045")


def test_claude_charges_every_token_more_once_the_prompt_passes_the_threshold() -> None:
    short = PRICES.cost("claude", "claude-sonnet-4-5", Tokens(prompt_tokens=200_000, completion_tokens=10), AT)
    long = PRICES.cost("claude", "claude-sonnet-4-5", Tokens(prompt_tokens=200_001, completion_tokens=10), AT)
    assert short == Decimal("0.60015")
    assert long == Decimal("1.200231")


def test_openai_charges_reasoning_as_output_and_a_nano_dollar_is_not_lost() -> None:
    # gpt-4o-mini: $0.15 in, $0.075 cached, $0.60 out for a million.
    tokens = Tokens(prompt_tokens=11, completion_tokens=7, cached_tokens=1, reasoning_tokens=5)
    assert PRICES.cost("openai", "gpt-4o-mini", tokens, AT) == Decimal("0.000005775")


def test_perplexity_charges_for_the_request_beside_its_tokens() -> None:
    # Sonar: $1 in, $1 out for a million, $12 for a thousand requests.
    tokens = Tokens(prompt_tokens=100, completion_tokens=50)
    assert PRICES.cost("perplexity", "sonar", tokens, AT) == Decimal("0.01215")


def test_what_is_kept_for_an_hour_costs_more_to_write() -> None:
    # Sonnet 5.5: $2 in, $2.50 written for five minutes, $4 for an hour, for a million: 100, 200 and 300 tokens.
    tokens = Tokens(prompt_tokens=600, cache_write_tokens=500, cache_write_1h_tokens=300)
    cost = PRICES.cost("claude", "claude-sonnet-5-5", tokens, datetime(2026, 11, 1, tzinfo=UTC))
    assert cost == Decimal("0.0002") + Decimal("0.0005") + Decimal("0.0012")


def test_web_searches_cost_beside_the_tokens() -> None:
    # Deep research: $5 for a thousand searches, $2 in for a million. The Search API: $5 for a thousand requests.
    tokens = Tokens(prompt_tokens=100, search_requests=3)
    assert PRICES.cost("perplexity", "sonar-deep-research", tokens, AT) == Decimal("0.0152")
    assert PRICES.cost("perplexity", "search", Tokens(search_requests=1), AT) == Decimal("0.005")


def test_embeddings_cost_their_prompt() -> None:
    # text-embedding-3-small: $0.02 for a million.
    assert PRICES.cost("openai", "text-embedding-3-small", Tokens(prompt_tokens=1_234), AT) == Decimal("0.00002468")


def test_the_deployments_own_price_wins_and_a_models_own_before_its_providers() -> None:
    own = PricePart(input_mtok=Decimal("10"), output_mtok=Decimal("20"), request=Decimal("0.5"), search=Decimal("0.1"))
    flat = PricePart(input_mtok=Decimal("1"), output_mtok=Decimal("1"), cache_read_mtok=Decimal("0.5"))
    prices = Prices({"openai/gpt-4o": own, "openai": flat, "local": flat})
    tokens = Tokens(prompt_tokens=100, completion_tokens=10, cached_tokens=50, search_requests=2)
    assert prices.cost("openai", "gpt-4o", tokens, AT) == Decimal("0.0012") + Decimal("0.7")
    assert prices.cost("openai", "gpt-4o-mini", tokens, AT) == Decimal("0.000085")
    assert prices.cost("local", "anything", tokens, AT) == Decimal("0.000085")
    assert prices.cost("claude", "claude-sonnet-4-5", tokens, AT) == PRICES.cost(
        "claude", "claude-sonnet-4-5", tokens, AT
    )


def test_an_own_price_counts_from_its_day_on_and_until_the_next_one_begins() -> None:
    def dollar(amount: int, since: date | None = None) -> PricePart:
        return PricePart(since=since, input_mtok=Decimal(amount), output_mtok=Decimal(0))

    first, second = date(2026, 3, 1), date(2026, 6, 1)
    prices = Prices({"openai/gpt-4o": (dollar(8, second), dollar(7, first)), "claude": (dollar(3), dollar(4, second))})
    million = Tokens(prompt_tokens=1_000_000)

    def cost(provider: str, *moment: int) -> Decimal | None:
        at = datetime(*moment, tzinfo=UTC)  # type: ignore[arg-type, misc]
        return prices.cost(provider, "gpt-4o" if provider == "openai" else "any", million, at)

    before = cost("openai", 2026, 2, 28, 23, 59)
    assert before == PRICES.cost("openai", "gpt-4o", million, datetime(2026, 2, 28, tzinfo=UTC)) == Decimal("2.5")
    assert [cost("openai", 2026, 3, 1), cost("openai", 2026, 5, 31, 23, 59), cost("openai", 2026, 6, 1)] == [7, 7, 8]
    assert [cost("claude", 2020, 1, 1), cost("claude", 2026, 6, 1)] == [3, 4]


def test_a_models_own_prices_leave_the_days_before_them_to_its_providers_own() -> None:
    flat = PricePart(input_mtok=Decimal(1), output_mtok=Decimal(1))
    later = PricePart(since=date(2026, 6, 1), input_mtok=Decimal(2), output_mtok=Decimal(2))
    prices = Prices({"openai/gpt-4o": (later,), "openai": flat})
    million = Tokens(prompt_tokens=1_000_000)
    assert prices.cost("openai", "gpt-4o", million, datetime(2026, 5, 31, tzinfo=UTC)) == 1
    # One in the morning of the first of June in Vienna is still May in UTC.
    vienna = datetime(2026, 6, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert prices.cost("openai", "gpt-4o", million, vienna) == 1
    assert prices.cost("openai", "gpt-4o", million, datetime(2026, 6, 1, tzinfo=UTC)) == 2


def test_perplexitys_reasoning_has_a_rate_of_its_own() -> None:
    # Deep research: $2 in, $8 out, $3 reasoning for a million.
    tokens = Tokens(prompt_tokens=100, completion_tokens=3000, reasoning_tokens=2000)
    assert PRICES.cost("perplexity", "sonar-deep-research", tokens, AT) == Decimal("0.0142")


def test_a_price_that_changed_is_the_price_of_the_day_of_the_call() -> None:
    tokens = Tokens(prompt_tokens=1_000_000)
    before, after = datetime(2025, 6, 9, 23, 59, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC)
    assert PRICES.cost("openai", "o3", tokens, before) == 10
    assert PRICES.cost("openai", "o3", tokens, after) == 2
    # The day is UTC's: at one in the morning in a zone two hours ahead it is still the day before.
    ahead = datetime(2025, 6, 10, 1, tzinfo=timezone(timedelta(hours=2)))
    assert PRICES.cost("openai", "o3", tokens, ahead) == 10


@pytest.mark.parametrize(
    ("provider", "model"),
    [("claude", "claude-of-tomorrow"), ("openai", "whisper-1"), ("nobody", "gpt-4o"), ("claude", "")],
)
def test_an_unknown_price_is_none(provider: str, model: str) -> None:
    assert PRICES.cost(provider, model, Tokens(prompt_tokens=1), AT) is None
    assert PRICES.estimate(provider, model, CompletionRequest(prompt="Hello"), AT) is None


def test_counts_that_contradict_each_other_never_make_a_cost_negative() -> None:
    tokens = Tokens(prompt_tokens=10, completion_tokens=1, cached_tokens=50, reasoning_tokens=9)
    cost = PRICES.cost("openai", "o3", tokens, AT)
    assert cost is not None
    assert cost > 0


@st.composite
def usage(draw: st.DrawFn) -> Tokens:
    prompt, completion = draw(st.integers(0, 400_000)), draw(st.integers(0, 100_000))
    cached = draw(st.integers(0, prompt))
    return Tokens(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=draw(st.integers(0, prompt - cached)),
        reasoning_tokens=draw(st.integers(0, completion)),
    )


@given(listed=st.sampled_from(MODELS), tokens=usage(), at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)))  # noqa: DTZ001
def test_every_model_costs_what_the_price_list_says(listed: tuple[str, str, str], tokens: Tokens, at: datetime) -> None:
    ours, theirs, model = listed
    moment = at.replace(tzinfo=UTC)
    cost = PRICES.cost(ours, model, tokens, moment)
    if cost is not None:
        assert cost == usd(by_the_list(theirs, model, tokens, moment))


NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        # gpt-audio: $2.50 in, $32 heard, $10 out, $64 spoken for a million; its snapshots alike.
        ("gpt-audio", "0.00025 0.0064 0.001 0.0192"),
        ("gpt-audio-2025-08-28", "0.00025 0.0064 0.001 0.0192"),
        # Not in the list: $40 heard and $80 spoken, the first snapshot $100 and $200; the small one $10 and $20.
        ("gpt-4o-audio-preview", "0.00025 0.008 0.001 0.024"),
        ("gpt-4o-audio-preview-2024-12-17", "0.00025 0.008 0.001 0.024"),
        ("gpt-4o-audio-preview-2024-10-01", "0.00025 0.02 0.001 0.06"),
        ("gpt-4o-mini-audio-preview", "0.000015 0.002 0.00006 0.006"),
    ],
)
def test_sound_costs_more_than_text(model: str, cost: str) -> None:
    # 100 tokens of text and 200 of sound in, 100 and 300 out.
    tokens = Tokens(prompt_tokens=300, completion_tokens=400, audio_prompt_tokens=200, audio_completion_tokens=300)
    assert PRICES.cost("openai", model, tokens, NOVEMBER) == sum(map(Decimal, cost.split()))
    assert PRICES.lacking("openai", model, tokens, NOVEMBER) is None


def test_sound_that_has_no_price_makes_the_cost_an_estimate() -> None:
    heard = Tokens(prompt_tokens=300, completion_tokens=4, audio_prompt_tokens=200)
    assert PRICES.lacking("openai", "gpt-4o", heard, NOVEMBER) == "audio tokens"
    assert PRICES.cost("openai", "gpt-4o", heard, NOVEMBER) == Decimal("0.00079")
    assert PRICES.lacking("openai", "gpt-4o", Tokens(prompt_tokens=300), NOVEMBER) is None
    assert PRICES.lacking("nobody", "gpt-4o", heard, NOVEMBER) is None, "a price that is not known is another alarm"
    own = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)}
    million = Tokens(
        prompt_tokens=10**6, completion_tokens=10**6, audio_prompt_tokens=10**6, audio_completion_tokens=10**6
    )
    sound = PricePart(**own, input_audio_mtok=Decimal(30), output_audio_mtok=Decimal(40))
    mine, bare = Prices({"local": sound}), Prices({"local": PricePart(**own)})
    assert [book.cost("local", "any", million, AT) for book in (mine, bare)] == [70, 3]
    assert [book.lacking("local", "any", million, AT) for book in (mine, bare)] == [None, "audio tokens"]


@pytest.mark.parametrize(
    ("model", "fee"),
    [
        ("gpt-4o-search-preview", "0.025"),
        ("gpt-4o-search-preview-2025-03-11", "0.025"),
        ("gpt-4o-mini-search-preview", "0.025"),
        ("gpt-5-search-api", "0.01"),
        ("gpt-5-search-api-2025-10-14", "0.01"),
        ("gpt-4o", "0"),
    ],
)
def test_a_search_model_costs_its_search_with_each_answer(model: str, fee: str) -> None:
    assert PRICES.cost("openai", model, Tokens(), NOVEMBER) == Decimal(fee)
    assert PRICES.lacking("openai", model, Tokens(prompt_tokens=1), NOVEMBER) is None


def test_searches_of_a_model_that_has_no_price_for_them_are_an_estimate() -> None:
    searched = Tokens(prompt_tokens=10, search_requests=2)
    assert PRICES.lacking("openai", "gpt-4o-search-preview", searched, NOVEMBER) is None
    assert PRICES.lacking("claude", "claude-sonnet-4-5", searched, NOVEMBER) is None
    assert PRICES.lacking("perplexity", "sonar", searched, NOVEMBER) is None, "they are in the fee of the call"
    assert PRICES.lacking("openai", "gpt-audio", searched, NOVEMBER) == "web searches"


@pytest.mark.parametrize(
    ("provider", "model", "tier", "at", "cost", "lacking"),
    [
        # gpt-5: $1.25 in; flex is half, priority twice of it, from the day on which the list begins to know them.
        ("openai", "gpt-5", None, NOVEMBER, "1.25", None),
        ("openai", "gpt-5", "flex", NOVEMBER, "0.625", None),
        ("openai", "gpt-5", "priority", NOVEMBER, "2.5", None),
        ("openai", "gpt-5", "flex", datetime(2026, 9, 1, tzinfo=UTC), "1.25", "the service tier flex"),
        ("openai", "gpt-5", "scale", NOVEMBER, "1.25", "the service tier scale"),
        ("openai", "gpt-4o-mini", "flex", NOVEMBER, "0.15", "the service tier flex"),
        ("claude", "claude-sonnet-4-5", "priority", NOVEMBER, "6", "the service tier priority"),
        ("claude", "claude-haiku-4-5", "us", NOVEMBER, "1", "the service tier us"),
        ("openai", "gpt-4o-audio-preview", "flex", NOVEMBER, "2.5", "the service tier flex"),
        ("perplexity", "sonar", "context_low", NOVEMBER, "1.005", None),
        ("perplexity", "sonar", "context_huge", NOVEMBER, "1.012", "the service tier context_huge"),
        ("perplexity", "sonar-pro", "context_medium", NOVEMBER, "3.01", None),
    ],
)
def test_a_tier_costs_its_own_price_or_an_estimate(
    provider: str, model: str, tier: str | None, at: datetime, cost: str, lacking: str | None
) -> None:
    tokens = Tokens(prompt_tokens=1_000_000, service_tier=tier)
    assert PRICES.cost(provider, model, tokens, at) == Decimal(cost)
    assert PRICES.lacking(provider, model, tokens, at) == lacking


def test_the_list_has_a_price_of_its_own_for_every_tier_that_it_is_asked_for() -> None:
    """It ignores words that it does not know: one that changes nothing anywhere would be a slip of ours."""
    asked = [("openai", "flex"), ("openai", "priority"), ("openai", "fast"), ("claude", "fast"), ("claude", "batch")]
    for provider, tier in asked:
        models = (model for ours, _, model in MODELS if ours == provider)
        tokens = Tokens(prompt_tokens=1, service_tier=tier)
        known = [m for m in models if PRICES.cost(provider, m, tokens, NOVEMBER) is not None]
        assert any(PRICES.lacking(provider, model, tokens, NOVEMBER) is None for model in known), (provider, tier)


def test_an_own_price_is_that_of_the_usual_tier() -> None:
    prices = Prices({"openai": PricePart(input_mtok=Decimal(1), output_mtok=Decimal(1))})
    assert prices.lacking("openai", "gpt-5", Tokens(service_tier="flex"), NOVEMBER) == "the service tier flex"


def test_the_estimate_knows_of_sound_and_of_a_dearer_tier() -> None:
    def estimate(model: str, **options: Any) -> Decimal:
        request = CompletionRequest(prompt="hi", max_tokens=1000, provider_options={"openai": options})
        found = PRICES.estimate("openai", model, request, NOVEMBER)
        assert found is not None
        return found

    assert estimate("gpt-audio") == pytest.approx(Decimal("0.01"), rel=Decimal("0.1"))
    assert estimate("gpt-audio", modalities=["text", "audio"]) > Decimal("0.064")
    assert estimate("gpt-5", service_tier="priority") > Decimal("1.9") * estimate("gpt-5")
    assert estimate("gpt-5", service_tier="flex") >= estimate("gpt-5"), "it may be served in the usual one"
    assert estimate("gpt-4o-search-preview") > Decimal("0.025")


def by_the_list(vendor: str, model: str, tokens: Tokens, at: datetime) -> Decimal:
    counted: dict[str, Any] = {
        "input_tokens": tokens.prompt_tokens,
        "output_tokens": tokens.completion_tokens,
        "cache_read_tokens": tokens.cached_tokens,
        "cache_write_tokens": tokens.cache_write_tokens,
        "output_reasoning_tokens": tokens.reasoning_tokens,
    }
    priced = genai_prices.calc_price(
        genai_prices.Usage(**counted), model, provider_id=vendor, genai_request_timestamp=at
    )
    return priced.total_price


def test_no_price_of_these_vendors_depends_on_the_time_of_day() -> None:
    for _, _, model in priced_models():
        for price in model.prices if isinstance(model.prices, list) else ():
            assert not isinstance(price.constraint, TimeOfDateConstraint), model.id


def test_the_estimate_counts_four_bytes_a_token_and_every_turn() -> None:
    request = CompletionRequest(system="12345678", messages=({"role": "user", "content": "123456789"},))
    assert estimate_tokens(request) == (2 + 4) + (3 + 4)
    assert estimate_tokens(CompletionRequest(prompt="潮汐潮汐")) == 3 + 4


def test_the_estimate_counts_a_picture_by_itself_and_not_by_its_bytes() -> None:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    request = CompletionRequest(messages=({"role": "user", "content": [url]},))
    assert estimate_tokens(request) == 1_600 + 4


def test_tools_make_the_prompt_longer() -> None:
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}
    with_tool = CompletionRequest(prompt="Hello", tools=(tool,))
    assert estimate_tokens(with_tool) > estimate_tokens(CompletionRequest(prompt="Hello"))


def test_the_estimate_takes_all_of_max_tokens_at_the_price_of_output() -> None:
    # Three tokens, and 4 for the turn, at $0.15 and 1,000 at $0.60 for a million.
    request = CompletionRequest(prompt="high water mark", max_tokens=1000)
    assert PRICES.estimate("openai", "gpt-4o-mini", request, AT) == Decimal("0.00000105") + Decimal("0.0006")


def test_a_completion_that_searches_the_web_is_expected_to_search_three_times() -> None:
    # Agent API: $0.0025 a search, $2.50 for a million tokens of answer, $0.25 of prompt: 3 by 1.75, and 4 for the turn.
    request = CompletionRequest(prompt="high water mark", max_tokens=1000)
    at = datetime(2026, 11, 1, tzinfo=UTC)
    cost = PRICES.estimate("perplexity", "perplexity/sonar", request, at)
    assert cost == Decimal("0.0075") + Decimal("0.0025") + Decimal("0.0000025")


def test_an_option_that_allows_a_longer_answer_is_seen_by_the_estimate() -> None:
    options = {"openai": {"max_completion_tokens": 2_000}, "claude": {"max_tokens": 9_000}}
    request = CompletionRequest(prompt="high water mark", max_tokens=1000, provider_options=options)
    assert PRICES.estimate("openai", "gpt-4o-mini", request, AT) == Decimal("0.00000105") + Decimal("0.0012")


OTHER_PROMPT = [{"role": "user", "content": "high water mark " * 1_000}]


@pytest.mark.parametrize(
    ("provider", "model", "name"),
    [
        ("openai", "gpt-4o-mini", "messages"),
        ("claude", "claude-sonnet-4-5", "system"),
        ("perplexity", "sonar", "input"),
    ],
)
def test_a_prompt_that_comes_by_the_options_is_seen_by_the_estimate_and_by_the_lane(
    provider: str, model: str, name: str
) -> None:
    """It wins over the request's own: a budget that refuses would else be passed by whoever hides it there."""
    hidden = CompletionRequest(prompt="hi", max_tokens=1, provider_options={provider: {name: OTHER_PROMPT}})
    stated = CompletionRequest(messages=tuple(OTHER_PROMPT), max_tokens=1)
    known, asked = (PRICES.estimate(provider, model, each, AT) for each in (stated, hidden))
    assert known is not None
    assert asked is not None
    assert asked >= known
    assert reserved_tokens(hidden, provider) >= reserved_tokens(stated, provider)
    assert reserved_tokens(hidden, "local") < 100, "what is for one provider costs no other anything"


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"max_completion_tokens": None}, UNLIMITED_ANSWER),
        ({"max_completion_tokens": None, "max_tokens": 500}, 1_000),
        ({"max_tokens": 5_000.0}, 5_000),
        ({"seed": 7}, 1_000),
    ],
)
def test_an_answer_whose_limit_is_taken_away_may_be_as_long_as_any(options: dict[str, Any], limit: int) -> None:
    request = CompletionRequest(prompt="high water mark", max_tokens=1_000, provider_options={"openai": options})
    cost = PRICES.estimate("openai", "gpt-4o-mini", request, AT)
    assert cost == Decimal("0.00000105") + Decimal("0.0000006") * limit
    plain = CompletionRequest(prompt="high water mark", max_tokens=1_000)
    assert reserved_tokens(request, "openai") - reserved_tokens(plain, "openai") == limit - 1_000


@pytest.mark.parametrize("fields", [{"max_tokens": 2**64}, {"provider_options": {"openai": {"max_tokens": 1e300}}}])
def test_an_answer_that_no_model_writes_is_reserved_as_an_amount_that_the_ledger_holds(fields: dict[str, Any]) -> None:
    request = CompletionRequest(prompt="hi", **fields)
    assert reserved_tokens(request, "openai") < 2 * LARGEST_ANSWER
    cost = PRICES.estimate("openai", "gpt-4o-mini", request, AT)
    assert cost is not None
    assert 0 < cost < 10**9, "Decimal(18, 9)"
