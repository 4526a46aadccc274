"""What all parts of the settings share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlsplit

from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.security import SecurityError

#: Seconds that no duration of ours needs to be longer than; infinity and what no calendar holds are slips.
A_YEAR = 366 * 86_400

CommaList = Annotated[tuple[str, ...], NoDecode]


class Part(BaseSettings):
    """Some of the settings. Each field's variable is `AI_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="AI_", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )


def unset_if_empty(value: object) -> object:
    """A variable without a value is one that is not there."""
    return None if value == "" else value


def split(value: object) -> object:
    """`a, b` as its parts."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def is_http(address: str) -> bool:
    """Whether it is an address of http or https."""
    try:
        found = urlsplit(address)
        return found.scheme in ("http", "https") and bool(found.hostname) and (found.port or 1) > 0
    except ValueError:
        return False


@contextmanager
def named(prefix: str) -> Iterator[None]:
    """What is wrong with a part is told by the name of its variable."""
    try:
        yield
    except SecurityError as error:
        raise ValueError(f"{prefix}{error.part.upper()}: {error.what}") from None
