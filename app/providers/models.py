"""Which model a provider gets: the request's own wish where it is one of the provider's, else the default.

A built-in provider's rule is its vendor's own naming (`claude-…`; `gpt-…`, `o3…`, `ft:…`; `sonar…`), kept here rather
than taken from the price list: a model that is released tomorrow has a familiar name before it has a price. A named
provider's models are the patterns that the settings give it. A name that nobody claims (a fine-tuned one, one behind a
gateway) goes to a provider only if the request prefers that provider alone; a fallback would only answer that there is
no such model.

Many clients write the vendor before the model (`openai/gpt-4o`, `anthropic/claude-…`), as gateways do. Only the
built-in provider of that vendor knows what is meant, and asks for the model without it; a named provider gets the name
as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from app.settings import Settings
from schemas.request import CommonRequest

_OWN: Mapping[str, re.Pattern[str]] = {
    "claude": re.compile(r"claude", re.IGNORECASE),
    "openai": re.compile(
        r"gpt(?!-oss)|chatgpt|o\d|codex|computer-use|davinci|babbage|text-(embedding|davinci|moderation)|ft:",
        re.IGNORECASE,
    ),
    "perplexity": re.compile(r"sonar|pplx|r1-1776", re.IGNORECASE),
}
#: What stands before a model to say whose it is.
_PREFIXES: Mapping[str, str] = {"claude": "anthropic/", "openai": "openai/", "perplexity": "perplexity/"}


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

    def plain(self, request: CommonRequest) -> CommonRequest:
        """The same request without its vendor before the model, where that changes nothing: no named provider is asked
        for either name.
        """
        model = request.model or ""
        owner = next((name for name in _OWN if plain_name(name, model) != model), None)
        if owner is None or any(name in self.named for name in request.preferred_providers or ()):
            return request
        bare = plain_name(owner, model)
        if self.claimants(model) != (owner,) or self.claimants(bare) != (owner,):
            return request
        return request.model_copy(update={"model": bare})

    def told(self, providers: Iterable[str]) -> str:
        """What these providers claim, for people: `claude (claude…), local (llama-*)`."""
        return ", ".join(f"{name} ({self._told(name)})" for name in providers)

    def _told(self, provider: str) -> str:
        return ", ".join(self.named[provider]) if provider in self.named else _TOLD[provider]


def belongs_to(provider: str, model: str) -> bool:
    """Whether the vendor's naming claims the model."""
    return _OWN[provider].match(plain_name(provider, model)) is not None


def plain_name(provider: str, model: str) -> str:
    """The model as a built-in provider's vendor calls it; at any other provider as it is."""
    prefix = _PREFIXES.get(provider, "")
    return model[len(prefix) :] if prefix and model.lower().startswith(prefix) else model


def model_for(provider: str, request: CommonRequest, default: str, catalog: Catalog) -> str:
    """The request's model if the provider claims it, or if nobody does and this provider alone is asked for.

    Who asks for a named provider alone means its model, whoever else has one of that name: it may be a gateway.
    """
    wish = request.model
    if wish is None:
        return default
    name = wish if provider in catalog.named else plain_name(provider, wish)
    if catalog.claims(provider, wish):
        return name
    asked_alone = request.preferred_providers == (provider,)
    return name if asked_alone and (provider in catalog.named or not catalog.claimants(wish)) else default


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
            return plain_name(provider, str(model))
    raise LookupError(f"no default model for {provider}")
