"""What a deployment sets, read from the environment and `.env`; a wrong value is refused by its variable's name.

Names are part of the contract (`.env.example` lists all of them).
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROVIDER_NAMES = ("claude", "openai", "perplexity")

CommaList = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """A setting is wrong. The message names the variable and says what to do; it never shows a secret."""


class Settings(BaseSettings):
    """All of Spillway's settings. Each field's variable is `AI_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="AI_", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    # Providers
    claude_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    perplexity_api_key: SecretStr | None = None
    claude_base_url: str | None = None
    openai_base_url: str | None = None
    perplexity_base_url: str = "https://api.perplexity.ai"
    claude_timeout: float = Field(default=60.0, gt=0, description="seconds for one call")
    openai_timeout: float = Field(default=60.0, gt=0, description="seconds for one call")
    perplexity_timeout: float = Field(default=60.0, gt=0, description="seconds for one call")
    retry_attempts: int = Field(default=3, ge=1, le=10, description="attempts at one provider")
    retry_delay: float = Field(default=1.0, gt=0, description="seconds before the first retry")
    primary_provider: str = "claude"
    fallback_providers: CommaList = ("openai", "perplexity")
    default_chat_model: str = "claude-sonnet-5-5"
    default_fast_model: str = "gpt-4o-mini"
    default_search_model: str = "sonar"
    default_embedding_model: str = "text-embedding-3-small"

    # Money
    monthly_budget_usd: Decimal = Field(default=Decimal(1000), gt=0)
    cost_alert_thresholds: Annotated[tuple[int, ...], NoDecode] = (50, 80, 90, 100)
    budget_alerts_enabled: bool = True

    # Flow
    partitions: int = Field(default=6, ge=1, le=1024)
    replication_factor: int = Field(default=1, ge=1)
    lane_shards: int = Field(default=6, ge=1, description="lanes of one provider; at most partitions")
    max_in_flight: int = Field(default=64, ge=1, description="calls of one worker to one provider")
    max_request_bytes: int = Field(default=900_000, ge=1_000, le=1_000_000)
    default_deadline: float = Field(default=600.0, gt=0, description="seconds a request may take")
    in_doubt_policy: Literal["retry", "fail"] = "retry"
    reply_topics: str = Field(default=".*", description="a pattern that a reply topic must match")
    drain_timeout: float = Field(default=20.0, gt=0, description="seconds an orderly stop may take")
    dedup_window: float = Field(default=86_400.0, gt=0, description="seconds a request id is known")

    # Kafka
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_application_id: str = "spillway"

    # ClickHouse
    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_database: str = "spillway"
    clickhouse_user: str = "spillway"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_reader_user: str = "spillway_reader"
    clickhouse_reader_password: SecretStr | None = None
    clickhouse_flush_rows: int = Field(default=5_000, ge=1)
    clickhouse_flush_seconds: float = Field(default=1.0, gt=0)

    # The worker
    data_dir: Path = Path(".spillway/worker")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    @field_validator("fallback_providers", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return _split(value)

    @field_validator("cost_alert_thresholds", mode="before")
    @classmethod
    def _split_percents(cls, value: object) -> object:
        return _split(value)

    @field_validator("reply_topics")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _providers_are_known(self) -> Settings:
        for name in (self.primary_provider, *self.fallback_providers):
            if name not in PROVIDER_NAMES:
                known = ", ".join(PROVIDER_NAMES)
                raise ValueError(f"AI_PRIMARY_PROVIDER and AI_FALLBACK_PROVIDERS may name {known}; not {name!r}")
        if self.lane_shards > self.partitions:
            raise ValueError("AI_LANE_SHARDS may not be more than AI_PARTITIONS")
        return self

    def provider_order(self) -> tuple[str, ...]:
        """Primary first, then the fallbacks, each once."""
        return tuple(dict.fromkeys((self.primary_provider, *self.fallback_providers)))


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, or SettingsError with a line for each wrong variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        variable = "AI_" + str(item["loc"][0]).upper() if item["loc"] else ""
        lines.append(f"{variable}: {item['msg']}" if variable else item["msg"])
    return "\n".join(lines)
