"""Which model a provider gets: the request's own wish where it is one of the provider's, else the default.

The rule is the vendors' own naming (`claude-…`; `gpt-…`, `o3…`, `ft:…`; `sonar…`), kept here rather than taken from the
price list: a model that is released tomorrow has a familiar name before it has a price. A name that no vendor claims
(a fine-tuned one, one behind a gateway) goes to a provider only if the request prefers that provider alone; a
fallback would only answer that there is no such model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.settings import Settings
from schemas.request import CommonRequest

_OWN: Mapping[str, re.Pattern[str]] = {
    "claude": re.compile(r"(anthropic/)?claude", re.IGNORECASE),
    "openai": re.compile(
        r"(openai/)?(gpt|chatgpt|o\d|codex|computer-use|davinci|babbage|text-(embedding|davinci|moderation)|ft:)",
        re.IGNORECASE,
    ),
    "perplexity": re.compile(r"(perplexity/)?(sonar|pplx|r1-1776)", re.IGNORECASE),
}


def belongs_to(provider: str, model: str) -> bool:
    """Whether the vendor's naming claims the model."""
    return _OWN[provider].match(model) is not None


def model_for(provider: str, request: CommonRequest, default: str) -> str:
    """The request's model if the vendor claims it, or if nobody does and this provider alone is asked for."""
    wish = request.model
    if wish is None:
        return default
    if belongs_to(provider, wish):
        return wish
    asked_alone = request.preferred_providers == (provider,)
    claimed = any(belongs_to(other, wish) for other in _OWN)
    return wish if asked_alone and not claimed else default


def default_model(provider: str, settings: Settings) -> str:
    """The first of the chat, fast and search models that is this provider's, as set or as Spillway ships."""
    shipped = Settings.model_fields
    names = ("default_chat_model", "default_fast_model", "default_search_model")
    for model in (*(getattr(settings, name) for name in names), *(shipped[name].default for name in names)):
        if belongs_to(provider, model):
            return str(model)
    raise LookupError(f"no default model for {provider}")
