"""What calls cost: the deployment's own prices, else those of the price list, by provider, model and date."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

from app.price_list import VENDORS, tariff
from app.rates import Tariff, flat
from app.settings.file import AnyPrice, PricePart
from app.tokenizer import family_of, measure_for, warm_up
from schemas.money import usd
from schemas.request import CommonRequest, CompletionRequest
from schemas.usage import Tokens, tier_of
from streams.tokens import answer_limit, option_texts, prompt_of

__all__ = ["SEARCHES", "VENDORS", "Prices"]

#: Searches that a completion of Perplexity is expected to make; how many it makes is known after it only.
SEARCHES = 3

#: Prices of one name with the days from which they count, the latest first.
_Dated = tuple[tuple[date, Tariff], ...]


def _dated(price: AnyPrice) -> _Dated:
    parts = (price,) if isinstance(price, PricePart) else price
    return tuple(sorted(((part.since or date.min, flat(part)) for part in parts), key=lambda p: p[0], reverse=True))


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
        known = self._tariff(provider, model, at, tokens.service_tier)
        return None if known is None else usd(known.cost(tokens))

    def lacking(self, provider: str, model: str, tokens: Tokens, at: datetime) -> str | None:
        """What of these tokens has no price of its own, for people, so that `cost` is an estimate; None: nothing."""
        known = self._tariff(provider, model, at, tokens.service_tier)
        return None if known is None else known.lacking(tokens)

    def estimate(self, provider: str, model: str, request: CommonRequest, at: datetime) -> Decimal | None:
        """US dollars for the request if its answer is as long as it may be: budgets are reserved by this, so it is
        rather too high than too low. Its prompt is counted as `app.tokenizer` says.
        """
        usual = self._tariff(provider, model, at, None)
        if usual is None:
            return None
        tokens = _at_most(request, provider, model)
        tier = self._tariff(provider, model, at, tokens.service_tier) or usual
        # Who asks for a cheaper tier may be served in the usual one.
        return usd(max(usual.cost(tokens), tier.cost(tokens)))

    def _tariff(self, provider: str, model: str, at: datetime, tier: str | None) -> Tariff | None:
        day = at.astimezone(UTC).date()
        for name in (f"{provider}/{model}", provider):
            for since, own in self._own.get(name, ()):
                if since <= day:
                    return own
        return tariff(provider, model, day, tier)


def _at_most(request: CommonRequest, provider: str, model: str) -> Tokens:
    """What a call may use. Options that are passed through are counted as if they were prompt: they may hold another
    one, and win.
    """
    is_completion = isinstance(request, CompletionRequest)
    measure, prompt = measure_for(model), prompt_of(request)
    texts = option_texts(request, provider)
    tools = family_of(model).tools if isinstance(request, CompletionRequest) and request.tools else 0
    answer = answer_limit(request, provider)
    options = request.provider_options.get(provider) or {}
    modalities = options.get("modalities")
    speaks = isinstance(modalities, list) and "audio" in modalities
    return Tokens(
        prompt_tokens=measure.tokens(prompt) + (measure.count(texts) if texts else 0) + tools,
        completion_tokens=answer,
        audio_prompt_tokens=measure.sound(prompt),
        audio_completion_tokens=answer if speaks else 0,
        search_requests=SEARCHES if provider == "perplexity" and is_completion else 0,
        service_tier=tier_of(options.get("service_tier"), options.get("speed")),
    )
