"""Which providers there are, and which models they get."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from app.providers import build_providers
from app.providers.base import Access, VendorProvider
from app.providers.keys import KeyRing
from app.providers.registry import build_provider
from app.settings import Settings, SettingsError
from schemas.request import CompletionRequest, EmbeddingRequest
from streams.dispatch.ports import Call, ErrorClass, Failure

KEYS = {"claude_api_key": "sk-ant-1", "openai_api_key": "sk-1", "perplexity_api_key": "pplx-1"}


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(f"AI_{name.upper()}", raising=False)


async def built(**changes: Any) -> dict[str, VendorProvider]:
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


NAMED = """
[providers.local]
kind = "openai_compatible"
base_url = "http://127.0.0.1:11434/v1"
models = ["llama-*"]
default_model = "llama-4"
[providers.gateway]
kind = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "GATEWAY_KEY"
default_model = "m"
embedding_model = "e"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file with two named providers, one of which needs a key."""
    monkeypatch.setenv("GATEWAY_KEY", "gw-1, gw-2")
    path = tmp_path / "spillway.toml"
    path.write_text(NAMED)
    return path


async def test_named_providers_are_there_whether_they_are_in_the_order_or_not(file: Path) -> None:
    providers = await built(settings_file=file, primary_provider="gateway", fallback_providers=("claude",))
    assert list(providers) == ["gateway", "claude", "local"]
    assert {name: provider.name for name, provider in providers.items()} == {name: name for name in providers}
    keys = {name: len(provider.access.keys) for name, provider in providers.items()}
    assert keys == {"gateway": 2, "claude": 1, "local": 0}


async def test_a_named_provider_alone_is_enough(file: Path) -> None:
    providers = build_providers(settings(settings_file=file, primary_provider="local", fallback_providers=()))
    assert list(providers) == ["local", "gateway"]
    for provider in providers.values():
        await provider.close()


async def test_models_of_named_providers_are_theirs(file: Path) -> None:
    providers = await built(settings_file=file)
    asked = CompletionRequest(prompt="Hello", model="llama-70b")
    wished = {name: provider.model_for(asked) for name, provider in providers.items()}
    assert wished == {
        "claude": "claude-sonnet-5-5",
        "openai": "gpt-4o-mini",
        "perplexity": "sonar",
        "local": "llama-70b",
        "gateway": "m",
    }


def test_a_key_variable_of_a_named_provider_that_is_not_set_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_KEY")
    with pytest.raises(SettingsError, match=r"^GATEWAY_KEY is not set, and providers.gateway takes its key from it"):
        build_provider("gateway", settings(settings_file=file))


def test_a_key_variable_may_be_in_the_same_file_as_the_settings(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_KEY")
    dotenv = tmp_path / ".env"
    dotenv.write_text("GATEWAY_KEY=gw-9\n")
    monkeypatch.setitem(Settings.model_config, "env_file", str(dotenv))
    provider = build_provider("gateway", settings(settings_file=file))
    assert provider is not None
    key = provider.access.keys.take()
    assert key is not None
    assert (key.value, key.place) == ("gw-9", "GATEWAY_KEY")


async def test_keys_come_from_a_file_as_well(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("sk-1\nsk-2\n")
    providers = await built(openai_api_key=None, openai_api_key_file=path)
    assert len(providers["openai"].access.keys) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"openai_api_key_file": "x"}, "^AI_OPENAI_API_KEY and AI_OPENAI_API_KEY_FILE are both set; keep one of them"),
        (
            {"openai_api_key": None, "openai_api_key_file": "/no/such/file"},
            "^AI_OPENAI_API_KEY_FILE: the file /no/such/file cannot be read",
        ),
        ({"openai_base_url": "api.example.com"}, "^AI_OPENAI_BASE_URL is no address; write it as http://host:port/v1"),
    ],
)
def test_keys_and_addresses_that_cannot_be_are_refused_at_the_start(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_providers(settings(**{**KEYS, "primary_provider": "openai", **changes}))


def test_a_name_that_no_provider_has_is_named() -> None:
    unchecked = settings(**KEYS).model_copy(update={"fallback_providers": ("mistral",)})
    with pytest.raises(SettingsError, match="'mistral' is no provider"):
        build_providers(unchecked)


@pytest.mark.parametrize("key", ["sk-1 sk-2", "sk-é", "sk-1\nsk 2"])
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


async def test_a_kind_that_a_provider_does_not_answer_falls_back_without_a_call() -> None:
    request = EmbeddingRequest(kind="embedding", input="Hello")
    failure = await (await built())["claude"].call(Call(request, "text-embedding-3-small", timeout=1.0))
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
    ring = KeyRing("AI_OPENAI_API_KEY", "sk-1,sk-2")
    assert "sk-" not in repr(Access(ring, "https://x.example", "gpt-4o"))
    assert "sk-" not in repr(ring.take())
