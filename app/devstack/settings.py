"""Where the embedded stack lives and listens."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.devstack.errors import StackError


class StackSettings(BaseSettings):
    """The stack's settings. Each field's variable is `AI_STACK_` and its name in capitals; a port of 0 means any."""

    model_config = SettingsConfigDict(env_prefix="AI_STACK_", env_file=".env", extra="ignore", frozen=True)

    dir: Path = Path(".spillway")
    kafka_port: int = Field(default=9092, ge=0, le=65_535)
    kafka_controller_port: int = Field(default=9093, ge=0, le=65_535)
    clickhouse_port: int = Field(default=8123, ge=0, le=65_535)
    simulator_port: int = Field(default=9099, ge=0, le=65_535)
    ops_port: int = Field(default=9464, ge=0, le=65_504)
    workers: int = Field(default=1, ge=0, le=32)


def load_stack_settings(**overrides: object) -> StackSettings:
    """Settings from the environment; what is None is left to it. Raises StackError naming the variable."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return StackSettings(**given)  # type: ignore[arg-type]
    except UnicodeDecodeError:
        raise StackError("The file .env is not UTF-8.") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise StackError(f"AI_STACK_{str(first['loc'][0]).upper()}: {first['msg']}.") from None
