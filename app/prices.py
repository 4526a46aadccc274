"""What tokens cost: the price list of `genai-prices`, by provider, model and date.

The library prices one call in some 140 µs. A worker asks at every attempt, so the list is asked once per model and
UTC day, for its rates, and the sum is done here; `tests/unit/providers/test_prices.py` holds both to the same result
over the whole list. Prices that change within a day would need a finer key: the same test says if any appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache

import genai_prices
from genai_prices.types import ModelPrice, TieredPrices

from app.settings.file import AnyPrice, PricePart
from app.tokenizer import family_of, measure_for, warm_up
from schemas.money import usd
from schemas.request import CommonRequest, CompletionRequest
from schemas.usage import Tokens
from streams.tokens import answer_limit, estimate_tokens, option_texts

#: Our name of a provider → the price list's.
VENDORS: Mapping[str, str] = {"claude": "anthropic", "openai": "openai", "perplexity": "perplexity"}

_NOTHING = Decimal(0)

#: Searches that a completion of Perplexity is expected to make; how many it makes is known after it only.
SEARCHES = 3


@dataclass(frozen=True)
class Rates:
    """US dollars for one token of each sort, once the prompt is longer than `above` tokens."""

    above: int
    input: Decimal
    cached: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    reasoning: Decimal

    def cost(self, tokens: Tokens) -> Decimal:
        plain_input = max(tokens.prompt_tokens - tokens.cached_tokens - tokens.cache_write_tokens, 0)
        plain_output = max(tokens.completion_tokens - tokens.reasoning_tokens, 0)
        return (
            self.input * plain_input
            + self.cached * tokens.cached_tokens
            + self.cache_write * max(tokens.cache_write_tokens - tokens.cache_write_1h_tokens, 0)
            + self.cache_write_1h * tokens.cache_write_1h_tokens
            + self.output * plain_output
            + self.reasoning * tokens.reasoning_tokens
        )


@dataclass(frozen=True)
class Tariff:
    """One model's prices on one day: US dollars for a call, for a web search, and rates from the highest threshold
    down.
    """

    request_fee: Decimal
    search_fee: Decimal
    tiers: tuple[Rates, ...]

    def cost(self, tokens: Tokens) -> Decimal:
        fees = self.request_fee + self.search_fee * tokens.search_requests
        for rates in self.tiers:
            if tokens.prompt_tokens > rates.above:
                return fees + rates.cost(tokens)
        return fees + self.tiers[-1].cost(tokens)


def _flat(price: PricePart) -> Tariff:
    """The prices that the deployment states itself. What has no rate of its own is priced as what it is a part of."""
    plain_input, written = price.input_mtok.scaleb(-6), price.cache_write_mtok
    cache_write = plain_input if written is None else written.scaleb(-6)
    rates = Rates(
        above=0,
        input=plain_input,
        cached=plain_input if price.cache_read_mtok is None else price.cache_read_mtok.scaleb(-6),
        cache_write=cache_write,
        cache_write_1h=cache_write,
        output=price.output_mtok.scaleb(-6),
        reasoning=price.output_mtok.scaleb(-6),
    )
    return Tariff(price.request or _NOTHING, price.search or _NOTHING, (rates,))


#: Prices of one name with the days from which they count, the latest first.
_Dated = tuple[tuple[date, Tariff], ...]


def _dated(price: AnyPrice) -> _Dated:
    parts = (price,) if isinstance(price, PricePart) else price
    return tuple(sorted(((part.since or date.min, _flat(part)) for part in parts), key=lambda p: p[0], reverse=True))


class Prices:
    """Implements `streams.dispatch.ports.PriceBook`: the deployment's own prices, else those that the library knows.

    `own` are by provider, or by `provider/model`, which is asked first. The price of the day of the call counts (UTC);
    on a day before the first of a name's own prices it is as if there were none.
    """

    def __init__(self, own: Mapping[str, AnyPrice] | None = None) -> None:
        self._own = {name: _dated(price) for name, price in (own or {}).items()}
        # Loading the list, and the tokenizer, takes a second, which belongs to the start and not to the first request.
        tariff("openai", "gpt-4o-mini", datetime.now(UTC).date())
        warm_up()

    def cost(self, provider: str, model: str, tokens: Tokens, at: datetime) -> Decimal | None:
        """US dollars for one call with these tokens, made at that time; None if the price is not known."""
        known = self._tariff(provider, model, at)
        return None if known is None else usd(known.cost(tokens))

    def estimate(self, provider: str, model: str, request: CommonRequest, at: datetime) -> Decimal | None:
        """US dollars for the request if its answer is as long as it may be: budgets are reserved by this, so it is
        rather too high than too low. Its prompt is counted as `app.tokenizer` says.
        """
        known = self._tariff(provider, model, at)
        if known is None:
            return None
        searches = SEARCHES if provider == "perplexity" and isinstance(request, CompletionRequest) else 0
        tokens = Tokens(
            prompt_tokens=_prompt_tokens(request, provider, model),
            completion_tokens=answer_limit(request, provider),
            search_requests=searches,
        )
        return usd(known.cost(tokens))

    def _tariff(self, provider: str, model: str, at: datetime) -> Tariff | None:
        day = at.astimezone(UTC).date()
        for name in (f"{provider}/{model}", provider):
            for since, own in self._own.get(name, ()):
                if since <= day:
                    return own
        return tariff(provider, model, day)


def _prompt_tokens(request: CommonRequest, provider: str, model: str) -> int:
    """Options that are passed through are counted as if they were prompt: they may hold another one, and win."""
    tools = family_of(model).tools if isinstance(request, CompletionRequest) and request.tools else 0
    measure, options = measure_for(model), option_texts(request, provider)
    return estimate_tokens(request, measure) + (measure.count(options) if options else 0) + tools


#: What the list does not have. Perplexity's Search API is $5 for a thousand successful requests, whatever they find.
#: Source: "Pricing" of Perplexity's documentation, read in November 2026.
_BESIDE_THE_LIST: Mapping[tuple[str, str], PricePart] = {
    ("perplexity", "search"): PricePart(input_mtok=_NOTHING, output_mtok=_NOTHING, request=Decimal("0.005")),
}


@lru_cache(maxsize=4096)
def tariff(provider: str, model: str, day: date) -> Tariff | None:
    """The prices of a model on a UTC day, None if they are not known. Bounded: requests may name any model."""
    beside = _BESIDE_THE_LIST.get((provider, model))
    if beside is not None:
        return _flat(beside)
    vendor = VENDORS.get(provider)
    if vendor is None:
        return None
    at = datetime.combine(day, time(), UTC)
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(), model, provider_id=vendor, genai_request_timestamp=at
        ).model_price
    except LookupError:
        return None
    # A model that is priced by the hour or by the picture has a price, but none that tokens could tell.
    return _tariff(found) if found.input_mtok is not None or found.output_mtok is not None else None


def _tariff(price: ModelPrice) -> Tariff:
    thresholds = {0} | {tier.start for part in _token_prices(price) for tier in part.tiers}
    return Tariff(
        request_fee=_per_piece(price.requests_kcount),
        search_fee=_per_piece(price.web_searches_kcount),
        tiers=tuple(_rates(price, above) for above in sorted(thresholds, reverse=True)),
    )


def _per_piece(thousand: Decimal | TieredPrices | None) -> Decimal:
    """US dollars for one out of dollars for a thousand."""
    return thousand / 1000 if isinstance(thousand, Decimal) else _NOTHING


def _token_prices(price: ModelPrice) -> Iterable[TieredPrices]:
    written = ("cache_write_mtok", "cache_write_1h_mtok")
    names = ("input_mtok", "cache_read_mtok", *written, "output_mtok", "output_reasoning_mtok")
    return (part for name in names if isinstance(part := getattr(price, name), TieredPrices))


def _rates(price: ModelPrice, above: int) -> Rates:
    """The rates above a threshold. What has no rate of its own is priced as what it is a part of."""
    plain_input = _per_token(price.input_mtok, above) or _NOTHING
    plain_output = _per_token(price.output_mtok, above) or _NOTHING
    cached = _per_token(price.cache_read_mtok, above)
    written = _per_token(price.cache_write_mtok, above)
    kept = _per_token(price.cache_write_1h_mtok, above)
    cache_write = plain_input if written is None else written
    reasoning = _per_token(price.output_reasoning_mtok, above)
    return Rates(
        above=above,
        input=plain_input,
        cached=plain_input if cached is None else cached,
        cache_write=cache_write,
        cache_write_1h=cache_write if kept is None else kept,
        output=plain_output,
        reasoning=plain_output if reasoning is None else reasoning,
    )


def _per_token(price: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    """US dollars per token out of dollars per million."""
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if tier.start <= above]
        price = reached[-1] if reached else price.base
    return None if price is None else price.scaleb(-6)
