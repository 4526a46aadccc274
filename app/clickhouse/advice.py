"""What a workspace could save, computed from what it used. Pure.

Each piece of advice states its assumption, and no more than the ledger can know: which model would have done as well,
or whether two requests were the same, it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from schemas.money import ZERO, Usd, usd
from schemas.usage import Tokens

#: Prompt tokens on average above which a prompt is long.
LONG_PROMPT = 2_000
#: A purpose repeats when so many of its answers, and this share of them, look like an earlier one.
MANY_REPEATS = 10
REPEATED_SHARE = Decimal("0.5")
#: Advice that saves less than this in the month is left out.
WORTH_SAYING = Decimal("0.01")

#: Patterns of models, and a cheaper model of the same family, the first that fits.
CHEAPER: Mapping[str, tuple[tuple[str, str], ...]] = {
    "claude": (("claude-opus-*", "claude-sonnet-5-5"), ("claude-sonnet-*", "claude-haiku-4-5")),
    "openai": (
        ("gpt-4o-mini*", ""),
        ("gpt-4o*", "gpt-4o-mini"),
        ("gpt-4.1-mini*", "gpt-4.1-nano"),
        ("gpt-4.1-nano*", ""),
        ("gpt-4.1*", "gpt-4.1-mini"),
        ("gpt-5-mini*", "gpt-5-nano"),
        ("gpt-5-nano*", ""),
        ("gpt-5*", "gpt-5-mini"),
    ),
    "perplexity": (("sonar-reasoning-pro", "sonar-reasoning"), ("sonar-pro", "sonar")),
}

#: The share of a call's price that providers take off in their batch interfaces, which answer within 24 hours.
#: Sources: Anthropic's "Message Batches API" and OpenAI's "Batch API" documentation, both 50 %.
BATCH_DISCOUNT: Mapping[str, Decimal] = {"claude": Decimal("0.5"), "openai": Decimal("0.5")}


class Prices(Protocol):
    """US dollars for one call with these tokens; None where the price is not known."""

    def cost(self, provider: str, model: str, tokens: Tokens, at: datetime) -> Decimal | None: ...


@dataclass(frozen=True)
class Used:
    """Successful, priced calls of one model for one purpose; tokens and cost (US dollars) are sums."""

    provider: str
    model: str
    purpose: str
    priority: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: Decimal

    def mean(self) -> Tokens:
        """The tokens of the average call: prices may depend on the length of a prompt."""
        sums = (self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.reasoning_tokens)
        prompt, completion, cached, reasoning = (round(tokens / self.calls) for tokens in sums)
        return Tokens(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=min(cached, prompt),
            reasoning_tokens=min(reasoning, completion),
        )


@dataclass(frozen=True)
class Repeated:
    """A purpose without a cached answer: its answers, those that look like an earlier one, and what these cost."""

    purpose: str
    answers: int
    repeats: int
    cost: Decimal


class Advice(BaseModel):
    """One recommendation. `saves` is in US dollars of this month; `at_most` says that it is an upper bound."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["cheaper_model", "long_prompts", "cache", "batch"]
    subject: str
    saves: Usd
    at_most: bool = False
    text: str
    assumption: str


def advise(used: Sequence[Used], repeated: Iterable[Repeated], prices: Prices, at: datetime) -> tuple[Advice, ...]:
    """All advice that saves something, the most first."""
    found = [
        *_cheaper_models(used, prices, at),
        *_long_prompts(used, prices, at),
        *_caching(repeated),
        *_batches(used),
    ]
    return tuple(
        sorted((advice for advice in found if advice.saves >= WORTH_SAYING), key=lambda a: (-a.saves, a.subject))
    )


def cheaper_model(provider: str, model: str) -> str | None:
    """A cheaper model of the same family, None where none is known."""
    for pattern, cheaper in CHEAPER.get(provider, ()):
        if fnmatchcase(model, pattern):
            return cheaper or None
    return None


def _cheaper_models(used: Iterable[Used], prices: Prices, at: datetime) -> Iterable[Advice]:
    saved: dict[tuple[str, str], Decimal] = {}
    calls: dict[tuple[str, str], int] = {}
    for line in used:
        cheaper = cheaper_model(line.provider, line.model)
        if cheaper is None or cheaper == line.model:
            continue
        now, then = (prices.cost(line.provider, model, line.mean(), at) for model in (line.model, cheaper))
        if now is None or then is None:
            continue
        pair = (line.model, cheaper)
        saved[pair] = saved.get(pair, ZERO) + (now - then) * line.calls
        calls[pair] = calls.get(pair, 0) + line.calls
    for (model, cheaper), amount in saved.items():
        yield Advice(
            kind="cheaper_model",
            subject=model,
            saves=usd(amount),
            text=f"Ask {cheaper} instead of {model} where it is good enough ({calls[model, cheaper]:,} calls).",
            assumption="The same tokens at the other model's price, counted by the average call of each purpose.",
        )


def _long_prompts(used: Iterable[Used], prices: Prices, at: datetime) -> Iterable[Advice]:
    by_purpose: dict[str, list[Used]] = {}
    for line in used:
        by_purpose.setdefault(line.purpose, []).append(line)
    for purpose, lines in by_purpose.items():
        calls = sum(line.calls for line in lines)
        average = sum(line.prompt_tokens for line in lines) // calls
        if average <= LONG_PROMPT:
            continue
        yield Advice(
            kind="long_prompts",
            subject=purpose,
            saves=usd(sum((_excess(line, prices, at) for line in lines), ZERO)),
            text=f"Shorten the prompts of {_named(purpose)}: {average:,} tokens on average in {calls:,} calls.",
            assumption=f"The average prompt of each model cut to {LONG_PROMPT:,} tokens, all else the same.",
        )


def _excess(line: Used, prices: Prices, at: datetime) -> Decimal:
    """What the average call's tokens above the limit cost, for all calls."""
    mean = line.mean()
    if mean.prompt_tokens <= LONG_PROMPT:
        return ZERO
    short = mean.model_copy(
        update={"prompt_tokens": LONG_PROMPT, "cached_tokens": min(mean.cached_tokens, LONG_PROMPT)}
    )
    now, then = (prices.cost(line.provider, line.model, tokens, at) for tokens in (mean, short))
    return ZERO if now is None or then is None else (now - then) * line.calls


def _caching(repeated: Iterable[Repeated]) -> Iterable[Advice]:
    for line in repeated:
        if line.repeats < MANY_REPEATS or line.repeats < REPEATED_SHARE * line.answers:
            continue
        yield Advice(
            kind="cache",
            subject=line.purpose,
            saves=usd(line.cost),
            at_most=True,
            text=f"Let {_named(line.purpose)} be answered from the cache: none of its {line.answers:,} answers was, "
            f"and {line.repeats:,} look like an earlier one.",
            assumption="Two requests look alike when model and number of prompt tokens are the same; whether they are "
            "identical the ledger does not know, so this is the most that it can save.",
        )


def _batches(used: Iterable[Used]) -> Iterable[Advice]:
    for provider, discount in BATCH_DISCOUNT.items():
        lines = [line for line in used if line.provider == provider and line.priority == "batch"]
        calls = sum(line.calls for line in lines)
        yield Advice(
            kind="batch",
            subject=provider,
            saves=usd(sum((line.cost for line in lines), ZERO) * discount),
            text=f"Send what can wait to the batch interface of {provider} ({calls:,} calls).",
            assumption=f"Requests of priority batch can wait for 24 hours; the provider takes {discount:.0%} off.",
        )


def _named(purpose: str) -> str:
    return f"the purpose {purpose}" if purpose else "the requests without a purpose"
