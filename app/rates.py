"""What a model's tokens cost once its rates are known. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from app.settings.file import PricePart
from schemas.usage import Tokens

NOTHING = Decimal(0)


@dataclass(frozen=True)
class Rates:
    """US dollars for one token of each sort, once the prompt is longer than `above` tokens. Sound without a rate of its
    own is priced as text, and `lacking` says so.
    """

    above: int
    input: Decimal
    cached: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    reasoning: Decimal
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None

    def cost(self, tokens: Tokens) -> Decimal:
        heard = min(tokens.audio_prompt_tokens, tokens.prompt_tokens)
        spoken = min(tokens.audio_completion_tokens, tokens.completion_tokens)
        plain_input = max(tokens.prompt_tokens - tokens.cached_tokens - tokens.cache_write_tokens - heard, 0)
        plain_output = max(tokens.completion_tokens - tokens.reasoning_tokens - spoken, 0)
        return (
            self.input * plain_input
            + self.cached * tokens.cached_tokens
            + self.cache_write * max(tokens.cache_write_tokens - tokens.cache_write_1h_tokens, 0)
            + self.cache_write_1h * tokens.cache_write_1h_tokens
            + self.output * plain_output
            + self.reasoning * tokens.reasoning_tokens
            + (self.input if self.audio_input is None else self.audio_input) * heard
            + (self.output if self.audio_output is None else self.audio_output) * spoken
        )

    def lacks_sound(self, tokens: Tokens) -> bool:
        return bool(
            (tokens.audio_prompt_tokens and self.audio_input is None)
            or (tokens.audio_completion_tokens and self.audio_output is None)
        )


@dataclass(frozen=True)
class Tariff:
    """One model's prices on one day: US dollars for a call, for a web search, and rates from the highest threshold
    down. `search_fee` is None where nobody says what a search costs; `tier` is the tier of service that they are for.
    """

    request_fee: Decimal
    search_fee: Decimal | None
    tiers: tuple[Rates, ...]
    tier: str | None = None

    def cost(self, tokens: Tokens) -> Decimal:
        fees = self.request_fee + (self.search_fee or NOTHING) * tokens.search_requests
        return fees + self._rates(tokens).cost(tokens)

    def lacking(self, tokens: Tokens) -> str | None:
        """What of these tokens has no price here, so that its cost is a guess; None: nothing."""
        if tokens.service_tier != self.tier:
            return f"the service tier {tokens.service_tier or 'default'}"
        if self._rates(tokens).lacks_sound(tokens):
            return "audio tokens"
        if tokens.search_requests and self.search_fee is None:
            return "web searches"
        return None

    def _rates(self, tokens: Tokens) -> Rates:
        return next((rates for rates in self.tiers if tokens.prompt_tokens > rates.above), self.tiers[-1])


def flat(price: PricePart) -> Tariff:
    """The prices that a deployment states itself. What has no rate of its own is priced as what it is a part of, and a
    search that has none is free.
    """
    plain_input, plain_output = price.input_mtok.scaleb(-6), price.output_mtok.scaleb(-6)
    cache_write = _or(price.cache_write_mtok, plain_input)
    rates = Rates(
        above=0,
        input=plain_input,
        cached=_or(price.cache_read_mtok, plain_input),
        cache_write=cache_write,
        cache_write_1h=cache_write,
        output=plain_output,
        reasoning=plain_output,
        audio_input=None if price.input_audio_mtok is None else price.input_audio_mtok.scaleb(-6),
        audio_output=None if price.output_audio_mtok is None else price.output_audio_mtok.scaleb(-6),
    )
    return Tariff(price.request or NOTHING, price.search or NOTHING, (rates,))


def _or(million: Decimal | None, plain: Decimal) -> Decimal:
    return plain if million is None else million.scaleb(-6)
