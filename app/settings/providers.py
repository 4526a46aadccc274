"""Who is asked, how, and with which models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from app.settings.base import A_YEAR, CommaList, Part, split, unset_if_empty


class ProviderSettings(Part):
    """Providers, retries and default models."""

    claude_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    perplexity_api_key: SecretStr | None = None
    claude_api_key_file: Path | None = Field(default=None, description="instead of the key itself")
    openai_api_key_file: Path | None = Field(default=None, description="instead of the key itself")
    perplexity_api_key_file: Path | None = Field(default=None, description="instead of the key itself")
    claude_base_url: str | None = None
    openai_base_url: str | None = None
    perplexity_base_url: str = "https://api.perplexity.ai"
    perplexity_interface: Literal["agent", "sonar"] = "agent"
    claude_timeout: float = Field(default=60.0, gt=0, le=A_YEAR, description="seconds for one call")
    openai_timeout: float = Field(default=60.0, gt=0, le=A_YEAR, description="seconds for one call")
    perplexity_timeout: float = Field(default=60.0, gt=0, le=A_YEAR, description="seconds for one call")
    retry_attempts: int = Field(default=3, ge=1, le=10, description="attempts at one provider")
    retry_delay: float = Field(default=1.0, gt=0, le=A_YEAR, description="seconds before the first retry")
    primary_provider: str = "claude"
    fallback_providers: CommaList = ("openai", "perplexity")
    default_chat_model: str = "claude-sonnet-5-5"
    default_fast_model: str = "gpt-4o-mini"
    default_search_model: str = "sonar"
    default_embedding_model: str = "text-embedding-3-small"
    availability_interval: float = Field(
        default=60.0, ge=0, le=A_YEAR, description="seconds between two looks; 0: no looks"
    )

    _split_names = field_validator("fallback_providers", mode="before")(split)
    _empty_providers = field_validator(
        "claude_api_key_file",
        "openai_api_key_file",
        "perplexity_api_key_file",
        mode="before",
    )(unset_if_empty)

    def provider_order(self) -> tuple[str, ...]:
        """Primary first, then the fallbacks, each once."""
        return tuple(dict.fromkeys((self.primary_provider, *self.fallback_providers)))
