"""Who claims which model, and which model a provider gets."""

from __future__ import annotations

import pytest

from app.providers.models import Catalog, model_for
from schemas.request import CompletionRequest

CATALOG = Catalog({"local": ("llama-*", "gpt-oss*", "exact"), "gateway": ("*/*",)})


@pytest.mark.parametrize(
    ("model", "claimants"),
    [
        ("llama-4", ("local",)),
        ("Llama-4", ()),
        ("exact", ("local",)),
        ("exactly", ()),
        ("gpt-5", ("openai",)),
        ("gpt-oss-20b", ("local",)),
        ("openai/gpt-5", ("gateway", "openai")),
        ("sonar-pro", ("perplexity",)),
        ("who-knows", ()),
    ],
)
def test_named_providers_claim_by_patterns_and_come_before_the_built_in_ones(
    model: str, claimants: tuple[str, ...]
) -> None:
    assert CATALOG.claimants(model) == claimants


@pytest.mark.parametrize(
    ("provider", "wish", "preferred", "expected"),
    [
        ("local", None, None, "default"),
        ("local", "llama-4", None, "llama-4"),
        ("local", "gpt-5", None, "default"),
        ("openai", "llama-4", None, "default"),
        ("openai", "llama-4", ("openai",), "default"),
        ("openai", "who-knows", ("openai",), "who-knows"),
        ("openai", "who-knows", ("openai", "local"), "default"),
        ("local", "gpt-5", ("local",), "gpt-5"),
        ("local", "gpt-5", ("local", "openai"), "default"),
        ("openai", "gpt-5", ("local",), "gpt-5"),
        ("openai", "openai/gpt-5", None, "gpt-5"),
        ("openai", "OpenAI/gpt-5", None, "gpt-5"),
        ("openai", "openai/ft:gpt-4o:acme", None, "ft:gpt-4o:acme"),
        ("openai", "openai/who-knows", ("openai",), "default"),
        ("openai", "anthropic/claude-x", ("openai",), "default"),
        ("claude", "anthropic/claude-x", None, "claude-x"),
        ("claude", "openai/gpt-5", None, "default"),
        ("perplexity", "perplexity/sonar-pro", None, "sonar-pro"),
        ("gateway", "openai/gpt-5", None, "openai/gpt-5"),
        ("gateway", "perplexity/sonar-pro", None, "perplexity/sonar-pro"),
        ("local", "openai/gpt-5", ("local",), "openai/gpt-5"),
    ],
)
def test_a_provider_gets_the_model_that_it_claims_or_is_alone_asked_for(
    provider: str, wish: str | None, preferred: tuple[str, ...] | None, expected: str
) -> None:
    request = CompletionRequest(prompt="hi", model=wish, preferred_providers=preferred)
    assert model_for(provider, request, "default", CATALOG) == expected


def test_what_is_claimed_can_be_told_to_people() -> None:
    assert CATALOG.told(["claude", "local"]) == "claude (claude…), local (llama-*, gpt-oss*, exact)"


def plain(catalog: Catalog, model: str | None, *preferred: str) -> str | None:
    return catalog.plain(CompletionRequest(prompt="hi", model=model, preferred_providers=preferred or None)).model


def test_a_model_without_a_gateway_is_the_same_with_its_vendor_and_without() -> None:
    alone = Catalog({"local": ("llama-*",)})
    assert plain(alone, "openai/gpt-5") == "gpt-5"
    assert plain(alone, "anthropic/claude-x", "claude", "openai") == "claude-x"
    assert plain(alone, "gpt-5") == "gpt-5"
    assert plain(alone, "meta/llama-4") == "meta/llama-4"
    assert plain(alone, None) is None


def test_where_a_named_provider_is_asked_the_two_names_are_two() -> None:
    assert plain(CATALOG, "openai/gpt-5") == "openai/gpt-5"
    assert plain(Catalog({"local": ("gpt-*",)}), "openai/gpt-5") == "openai/gpt-5"
    assert plain(Catalog({"local": ("llama-*",)}), "openai/gpt-5", "local") == "openai/gpt-5"
