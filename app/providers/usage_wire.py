"""What an answer says it has used, and what it has cost, wherever and in whatever words it says so. Pure.

A count that is missing, null, negative or no number is none: the answer is good all the same, and what it does not say
is estimated. What it does say is used, also where it stands beside the place that OpenAI gave it. Sources: the API
references of those who speak OpenAI's format, and answers that people have shown in public reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from app.providers.wire import MOST_TOKENS, Body
from schemas.usage import Tokens
from streams.dispatch.ports import Answer

#: Of an answer that states no counts; no answer that was counted has none.
UNCOUNTED = Tokens()
#: More than this no call can cost; the ledger could not hold it.
MOST_DOLLARS = 10**6
#: xAI states its price in parts of a dollar.
TICKS = 10**10

_Names = tuple[str, ...]
#: Names of one count, the usual one first: OpenAI's, those of its Responses, Ollama's own and llama.cpp's timings.
_PROMPT: _Names = ("prompt_tokens", "input_tokens", "prompt_eval_count", "prompt_n")
_COMPLETION: _Names = ("completion_tokens", "output_tokens", "eval_count", "predicted_n")
_CACHED: _Names = (
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "cache_read_input_tokens",
    "cached_input_tokens",
    "num_cached_tokens",
)
_WRITTEN: _Names = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_REASONING: _Names = ("reasoning_tokens", "thinking_tokens")
_PROMPT_DETAILS: _Names = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_COMPLETION_DETAILS: _Names = ("completion_tokens_details", "output_tokens_details", "output_token_details")


def as_count(value: object) -> int | None:
    """A number of tokens, also as `7.0` or as text; None for what is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) < len(str(MOST_TOKENS)) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    # In this order: the whole number of a very large fraction takes long.
    if not math.isfinite(value) or not 0 <= value <= MOST_TOKENS or value != int(value):
        return None
    return int(value)


def count_in(usage: object, *names: str) -> int:
    """The first of these counts that says something; 0 if none does."""
    found = (as_count(usage.get(name)) for name in names) if isinstance(usage, Mapping) else ()
    return next((count for count in found if count), 0)


def dollars(value: object) -> Decimal | None:
    """An amount; None for what is none. JSON's shortest form of a float is what was written."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= MOST_DOLLARS else None


def usage_in(body: Body) -> Body | None:
    """The usage in an answer or in a piece of one: where OpenAI has it, in a choice, or in a vendor's own field.

    Several may be there: what one leaves out or says as zero, another may say.
    """
    found: Body | None = None
    for usage in _places(body):
        if isinstance(usage, dict) and usage:
            # The first place that says something of a field is believed.
            found = later(usage, found)
    return found


def _places(body: Body) -> Iterator[object]:
    yield body.get("usage")
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield choice.get("usage")
    for name, field in body.items():
        if name.startswith("x_") and isinstance(field, dict):
            yield field.get("usage")
    yield body.get("timings")
    yield {name: body[name] for name in ("prompt_eval_count", "eval_count") if name in body}


def later(known: object, said: object) -> Body | None:
    """What is known of a usage after another one was said: each field as it was last said, if that was not nothing."""
    if not isinstance(said, dict):
        return known if isinstance(known, dict) else None
    if not isinstance(known, dict):
        return said
    merged = dict(known)
    for name, value in said.items():
        before = known.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[name] = later(before, value)
        elif value or not before:
            merged[name] = value
    return merged


def tokens_in(usage: object) -> Tokens:
    """The counts of a usage in OpenAI's sense: what was cached is inside the prompt's, reasoning inside the
    completion's. UNCOUNTED where it says none.

    Some count these beside the others. The total tells, and so does a part that is larger than the whole.
    """
    if not isinstance(usage, Mapping):
        return UNCOUNTED
    prompt, completion = count_in(usage, *_PROMPT), count_in(usage, *_COMPLETION)
    asked, answered = _details(usage, _PROMPT_DETAILS), _details(usage, _COMPLETION_DETAILS)
    cached = count_in(asked, *_CACHED) or count_in(usage, *_CACHED)
    written = count_in(asked, *_WRITTEN) or count_in(usage, *_WRITTEN)
    reasoning = count_in(answered, *_REASONING) or count_in(usage, *_REASONING)
    total = count_in(usage, "total_tokens")
    if cached + written > prompt or (cached and total == prompt + cached + written + completion + reasoning):
        prompt += cached + written
    beside = total - prompt - completion
    if reasoning > completion or (reasoning and beside == reasoning):
        completion += reasoning
    elif beside > 0 and prompt:
        # Nobody pays for the rest of a total but as output: what was thought and not told, or all of an answer that
        # has no count of its own.
        completion, reasoning = completion + beside, reasoning + (beside if completion else 0)
    return Tokens(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        audio_prompt_tokens=min(count_in(asked, "audio_tokens"), prompt),
        audio_completion_tokens=min(count_in(answered, "audio_tokens"), completion),
    )


def counted(tokens: Tokens) -> Tokens | None:
    """The tokens, if any were counted; a tier alone is no count."""
    return None if tokens.model_copy(update={"service_tier": None}) == UNCOUNTED else tokens


def _details(usage: Mapping[str, Any], names: _Names) -> Mapping[str, Any]:
    return next((usage[name] for name in names if isinstance(usage.get(name), Mapping)), {})


def cost_in(usage: object) -> Decimal | None:
    """What a usage says that the call has cost, in US dollars; None where it does not say."""
    if not isinstance(usage, Mapping):
        return None
    stated = usage.get("cost")
    if isinstance(stated, Mapping):
        stated = next((stated[name] for name in ("total_cost", "total", "usd") if name in stated), None)
    ticks = usage.get("cost_in_usd_ticks")
    named = tuple(dollars(usage.get(name)) for name in ("total_cost", "cost_usd", "estimated_cost"))
    cost = dollars(stated)
    if cost is None:
        named = (dollars(Decimal(ticks) / TICKS) if isinstance(ticks, int) else None, *named)
        cost = next((one for one in named if one is not None), None)
    if usage.get("is_byok") is True and cost is not None:
        # The gateway's fee alone: the vendor behind it bills the rest to the key that was brought along.
        details = usage.get("cost_details")
        behind = dollars(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None
        return None if behind is None else cost + behind
    return cost


#: In which header LiteLLM's gateway states the cost of an answer.
_COST_HEADER = "x-litellm-response-cost"


def cost_stated(answer: Answer, headers: Mapping[str, str]) -> Answer:
    """The answer with the cost that stands beside it. Zero says nothing there: a model without a price has it too."""
    if answer.reported_cost is not None:
        return answer
    return replace(answer, reported_cost=dollars(headers.get(_COST_HEADER)) or None)
