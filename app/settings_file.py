"""The settings that are nested: limits and lanes of providers and of their models' groups, weights of workspaces.

They are in a TOML file, AI_SETTINGS_FILE. Limits are requests and tokens per minute and hour (rpm, rph, tpm, tph).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from schemas.base import WorkspaceId
from streams.dispatch.quota import Limits
from streams.topology import LaneGroup

LimitName = Literal["rpm", "rph", "tpm", "tph"]
# Strict: what is no whole number in the file (true, "50") is a slip, not a limit.
Count = Annotated[int, Field(ge=1, strict=True)]
GroupName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


def _is_known(name: str, info: ValidationInfo) -> str:
    known = (info.context or {}).get("providers", ())
    if name not in known:
        raise ValueError(f"there is no such provider; known are {', '.join(known)}")
    return name


ProviderName = Annotated[str, AfterValidator(_is_known)]

#: What pydantic says in terms of Python, said in those of TOML.
_IN_TOML = {
    "extra_forbidden": "there is no such setting",
    "missing": "is missing",
    "tuple_type": "must be an array",
    "too_short": "must not be empty",
    "model_type": "must be a table",
    "dict_type": "must be a table",
}


class SettingsFileError(Exception):
    """The file cannot be used. The message has a line for each mistake, with its path inside the file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Limited(_Part):
    rpm: Count | None = None
    rph: Count | None = None
    tpm: Count | None = None
    tph: Count | None = None

    def limits(self, default: Limits) -> Limits:
        """The default, with what is given here in its place."""
        given = {"rpm": self.rpm, "rph": self.rph, "tpm": self.tpm, "tph": self.tph}
        return replace(default, **{name: limit for name, limit in given.items() if limit is not None})


class GroupPart(_Limited):
    """Models that share a quota of their own; without a limit in the file, they have none."""

    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    shards: Count = 1


class ProviderPart(_Limited):
    """A provider. `unlimited` lifts limits that it would have by default; without `shards`, AI_LANE_SHARDS counts."""

    unlimited: tuple[LimitName, ...] = ()
    shards: Count | None = None
    groups: dict[GroupName, GroupPart] = {}

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> ProviderPart:
        for name in self.unlimited:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has a limit and is in `unlimited`; it can be only one of the two")
        return self

    def limits(self, default: Limits) -> Limits:
        return super().limits(replace(default, **dict.fromkeys(self.unlimited)))

    def lane_groups(self, shards: int) -> tuple[LaneGroup, ...]:
        """The named groups, then all other models, which have `shards` lanes unless the file says otherwise."""
        named = (LaneGroup(name, group.models, group.shards) for name, group in self.groups.items())
        return (*named, LaneGroup(shards=self.shards or shards))


class WorkspacePart(_Part):
    """A workspace. `weight` is its share of a lane, in proportion to the others'."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] = 1.0


class SettingsFile(_Part):
    """The whole file. What is not in it has its default."""

    providers: dict[ProviderName, ProviderPart] = {}
    workspaces: dict[WorkspaceId, WorkspacePart] = {}

    def provider(self, name: str) -> ProviderPart:
        return self.providers.get(name) or ProviderPart()


def read_settings_file(path: Path, providers: Sequence[str]) -> SettingsFile:
    """The file, in which only these providers may occur. Raises SettingsFileError."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return SettingsFile.model_validate(found, context={"providers": providers})
    except OSError as error:
        raise SettingsFileError(mistake(path, f"cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise SettingsFileError(mistake(path, "is not UTF-8")) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(mistake(path, f"is not TOML: {error}")) from None
    except ValidationError as error:
        items = error.errors(include_input=False, include_url=False)
        raise SettingsFileError("\n".join(mistake(path, _said(item), _place(item["loc"])) for item in items)) from None


def mistake(path: Path, what: str, place: str = "") -> str:
    """One line about the file; `place` is the path inside it, such as `providers.claude.rpm`."""
    return f"AI_SETTINGS_FILE: {path}: {f'{place}: ' if place else ''}{what}"


def _place(steps: Sequence[int | str]) -> str:
    # A mistake in a key has the key itself and then this step.
    return ".".join(str(step) for step in steps if step != "[key]")


def _said(item: Mapping[str, object]) -> str:
    return _IN_TOML.get(str(item["type"])) or str(item["msg"]).removeprefix("Value error, ")
