"""What a deployment sets, read from the environment and `.env`; a wrong value is refused by its variable's name.

Names are part of the contract (`.env.example` lists all of them). What is nested is in a file of its own
(app/settings_file.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.settings_file import (
    AnyPrice,
    NamedPart,
    SettingsFile,
    SettingsFileError,
    mistake,
    read_settings_file,
)
from schemas.budget import BudgetAction, Threshold, TimeZone
from streams.budgets import Budget
from streams.dispatch.quota import Limits
from streams.sharing import CachePolicy
from streams.topology import LaneGroup

#: The built-in providers. A deployment may add others by name: `Settings.known_providers` has them all.
PROVIDER_NAMES = ("claude", "openai", "perplexity")

#: What each provider is asked at most, unless the deployment knows its account better.
SHIPPED_LIMITS: Mapping[str, Limits] = {
    "claude": Limits(rpm=50, rph=1_000, tpm=100_000, tph=2_000_000),
    "openai": Limits(rpm=500, rph=10_000, tpm=150_000, tph=3_000_000),
    "perplexity": Limits(rpm=20, rph=300),
}

#: Characters of AI_WEB_TOKEN: nobody shall guess it.
SHORTEST_TOKEN = 16

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
    claude_api_key_file: Path | None = Field(default=None, description="instead of the key itself")
    openai_api_key_file: Path | None = Field(default=None, description="instead of the key itself")
    perplexity_api_key_file: Path | None = Field(default=None, description="instead of the key itself")
    claude_base_url: str | None = None
    openai_base_url: str | None = None
    perplexity_base_url: str = "https://api.perplexity.ai"
    perplexity_interface: Literal["agent", "sonar"] = "agent"
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
    availability_interval: float = Field(default=60.0, ge=0, description="seconds between two looks; 0: no looks")

    # Limits
    rate_limit_enabled: bool = True
    requests_per_minute: int | None = Field(default=None, ge=1, description="of every provider, for its own default")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="of every provider, for its own default")
    settings_file: Path | None = Field(default=None, description="TOML: limits, lanes, groups, providers, weights")

    # Money
    monthly_budget_usd: Decimal = Field(default=Decimal(1000), gt=0)
    budget_action: BudgetAction = Field(default=BudgetAction.ALERT, description="at 100 %: alert or refuse")
    budget_time_zone: TimeZone = Field(default="UTC", description="whose months budgets are for")
    cost_alert_thresholds: Annotated[tuple[Threshold, ...], NoDecode] = (50, 80, 90, 100)
    budget_alerts_enabled: bool = True
    alert_webhook_url: SecretStr | None = Field(default=None, description="alerts are posted there as well")

    # Cache
    enable_caching: bool = True
    cache_ttl: int = Field(default=3_600, ge=1, description="seconds an answer is kept")
    cache_max_bytes: int = Field(default=256 * 1024, ge=1, description="the largest answer that is kept")
    cache_max_entries: int = Field(default=10_000, ge=1, description="answers that are kept of one workspace")

    # Flow
    partitions: int = Field(default=6, ge=1, le=1024)
    replication_factor: int = Field(default=1, ge=1)
    lane_shards: int = Field(default=1, ge=1, description="lanes of one provider; at most partitions")
    max_in_flight: int = Field(default=64, ge=1, description="calls at once in one lane")
    look_ahead: int = Field(default=20_000, ge=1, description="requests that wait in one lane's memory")
    max_request_bytes: int = Field(default=900_000, ge=1_000, le=1_000_000)
    default_deadline: float = Field(default=600.0, gt=0, description="seconds a request may take")
    in_doubt_policy: Literal["retry", "fail"] = "retry"
    reply_topics: str = Field(default=".*", description="a pattern that a reply topic must match")
    drain_timeout: float = Field(default=20.0, gt=0, description="seconds an orderly stop may take")
    dedup_window: float = Field(default=86_400.0, gt=0, description="seconds a request id is known")

    # Kafka
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_application_id: str = "spillway"

    # The HTTP door
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65_535)
    http_timeout: float = Field(default=600.0, gt=0, description="seconds a request through the door may take")
    http_reply_topic: str = "ai.replies"

    # The page
    web_host: str = "127.0.0.1"
    web_port: int = Field(default=8081, ge=0, le=65_535)
    web_token: SecretStr | None = Field(default=None, description="who has it may see the page and use its buttons")

    # ClickHouse
    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_database: str = "spillway"
    clickhouse_user: str = "spillway"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_reader_user: str = "spillway_reader"
    clickhouse_reader_password: SecretStr | None = None
    clickhouse_flush_rows: int = Field(default=5_000, ge=1)
    clickhouse_flush_seconds: float = Field(default=1.0, gt=0)
    ledger_retention_months: int | None = Field(default=None, ge=0, description="0: for ever; unset: as the tables are")
    store_content: bool = Field(default=False, description="whether prompts and answers are kept in ClickHouse")
    content_retention_days: int | None = Field(default=30, ge=0, description="0: for ever; unset: as the table is")

    # The worker
    data_dir: Path = Path(".spillway/worker")
    ops_host: str = "127.0.0.1"
    ops_port: int = Field(default=9464, ge=0, le=65_535, description="/health, /ready, /metrics; 0: any free one")
    metrics_enabled: bool = True
    metrics_workspaces: int = Field(default=50, ge=0, le=1_000, description="workspaces with figures of their own")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    #: What AI_SETTINGS_FILE says, read once.
    _file: SettingsFile = PrivateAttr(default_factory=SettingsFile)

    @field_validator(
        "requests_per_minute",
        "tokens_per_minute",
        "ledger_retention_months",
        "content_retention_days",
        "settings_file",
        "alert_webhook_url",
        "web_token",
        "claude_api_key_file",
        "openai_api_key_file",
        "perplexity_api_key_file",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("fallback_providers", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return _split(value)

    @field_validator("cost_alert_thresholds", mode="before")
    @classmethod
    def _split_percents(cls, value: object) -> object:
        return _split(value)

    @field_validator("alert_webhook_url")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        """What is wrong with it is said without showing it: whoever has the address may post there."""
        if value is None:
            return None
        try:
            found = urlsplit(value.get_secret_value())
            usable = found.scheme in ("http", "https") and bool(found.hostname) and (found.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("is no address like https://hooks.slack.com/services/…")
        return value

    @field_validator("clickhouse_url")
    @classmethod
    def _names_no_login(cls, value: str) -> str:
        """The address is in error messages, so a password may not be in it. It is not shown here either."""
        if "@" in urlsplit(value).netloc:
            raise ValueError("holds a user or a password; set AI_CLICKHOUSE_USER and AI_CLICKHOUSE_PASSWORD instead")
        return value

    @field_validator("web_token")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"must have at least {SHORTEST_TOKEN} characters")
        return value

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
        """Reads the file first: it may add providers."""
        if self.settings_file is not None:
            self._file = read_settings_file(self.settings_file, PROVIDER_NAMES)
        for name in (self.primary_provider, *self.fallback_providers):
            if name not in self.known_providers():
                known = ", ".join(self.known_providers())
                raise ValueError(f"AI_PRIMARY_PROVIDER and AI_FALLBACK_PROVIDERS may name {known}; not {name!r}")
        if self.lane_shards > self.partitions:
            raise ValueError("AI_LANE_SHARDS may not be more than AI_PARTITIONS")
        return self

    @model_validator(mode="after")
    def _lanes_have_partitions(self) -> Settings:
        if self.settings_file is None:
            return self
        for provider, groups in self.lane_groups().items():
            lanes = sum(group.shards for group in groups)
            if lanes > self.partitions:
                what = f"its groups have {lanes} shards together, and may not have more than AI_PARTITIONS"
                raise SettingsFileError(
                    mistake(self.settings_file, f"{what} ({self.partitions})", f"providers.{provider}")
                )
        return self

    @model_validator(mode="after")
    def _each_shard_has_its_part(self) -> Settings:
        limits = self.quota_limits()
        for provider, groups in self.lane_groups().items():
            for group in groups:
                quota = f"{provider}:{group.name}" if group.name else provider
                if reason := limits[quota].too_small_for(group.shards):
                    raise ValueError(f"{quota}: {reason}")
        return self

    def default_budget(self) -> Budget:
        """The budget of a workspace that has none of its own."""
        return Budget(self.monthly_budget_usd, self.cost_alert_thresholds, self.budget_action, self.budget_time_zone)

    def cache_policy(self) -> CachePolicy:
        """Which answers are kept, and for how long."""
        return CachePolicy(self.enable_caching, self.cache_ttl, self.cache_max_bytes, self.cache_max_entries)

    def known_providers(self) -> tuple[str, ...]:
        """The built-in providers, then those that the settings file adds, in its order."""
        return (*PROVIDER_NAMES, *self._file.named)

    def named_providers(self) -> dict[str, NamedPart]:
        """The providers that the settings file adds."""
        return self._file.named

    def price_overrides(self) -> dict[str, AnyPrice]:
        """What the settings file states as prices, by `provider` or `provider/model`."""
        named = {name: part.price for name, part in self._file.named.items() if part.price is not None}
        return named | self._file.prices

    def provider_order(self) -> tuple[str, ...]:
        """Primary first, then the fallbacks, each once."""
        return tuple(dict.fromkeys((self.primary_provider, *self.fallback_providers)))

    def lane_groups(self) -> dict[str, tuple[LaneGroup, ...]]:
        """Each provider's groups in the order of the file; the one without a name, for all other models, is last."""
        return {name: self._file.provider(name).lane_groups(self.lane_shards) for name in self.known_providers()}

    def quota_limits(self) -> dict[str, Limits]:
        """The limits of each quota (`claude`, `claude:opus`), for all its lanes together."""
        found = {}
        for name in self.known_providers():
            part = self._file.provider(name)
            found[name] = part.limits(self._default_limits(name))
            found |= {f"{name}:{group}": own.limits(Limits()) for group, own in part.groups.items()}
        return found if self.rate_limit_enabled else dict.fromkeys(found, Limits())

    def _default_limits(self, provider: str) -> Limits:
        """Whoever sets a limit per minute has an account of another size: the shipped one per hour says nothing then,
        and would only hold it down.
        """
        limits = SHIPPED_LIMITS.get(provider, Limits())
        if self.requests_per_minute is not None:
            limits = replace(limits, rpm=self.requests_per_minute, rph=None)
        if self.tokens_per_minute is not None:
            limits = replace(limits, tpm=self.tokens_per_minute, tph=None)
        return limits

    def workspace_weights(self) -> dict[str, float]:
        """Shares of a lane, in proportion to each other; a workspace that is not here has 1."""
        return {name: workspace.weight for name, workspace in self._file.workspaces.items()}


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, or SettingsError with a line for each wrong variable or place in the file."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except SettingsFileError as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        variable = "AI_" + str(item["loc"][0]).upper() if item["loc"] else ""
        what = item["msg"].removeprefix("Value error, ")
        lines.append(f"{variable}: {what}" if variable else what)
    return "\n".join(lines)
