"""How requests flow: partitions, lanes, deadlines."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from app.settings.base import A_YEAR, Part, unset_if_empty


class FlowSettings(Part):
    """What a request meets on its way."""

    partitions: int = Field(default=6, ge=1, le=1024)
    replication_factor: int = Field(default=1, ge=1, le=32_767)
    lane_shards: int = Field(default=1, ge=1, description="lanes of one provider; at most partitions")
    max_in_flight: int = Field(default=64, ge=1, description="calls at once in one lane")
    look_ahead: int = Field(default=20_000, ge=1, description="requests that wait in one lane's memory")
    look_ahead_bytes: int = Field(default=64 * 1024 * 1024, ge=1_000_000, description="bytes of these together")
    max_request_bytes: int = Field(default=900_000, ge=1_000, le=1_000_000)
    default_deadline: float = Field(default=600.0, gt=0, le=A_YEAR, description="seconds a request may take")
    in_doubt_policy: Literal["retry", "fail"] = "retry"
    reply_topics: str = Field(default=".*", description="a pattern that a reply topic must match")
    drain_timeout: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="seconds an orderly stop waits for its calls; unset: the longest time-out of a provider, and 5",
    )
    faults_before_pause: int = Field(
        default=10, ge=1, description="unknown faults in a row that a stage buries before it pauses"
    )
    pause_seconds: float = Field(default=30.0, gt=0, le=86_400, description="seconds until a paused stage tries again")
    standstill_timeout: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="seconds without progress after which a worker ends itself; 0: never",
    )
    clock_tolerance: float = Field(
        default=5.0,
        gt=0,
        le=86_400,
        description="seconds that a worker's clock may be apart from the broker's before it is not ready",
    )
    minute_seconds: float = Field(
        default=60.0, ge=1, le=60, description="for tests: the minute of limits and circuits; an hour is 60 of them"
    )
    dedup_window: float = Field(default=86_400.0, gt=0, description="seconds a request id is known")

    _empty_flow = field_validator("drain_timeout", mode="before")(unset_if_empty)

    @field_validator("reply_topics")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return value
