"""A key to the HTTP door, as `ai.api-keys` keeps it. The secret itself is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment, WorkspaceId

#: Stands for every workspace.
EVERY = "*"


class ApiKey(Event):
    """Who may ask for whom. Key of the record: `key_id`; a record without a value revokes it.

    `sha256` is the digest of the secret in hexadecimal. The secret is 256 random bits, which nobody can guess from a
    fast digest: the slow ones are for passwords that people make up. The first workspace pays where a request names
    none.
    """

    ce_type: ClassVar[str] = "ai.api-key"

    schema_version: Literal[1] = 1
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    workspaces: tuple[WorkspaceId | Literal["*"], ...] = Field(min_length=1, max_length=1_000)
    name: str = Field(default="", max_length=200)
    created_at: Moment
