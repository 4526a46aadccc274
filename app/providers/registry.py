"""The providers that a deployment can call: those it names and has a key for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from app.providers import claude, openai, perplexity
from app.providers.base import Access, CompletionProvider
from app.providers.models import default_model
from app.providers.transport import silence_clients
from app.settings import Settings, SettingsError
from streams.dispatch.ports import Provider

log = logging.getLogger(__name__)

#: What may stand in an HTTP header without doubt.
_SENDABLE = re.compile(r"[\x21-\x7e]*")

Factory = Callable[[Access], CompletionProvider]

#: Name → how it is built, and where it is unless the settings say otherwise.
_VENDORS: Mapping[str, tuple[Factory, str]] = {
    "claude": (claude.ClaudeProvider, claude.BASE_URL),
    "openai": (openai.OpenAIProvider, openai.BASE_URL),
    "perplexity": (perplexity.PerplexityProvider, perplexity.BASE_URL),
}


def build_providers(settings: Settings) -> dict[str, Provider]:
    """The named providers that have a key, in the order in which they are tried. Call it inside the event loop.

    A named provider without a key is left out with a warning. Raises SettingsError if none is left, or for a name
    that no provider has.
    """
    silence_clients()
    providers: dict[str, Provider] = {}
    for name in settings.provider_order():
        if name not in _VENDORS:
            raise SettingsError(f"{name!r} is no provider; AI_PRIMARY_PROVIDER and AI_FALLBACK_PROVIDERS {_known()}")
        key = _key(settings, name)
        if key is None:
            log.warning("provider_left_out: %s: set %s to use it", name, _key_variable(name))
            continue
        providers[name] = _build(name, key, settings)
    if not providers:
        wanted = ", ".join(map(_key_variable, settings.provider_order()))
        raise SettingsError(f"No provider can be called: set at least one of {wanted}.")
    return providers


def _build(name: str, key: SecretStr, settings: Settings) -> Provider:
    factory, shipped_url = _VENDORS[name]
    return factory(
        Access(
            key=key,
            base_url=getattr(settings, f"{name}_base_url") or shipped_url,
            default_model=default_model(name, settings),
            timeout=getattr(settings, f"{name}_timeout"),
        )
    )


def _key(settings: Settings, name: str) -> SecretStr | None:
    """The provider's key, None if its variable is not set or empty. Raises SettingsError for what is no key."""
    setting: SecretStr | None = getattr(settings, f"{name}_api_key")
    key = setting.get_secret_value().strip() if setting is not None else ""
    if not _SENDABLE.fullmatch(key):
        # Found at the first call otherwise, as an error of the HTTP library that shows the key.
        raise SettingsError(f"{_key_variable(name)} holds characters that no key has, such as spaces.")
    return SecretStr(key) if key else None


def _key_variable(name: str) -> str:
    return f"AI_{name.upper()}_API_KEY"


def _known() -> str:
    return f"may name {', '.join(_VENDORS)}."
