"""The price list of `genai-prices` as tariffs, and a list of our own beside it for what it does not have.

The library prices one call in some 140 µs. So the list is asked once per model, tier and UTC day, for its rates;
`tests/unit/providers/test_prices.py` holds both to the same result over the whole list. Prices that change within a day
would need a finer key: the same test says if any appear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache

import genai_prices
from genai_prices.types import ModelPrice, TieredPrices

from app.rates import NOTHING, Rates, Tariff, flat
from app.settings.file import PricePart

#: Our name of a provider → the price list's.
VENDORS: Mapping[str, str] = {"claude": "anthropic", "openai": "openai", "perplexity": "perplexity"}


@dataclass(frozen=True)
class _Beside:
    """What belongs to a listed price and is not in the list: US dollars for a call, and for a million tokens of sound.

    `name` is the model's in the list, where that does not know the snapshot.
    """

    models: re.Pattern[str]
    request: Decimal = NOTHING
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    name: str | None = None


def _dated(name: str) -> re.Pattern[str]:
    """A model and its snapshots."""
    return re.compile(rf"{name}(-\d{{4}}-\d\d-\d\d)?", re.IGNORECASE)


#: Sources: the pages of OpenAI's audio models ("Audio tokens"), and "Built-in tools" of its pricing: a search of the
#: preview models that do not reason is $25 for a thousand, of all others $10. A search model searches once for each
#: answer. All read in November 2026.
_BESIDE_THE_LIST: Mapping[str, tuple[_Beside, ...]] = {
    "openai": (
        _Beside(re.compile(r"gpt-4o-audio-preview-2024-10-01"), audio_input=Decimal(100), audio_output=Decimal(200)),
        _Beside(_dated("gpt-4o-audio-preview"), audio_input=Decimal(40), audio_output=Decimal(80)),
        _Beside(_dated("gpt-4o-mini-audio-preview"), audio_input=Decimal(10), audio_output=Decimal(20)),
        _Beside(_dated("gpt-4o(-mini)?-search-preview"), request=Decimal("0.025")),
        _Beside(_dated("gpt-5-search-api"), request=Decimal("0.01"), name="gpt-5-search-api"),
    ),
}

#: Models that the list does not have at all. Perplexity's Search API is $5 for a thousand successful requests, whatever
#: they find. Source: "Pricing" of Perplexity's documentation, read in November 2026.
_UNLISTED: Mapping[tuple[str, str], PricePart] = {
    ("perplexity", "search"): PricePart(input_mtok=NOTHING, output_mtok=NOTHING, request=Decimal("0.005")),
}

#: By which words the list tells a tier of service from the usual one.
_CONTEXTS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "openai": {tier: {"service_tier": tier} for tier in ("flex", "priority", "fast")},
    "claude": {"fast": {"speed": "fast"}},
}
#: The fee of a call of Sonar's by how much it may read, for a thousand; the list has that of the most. Source:
#: "Pricing" of Perplexity's documentation, read in November 2026.
_BY_CONTEXT: Mapping[str, Mapping[str, int]] = {
    "sonar": {"context_low": 5, "context_medium": 8, "context_high": 12},
    "sonar-pro": {"context_low": 6, "context_medium": 10, "context_high": 14},
    "sonar-reasoning-pro": {"context_low": 6, "context_medium": 10, "context_high": 14},
}
_BATCH = {"processing": "batch"}


@lru_cache(maxsize=4096)
def tariff(provider: str, model: str, day: date, tier: str | None = None) -> Tariff | None:
    """The prices of a model on a UTC day, None if they are not known. Bounded: requests may name any model.

    Those of a tier that the list does not know are the usual ones, and say so (`Tariff.tier`).
    """
    unlisted = _UNLISTED.get((provider, model))
    if unlisted is not None:
        return flat(unlisted)
    beside = next((one for one in _BESIDE_THE_LIST.get(provider, ()) if one.models.fullmatch(model)), None)
    name = (beside.name if beside else None) or model
    usual = _listed(provider, name, day)
    if usual is None:
        return None
    found = _tariff(usual, beside)
    fee = _BY_CONTEXT.get(name, {}).get(tier or "") if provider == "perplexity" else None
    if fee is not None:
        return replace(found, request_fee=Decimal(fee) / 1000, tier=tier)
    context = _BATCH if tier == "batch" else _CONTEXTS.get(provider, {}).get(tier or "")
    if context is None:
        return found
    # A word that the list does not know for a model changes nothing there.
    special = _listed(provider, name, day, context)
    if special is None or special == usual:
        return found
    return replace(_tariff(special, beside), tier=tier)


def _listed(provider: str, model: str, day: date, context: Mapping[str, str] | None = None) -> ModelPrice | None:
    vendor = VENDORS.get(provider)
    if vendor is None:
        return None
    at = datetime.combine(day, time(), UTC)
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(),
            model,
            provider_id=vendor,
            genai_request_timestamp=at,
            price_context=dict(context) if context else None,
        ).model_price
    except LookupError:
        return None
    # A model that is priced by the hour or by the picture has a price, but none that tokens could tell.
    return found if found.input_mtok is not None or found.output_mtok is not None else None


def _tariff(price: ModelPrice, beside: _Beside | None) -> Tariff:
    thresholds = {0} | {tier.start for part in _token_prices(price) for tier in part.tiers}
    request = _per_piece(price.requests_kcount) + (beside.request if beside else NOTHING)
    # Where a call has a fee its searches are in it.
    search = _per_piece(price.web_searches_kcount) or (NOTHING if request else None)
    rates = tuple(_rates(price, above, beside) for above in sorted(thresholds, reverse=True))
    return Tariff(request, search, rates)


def _per_piece(thousand: Decimal | TieredPrices | None) -> Decimal:
    """US dollars for one out of dollars for a thousand."""
    return thousand / 1000 if isinstance(thousand, Decimal) else NOTHING


def _token_prices(price: ModelPrice) -> Iterable[TieredPrices]:
    written = ("cache_write_mtok", "cache_write_1h_mtok")
    sound = ("input_audio_mtok", "output_audio_mtok")
    names = ("input_mtok", "cache_read_mtok", *written, "output_mtok", "output_reasoning_mtok", *sound)
    return (part for name in names if isinstance(part := getattr(price, name), TieredPrices))


def _rates(price: ModelPrice, above: int, beside: _Beside | None) -> Rates:
    """The rates above a threshold. What has no rate of its own is priced as what it is a part of."""
    plain_input = _per_token(price.input_mtok, above) or NOTHING
    plain_output = _per_token(price.output_mtok, above) or NOTHING
    cached = _per_token(price.cache_read_mtok, above)
    written = _per_token(price.cache_write_mtok, above)
    kept = _per_token(price.cache_write_1h_mtok, above)
    cache_write = plain_input if written is None else written
    reasoning = _per_token(price.output_reasoning_mtok, above)
    heard, spoken = _per_token(price.input_audio_mtok, above), _per_token(price.output_audio_mtok, above)
    return Rates(
        above=above,
        input=plain_input,
        cached=plain_input if cached is None else cached,
        cache_write=cache_write,
        cache_write_1h=cache_write if kept is None else kept,
        output=plain_output,
        reasoning=plain_output if reasoning is None else reasoning,
        audio_input=_per_token(beside.audio_input, above) if heard is None and beside else heard,
        audio_output=_per_token(beside.audio_output, above) if spoken is None and beside else spoken,
    )


def _per_token(price: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    """US dollars per token out of dollars per million."""
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if tier.start <= above]
        price = reached[-1] if reached else price.base
    return None if price is None else price.scaleb(-6)
