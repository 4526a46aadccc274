"""Which model a provider gets: the request's own wish where it is one of the provider's, else the default.

A built-in provider's rule is its vendor's own naming (`claude-…`; `gpt-…`, `o3…`, `ft:…`; `sonar…`), kept here rather
than taken from the price list: a model that is released tomorrow has a familiar name before it has a price. A named
provider's models are the patterns that the settings give it. A name that nobody claims (a fine-tuned one, one behind a
gateway) goes to a provider only if the request prefers that provider alone; a fallback would only answer that there is
no such model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from app.settings import Settings
from schemas.request import CommonRequest

_OWN: Mapping[str, re.Pattern[str]] = {
    "claude": re.compile(r"(anthropic/)?claude", re.IGNORECASE),
    "openai": re.compile(
        r"(openai/)?(gpt(?!-oss)|chatgpt|o\d|codex|computer-use|davinci|babbage|text-(embedding|davinci|moderation)|ft:)",
        re.IGNORECASE,
    ),
    "perplexity": re.compile(r"(perplexity/)?(sonar|pplx|r1-1776)", re.IGNORECASE),
}


#: How the vendors' names begin, for people.
_TOLD: Mapping[str, str] = {"claude": "claude…", "openai": "gpt…, o3…, text-embedding…", "perplexity": "sonar…"}


@dataclass(frozen=True)
class Catalog:
    """Who claims which model. `named` are the patterns of the providers that the deployment adds, in their order.

    Implements `streams.admit.ports.Models`.
    """

    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def claims(self, provider: str, model: str) -> bool:
        if provider in self.named:
            return any(fnmatchcase(model, pattern) for pattern in self.named[provider])
        return belongs_to(provider, model)

    def claimants(self, model: str) -> tuple[str, ...]:
        """All that claim a model, those first that the deployment has added: it has said so itself."""
        return tuple(name for name in (*self.named, *_OWN) if self.claims(name, model))

    def told(self, providers: Iterable[str]) -> str:
        """What these providers claim, for people: `claude (claude…), local (llama-*)`."""
        return ", ".join(f"{name} ({self._told(name)})" for name in providers)

    def _told(self, provider: str) -> str:
        return ", ".join(self.named[provider]) if provider in self.named else _TOLD[provider]


def belongs_to(provider: str, model: str) -> bool:
    """Whether the vendor's naming claims the model."""
    return _OWN[provider].match(model) is not None


def model_for(provider: str, request: CommonRequest, default: str, catalog: Catalog) -> str:
    """The request's model if the provider claims it, or if nobody does and this provider alone is asked for.

    Who asks for a named provider alone means its model, whoever else has one of that name: it may be a gateway.
    """
    wish = request.model
    if wish is None:
        return default
    if catalog.claims(provider, wish):
        return wish
    asked_alone = request.preferred_providers == (provider,)
    return wish if asked_alone and (provider in catalog.named or not catalog.claimants(wish)) else default


def default_model(provider: str, settings: Settings) -> str:
    """A named provider's own; else the first of the chat, fast and search models that is this provider's, as set or
    as Spillway ships.
    """
    if provider in settings.named_providers():
        return settings.named_providers()[provider].chat_model
    shipped = Settings.model_fields
    names = ("default_chat_model", "default_fast_model", "default_search_model")
    for model in (*(getattr(settings, name) for name in names), *(shipped[name].default for name in names)):
        if belongs_to(provider, model):
            return str(model)
    raise LookupError(f"no default model for {provider}")
