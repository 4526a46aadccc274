"""What a deployment sets, read from the environment and `.env`; a wrong value is refused by its variable's name.

Names are part of the contract (`.env.example` lists all of them). Each part has a module, whose validators need names
of their own; what is nested is in the deployment's settings file (file.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from app.settings.base import unset_if_empty
from app.settings.clickhouse import ClickHouseSettings
from app.settings.file import AnyPrice, NamedPart, SettingsFile, SettingsFileError, mistake, read_settings_file
from app.settings.flow import FlowSettings
from app.settings.kafka import KafkaSettings
from app.settings.money import MoneySettings
from app.settings.providers import ProviderSettings
from app.settings.serving import ServingSettings
from streams.dispatch.quota import Limits
from streams.topology import LaneGroup

#: The built-in providers. A deployment may add others by name: `Settings.known_providers` has them all.
PROVIDER_NAMES = ("claude", "openai", "perplexity")

#: What each provider is asked at most, unless the deployment knows its account better.
SHIPPED_LIMITS: Mapping[str, Limits] = {
    "claude": Limits(rpm=50, rph=1_000, tpm=100_000, tph=2_000_000),
    "openai": Limits(rpm=500, rph=10_000, tpm=150_000, tph=3_000_000),
    "perplexity": Limits(rpm=20, rph=300),
}

#: Seconds for which the report of a call may be on its way when the call has ended.
REPORT_MARGIN = 5.0


class SettingsError(Exception):
    """A setting is wrong. The message names the variable and says what to do; it never shows a secret."""


class Settings(ProviderSettings, MoneySettings, FlowSettings, KafkaSettings, ClickHouseSettings, ServingSettings):
    """All of Spillway's settings, with the limits, which belong to several parts."""

    rate_limit_enabled: bool = True
    requests_per_minute: int | None = Field(default=None, ge=1, description="of every provider, for its own default")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="of every provider, for its own default")
    settings_file: Path | None = Field(default=None, description="TOML: limits, lanes, groups, providers, weights")

    #: What AI_SETTINGS_FILE says, read once.
    _file: SettingsFile = PrivateAttr(default_factory=SettingsFile)

    _empty_limits = field_validator("requests_per_minute", "tokens_per_minute", "settings_file", mode="before")(
        unset_if_empty
    )

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

    def known_providers(self) -> tuple[str, ...]:
        """The built-in providers, then those that the settings file adds, in its order."""
        return (*PROVIDER_NAMES, *self._file.named)

    def named_providers(self) -> dict[str, NamedPart]:
        """The providers that the settings file adds."""
        return self._file.named

    def stop_within(self) -> float:
        """Seconds that an orderly stop waits for the calls on the wire, which go on and are reported."""
        if self.drain_timeout is not None:
            return self.drain_timeout
        built_in: list[float] = [
            getattr(self, f"{name}_timeout") for name in self.provider_order() if name in PROVIDER_NAMES
        ]
        return max([*built_in, *(part.timeout for part in self._file.named.values())]) + REPORT_MARGIN

    def price_overrides(self) -> dict[str, AnyPrice]:
        """What the settings file states as prices, by `provider` or `provider/model`."""
        named = {name: part.price for name, part in self._file.named.items() if part.price is not None}
        return named | self._file.prices

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


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, or SettingsError with a line for each wrong variable or place in the file."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except SettingsFileError as error:
        raise SettingsError(str(error)) from None
    except UnicodeDecodeError:
        raise SettingsError("The file .env is not UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"The file .env cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        variable = "AI_" + str(item["loc"][0]).upper() if item["loc"] else ""
        what = item["msg"].removeprefix("Value error, ")
        lines.append(f"{variable}: {what}" if variable else what)
    return "\n".join(lines)
