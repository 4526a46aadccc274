"""What every report counts of attempts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, computed_field

from schemas.money import ZERO, Usd


class AttemptFigures(BaseModel):
    """Attempts, their tokens and what they cost, in US dollars."""

    model_config = ConfigDict(frozen=True)

    attempts: int = 0
    failed_attempts: int = 0
    in_doubt_attempts: int = 0
    unpriced_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost: Usd = ZERO
    #: The part of `cost` that nobody has confirmed.
    estimated_cost: Usd = ZERO

    @computed_field  # type: ignore[prop-decorator] # mypy knows no decorated properties
    @property
    def error_rate(self) -> float:
        """The share of attempts that failed, 0 to 1. One in doubt is not counted as failed."""
        return self.failed_attempts / self.attempts if self.attempts else 0.0
