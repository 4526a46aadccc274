"""Where ClickHouse is, how it lets us in, and what is kept there for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from app.security import Tls
from app.settings.base import A_YEAR, Part, is_http, named, unset_if_empty

#: Fifty years. ClickHouse counts a row's age in a DateTime, which ends in 2106 and begins again in 1970: what is to be
#: kept for longer than that would be removed at once.
LONGEST_MONTHS = 600
LONGEST_DAYS = 18_250


class ClickHouseSettings(Part):
    """The deployment's ClickHouse."""

    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_database: str = "spillway"
    clickhouse_user: str = "spillway"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_reader_user: str = "spillway_reader"
    clickhouse_reader_password: SecretStr | None = None
    clickhouse_ca_file: Path | None = Field(default=None, description="who signed the server's certificate; PEM")
    clickhouse_verify: bool = Field(default=True, description="whether the server's certificate is checked")
    clickhouse_certificate_file: Path | None = Field(default=None, description="our own certificate; PEM")
    clickhouse_key_file: Path | None = Field(default=None, description="its key; PEM, without a passphrase")
    clickhouse_flush_rows: int = Field(default=5_000, ge=1)
    clickhouse_flush_seconds: float = Field(default=1.0, gt=0, le=A_YEAR)
    ledger_retention_months: int | None = Field(
        default=None, ge=0, le=LONGEST_MONTHS, description="0: for ever; unset: as the tables are"
    )
    store_content: bool = Field(default=False, description="whether prompts and answers are kept in ClickHouse")
    content_retention_days: int | None = Field(
        default=30, ge=0, le=LONGEST_DAYS, description="0: for ever; unset: as the table is"
    )

    _empty_clickhouse = field_validator(
        "ledger_retention_months",
        "content_retention_days",
        "clickhouse_ca_file",
        "clickhouse_certificate_file",
        "clickhouse_key_file",
        mode="before",
    )(unset_if_empty)

    @field_validator("clickhouse_url")
    @classmethod
    def _holds_no_login(cls, value: str) -> str:
        """Addresses are shown in messages, logins never."""
        found = urlsplit(value)
        if not is_http(value):
            raise ValueError("is no address like https://clickhouse:8443")
        if found.username is not None or found.password is not None:
            raise ValueError("must not hold a login; use AI_CLICKHOUSE_USER and AI_CLICKHOUSE_PASSWORD")
        return value

    @model_validator(mode="after")
    def _clickhouse_files_are_there(self) -> Self:
        with named("AI_CLICKHOUSE_"):
            tls = Tls(self.clickhouse_ca_file, self.clickhouse_certificate_file, self.clickhouse_key_file)
        if self.clickhouse_url.startswith("https:"):
            return self
        for part in ("ca_file", "certificate_file"):
            if getattr(tls, part) is not None:
                raise ValueError(f"AI_CLICKHOUSE_{part.upper()}: is of no use without an AI_CLICKHOUSE_URL of https://")
        return self
