"""What listens and tells: the HTTP door, the page, and a worker's own address, traces and log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from app.settings.base import A_YEAR, Part, is_http, unset_if_empty

#: Characters of AI_WEB_TOKEN: nobody shall guess it.
SHORTEST_TOKEN = 16


class ServingSettings(Part):
    """Processes and what they show."""

    # The HTTP door
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65_535)
    http_timeout: float = Field(
        default=600.0, gt=0, le=A_YEAR, description="seconds a request through the door may take"
    )
    http_reply_topic: str = "ai.replies"

    # The page
    web_host: str = "127.0.0.1"
    web_port: int = Field(default=8081, ge=0, le=65_535)
    web_token: SecretStr | None = Field(default=None, description="who has it may see the page and use its buttons")

    # The worker
    data_dir: Path = Path(".spillway/worker")
    ops_host: str = "127.0.0.1"
    ops_port: int = Field(default=9464, ge=0, le=65_535, description="/health, /ready, /metrics; 0: any free one")
    metrics_enabled: bool = True
    metrics_workspaces: int = Field(default=50, ge=0, le=1_000, description="workspaces with figures of their own")
    trace_endpoint: str | None = Field(default=None, description="an OTLP/HTTP collector; unset: OTEL_…, or no traces")
    trace_sampling_rate: float = Field(default=0.1, ge=0, le=1, description="of requests that come without a trace")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    _empty_serving = field_validator("web_token", "trace_endpoint", mode="before")(unset_if_empty)

    @field_validator("trace_endpoint")
    @classmethod
    def _is_collector(cls, value: str | None) -> str | None:
        if value is not None and not is_http(value):
            raise ValueError("is no address like http://127.0.0.1:4318")
        return value

    @field_validator("web_token")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        """Without what stands around it: the end of a line comes with many a secret, and with no header."""
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if len(token) < SHORTEST_TOKEN:
            raise ValueError(f"must have at least {SHORTEST_TOKEN} characters")
        return SecretStr(token)
