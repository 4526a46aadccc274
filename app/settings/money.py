"""What may be spent, who hears of it, and what is not asked twice."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from app.settings.base import Part, is_http, split, unset_if_empty
from schemas.budget import BudgetAction, Threshold, TimeZone
from schemas.money import NANO
from streams.budgets import Budget
from streams.sharing import CachePolicy

#: US dollars; more than this the ledger could not say in an alert.
LARGEST_BUDGET = 999_999_999


class MoneySettings(Part):
    """Budgets, alerts and the cache."""

    monthly_budget_usd: Decimal = Field(default=Decimal(1000), ge=NANO, le=LARGEST_BUDGET)
    budget_action: BudgetAction = Field(default=BudgetAction.ALERT, description="at 100 %: alert or refuse")
    budget_time_zone: TimeZone = Field(default="UTC", description="whose months budgets are for")
    cost_alert_thresholds: Annotated[tuple[Threshold, ...], NoDecode] = (50, 80, 90, 100)
    budget_alerts_enabled: bool = True
    alert_webhook_url: SecretStr | None = Field(default=None, description="alerts are posted there as well")

    enable_caching: bool = True
    cache_ttl: int = Field(default=3_600, ge=1, description="seconds an answer is kept")
    cache_max_bytes: int = Field(default=256 * 1024, ge=1, description="the largest answer that is kept")
    cache_max_entries: int = Field(default=10_000, ge=1, description="answers that are kept of one workspace")

    _split_percents = field_validator("cost_alert_thresholds", mode="before")(split)
    _empty_money = field_validator("alert_webhook_url", mode="before")(unset_if_empty)

    @field_validator("alert_webhook_url")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        """What is wrong with it is said without showing it: whoever has the address may post there."""
        if value is None:
            return None
        if not is_http(value.get_secret_value()):
            raise ValueError("is no address like https://hooks.slack.com/services/…")
        return value

    def default_budget(self) -> Budget:
        """The budget of a workspace that has none of its own."""
        return Budget(self.monthly_budget_usd, self.cost_alert_thresholds, self.budget_action, self.budget_time_zone)

    def cache_policy(self) -> CachePolicy:
        """Which answers are kept, and for how long."""
        return CachePolicy(self.enable_caching, self.cache_ttl, self.cache_max_bytes, self.cache_max_entries)
