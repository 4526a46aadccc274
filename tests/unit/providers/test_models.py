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
    ],
)
def test_a_provider_gets_the_model_that_it_claims_or_is_alone_asked_for(
    provider: str, wish: str | None, preferred: tuple[str, ...] | None, expected: str
) -> None:
    request = CompletionRequest(prompt="hi", model=wish, preferred_providers=preferred)
    assert model_for(provider, request, "default", CATALOG) == expected


def test_what_is_claimed_can_be_told_to_people() -> None:
    assert CATALOG.told(["claude", "local"]) == "claude (claude…), local (llama-*, gpt-oss*, exact)"
