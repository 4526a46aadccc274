"""The providers that a deployment can call: those it names and has a key for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from app.providers import claude, openai, perplexity
from app.providers.base import Access, VendorProvider
from app.providers.compatible import CompatibleProvider
from app.providers.keys import BadKeyError, KeyRing
from app.providers.models import Catalog, default_model, plain_name
from app.providers.transport import silence_clients
from app.settings import Settings, SettingsError
from app.settings.file import NamedPart, address_mistake

log = logging.getLogger(__name__)

Factory = Callable[[Access], VendorProvider]

#: Name → how it is built, and where it is unless the settings say otherwise.
_VENDORS: Mapping[str, tuple[Factory, str]] = {
    "claude": (claude.ClaudeProvider, claude.BASE_URL),
    "openai": (openai.OpenAIProvider, openai.BASE_URL),
    "perplexity": (perplexity.PerplexityProvider, perplexity.BASE_URL),
}


def build_providers(settings: Settings) -> dict[str, VendorProvider]:
    """The providers that can be called: those in their order, then the other named ones. Call it in the event loop.

    A built-in provider without a key is left out with a warning. Raises SettingsError if none is left, for a name that
    no provider has, and for a named one that cannot be called as it is described.
    """
    silence_clients()
    providers: dict[str, VendorProvider] = {}
    for name in offered(settings):
        provider = build_provider(name, settings)
        if provider is None:
            log.warning("provider_left_out: %s: set %s to use it", name, key_variable(name))
        else:
            providers[name] = provider
    if not providers:
        wanted = ", ".join(map(key_variable, settings.provider_order()))
        raise SettingsError(f"No provider can be called: set at least one of {wanted}.")
    return providers


def offered(settings: Settings) -> tuple[str, ...]:
    """Those that requests go to by default, in order; then those that a request can reach by their name or a model."""
    return tuple(dict.fromkeys((*settings.provider_order(), *settings.named_providers())))


def catalog_of(settings: Settings) -> Catalog:
    """Who claims which model."""
    return Catalog({name: part.claims for name, part in settings.named_providers().items()})


def build_provider(name: str, settings: Settings) -> VendorProvider | None:
    """One provider; None for a built-in one that has no key. Raises SettingsError."""
    part = settings.named_providers().get(name)
    if part is not None:
        return CompatibleProvider(name, _named_access(name, part, settings))
    if name not in _VENDORS:
        known = ", ".join(settings.known_providers())
        raise SettingsError(f"{name!r} is no provider; AI_PRIMARY_PROVIDER and AI_FALLBACK_PROVIDERS may name {known}.")
    keys = _keys(name, settings)
    if not keys:
        return None
    factory, shipped_url = _VENDORS[name]
    return factory(
        Access(
            keys=keys,
            base_url=_base_url(name, settings) or shipped_url,
            default_model=default_model(name, settings),
            timeout=getattr(settings, f"{name}_timeout"),
            catalog=catalog_of(settings),
            embedding_model=plain_name(name, settings.default_embedding_model),
            interface=getattr(settings, f"{name}_interface", None),
        )
    )


def _base_url(name: str, settings: Settings) -> str | None:
    url: str | None = getattr(settings, f"{name}_base_url")
    if url and (reason := address_mistake(url)):
        raise SettingsError(f"AI_{name.upper()}_BASE_URL {reason}.")
    return url


def _keys(name: str, settings: Settings) -> KeyRing:
    """The keys of a built-in provider, as its variable or its file states them; they may be none."""
    stated: SecretStr | None = getattr(settings, f"{name}_api_key")
    file: Path | None = getattr(settings, f"{name}_api_key_file")
    text = stated.get_secret_value() if stated is not None else ""
    if file is None:
        return _ring(key_variable(name), text)
    if text.strip():
        raise SettingsError(f"{key_variable(name)} and {key_variable(name)}_FILE are both set; keep one of them.")
    return _ring(f"{key_variable(name)}_FILE", file=file)


def _named_access(name: str, part: NamedPart, settings: Settings) -> Access:
    return Access(
        keys=_named_keys(name, part),
        base_url=part.base_url,
        default_model=part.chat_model,
        timeout=part.timeout,
        catalog=catalog_of(settings),
        embedding_model=part.embedding_model,
    )


def _named_keys(name: str, part: NamedPart) -> KeyRing:
    """The keys of a named provider; none where neither a variable nor a file is stated."""
    if part.api_key_file is not None:
        return _ring(f"providers.{name}.api_key_file", file=part.api_key_file)
    if part.api_key_env is None:
        return _ring(f"providers.{name}")
    text = _variable(part.api_key_env)
    if not text.strip():
        raise SettingsError(
            f"{part.api_key_env} is not set, and providers.{name} takes its key from it: set it, or take "
            f"api_key_env out of AI_SETTINGS_FILE if the server needs no key."
        )
    return _ring(part.api_key_env, text)


def _variable(name: str) -> str:
    """A variable of the environment, or else of `.env`, as the settings themselves are read."""
    file = Settings.model_config.get("env_file")
    return os.environ.get(name) or (dotenv_values(str(file)).get(name) if file else None) or ""


def _ring(source: str, text: str = "", *, file: Path | None = None) -> KeyRing:
    try:
        return KeyRing(source, text, file=file)
    except BadKeyError as error:
        raise SettingsError(str(error)) from None


def key_variable(name: str) -> str:
    return f"AI_{name.upper()}_API_KEY"
