"""Which providers there are, and which models they get."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from app.providers import build_providers
from app.providers.base import Access
from app.settings import Settings, SettingsError
from schemas.request import CompletionRequest, EmbeddingRequest
from streams.dispatch.ports import Call, ErrorClass, Failure, Provider

KEYS = {"claude_api_key": "sk-ant-1", "openai_api_key": "sk-1", "perplexity_api_key": "pplx-1"}


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(f"AI_{name.upper()}", raising=False)


async def built(**changes: Any) -> dict[str, Provider]:
    providers = build_providers(settings(**{**KEYS, **changes}))
    for provider in providers.values():
        await provider.close()
    return providers


async def test_providers_come_in_the_order_in_which_they_are_tried() -> None:
    assert list(await built()) == ["claude", "openai", "perplexity"]
    assert list(await built(primary_provider="openai", fallback_providers=("claude",))) == ["openai", "claude"]


async def test_a_provider_without_a_key_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(await built(openai_api_key=None, perplexity_api_key=" ")) == ["claude"]
    assert "AI_OPENAI_API_KEY" in caplog.text
    assert "AI_PERPLEXITY_API_KEY" in caplog.text


def test_no_key_at_all_is_an_error_that_names_the_variables() -> None:
    with pytest.raises(SettingsError, match="AI_CLAUDE_API_KEY, AI_OPENAI_API_KEY, AI_PERPLEXITY_API_KEY"):
        build_providers(settings())


def test_a_name_that_no_provider_has_is_named() -> None:
    unchecked = settings(**KEYS).model_copy(update={"fallback_providers": ("mistral",)})
    with pytest.raises(SettingsError, match="'mistral' is no provider"):
        build_providers(unchecked)


@pytest.mark.parametrize("key", ["sk-1 sk-2", "sk-é", "sk-1\nsk-2"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(SettingsError, match="AI_OPENAI_API_KEY") as refused:
        build_providers(settings(primary_provider="openai", openai_api_key=key))
    assert "sk-" not in str(refused.value)


@pytest.mark.parametrize(
    ("provider", "wish", "expected"),
    [
        ("claude", None, "claude-sonnet-5-5"),
        ("openai", None, "gpt-4o-mini"),
        ("perplexity", None, "sonar"),
        ("claude", "gpt-4o", "claude-sonnet-5-5"),
        ("perplexity", "gpt-4o", "sonar"),
        ("openai", "gpt-4o", "gpt-4o"),
        ("openai", "o3-mini", "o3-mini"),
        ("openai", "ft:gpt-4o-mini:acme::abc", "ft:gpt-4o-mini:acme::abc"),
        ("openai", "claude-opus-4-1", "gpt-4o-mini"),
        ("claude", "claude-opus-4-1", "claude-opus-4-1"),
        ("perplexity", "sonar-pro", "sonar-pro"),
        ("openai", "llama-4", "gpt-4o-mini"),
    ],
)
async def test_a_model_of_another_vendor_becomes_the_default(provider: str, wish: str | None, expected: str) -> None:
    request = CompletionRequest(prompt="Hello", model=wish)
    assert (await built())[provider].model_for(request) == expected


async def test_a_model_of_no_vendor_goes_to_the_one_provider_that_is_asked_for() -> None:
    providers = await built()
    alone = CompletionRequest(prompt="Hello", model="llama-4", preferred_providers=("openai",))
    several = CompletionRequest(prompt="Hello", model="llama-4", preferred_providers=("openai", "claude"))
    assert providers["openai"].model_for(alone) == "llama-4"
    assert providers["claude"].model_for(alone) == "claude-sonnet-5-5"
    assert providers["openai"].model_for(several) == "gpt-4o-mini"


async def test_the_default_is_the_first_setting_that_is_the_providers_own() -> None:
    providers = await built(default_chat_model="gpt-4.1", default_fast_model="claude-haiku-4-5")
    request = CompletionRequest(prompt="Hello")
    assert providers["openai"].model_for(request) == "gpt-4.1"
    assert providers["claude"].model_for(request) == "claude-haiku-4-5"
    assert providers["perplexity"].model_for(request) == "sonar"


async def test_a_kind_that_is_not_there_yet_falls_back_without_a_call() -> None:
    request = EmbeddingRequest(kind="embedding", input="Hello")
    failure = await (await built())["openai"].call(Call(request, "text-embedding-3-small", timeout=1.0))
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code) == (ErrorClass.FALL_BACK, "unsupported")


async def test_a_deadline_that_has_passed_is_a_timeout_that_cost_nothing() -> None:
    failure = await (await built())["openai"].call(Call(CompletionRequest(prompt="Hello"), "gpt-4o", timeout=-0.1))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.may_be_billed) == ("timeout", False)


async def test_a_request_that_cannot_be_encoded_is_invalid() -> None:
    request = CompletionRequest(prompt="Hello", provider_options={"openai": {"seed": 2**70}})
    failure = await (await built())["openai"].call(Call(request, "gpt-4o", timeout=1.0))
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code) == (ErrorClass.TERMINAL, "invalid_request")


def test_no_key_is_shown_by_a_repr() -> None:
    assert "sk-1" not in repr(Access(settings(**KEYS).openai_api_key, "https://x.example", "gpt-4o"))  # type: ignore[arg-type]
