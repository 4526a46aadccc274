"""The settings that are nested: limits and lanes of providers and of their models' groups, providers that the
deployment adds by a name of its own, weights of workspaces.

They are in a TOML file, AI_SETTINGS_FILE. Limits are requests and tokens per minute and hour (rpm, rph, tpm, tph).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from app.settings.base import A_YEAR
from schemas.base import WorkspaceId
from streams.dispatch.quota import Limits
from streams.topology import LaneGroup

LimitName = Literal["rpm", "rph", "tpm", "tph"]
Kind = Literal["openai_compatible"]
# Strict: what is no whole number in the file (true, "50") is a slip, not a limit.
Count = Annotated[int, Field(ge=1, strict=True)]
GroupName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


Text = Annotated[str, Field(min_length=1)]

#: The names that a provider may have (schemas/request.py), as they are part of topics.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

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

    models: tuple[Text, ...] = Field(min_length=1)
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


def _is_exact(value: object) -> object:
    """A fraction of TOML is a float, and money must be exact."""
    if isinstance(value, (str, int, Decimal)) and not isinstance(value, bool):
        return value
    raise ValueError('write it as text, such as "0.10"')


#: More than this for a million tokens, or for one call, is a slip, with which no cost could be counted.
Dollars = Annotated[Decimal, BeforeValidator(_is_exact), Field(ge=0, le=1_000_000, allow_inf_nan=False)]


def _is_day(value: object) -> object:
    """A date alone: prices change at midnight UTC. TOML's moments are dates to Python as well."""
    if value is None or type(value) is date:
        return value
    raise ValueError("write it as a date without quotes, such as 2026-11-01")


Day = Annotated[date, BeforeValidator(_is_day)]


class PricePart(_Part):
    """What a provider charges, in US dollars: per million tokens (of sound at rates of its own), per request, and per
    web search.

    `since` (in the file: `from`) is the first day, in UTC, on which it counts; None: it always did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    since: Day | None = Field(default=None, alias="from")
    input_mtok: Dollars
    output_mtok: Dollars
    cache_read_mtok: Dollars | None = None
    cache_write_mtok: Dollars | None = None
    input_audio_mtok: Dollars | None = None
    output_audio_mtok: Dollars | None = None
    request: Dollars | None = None
    search: Dollars | None = None


def _begin_on_days_of_their_own(parts: tuple[PricePart, ...]) -> tuple[PricePart, ...]:
    """Each counts until the next one begins, so two that begin together would overlap."""
    if not parts:
        raise ValueError("must not be empty")
    first: dict[date | None, int] = {}
    for number, part in enumerate(parts):
        if part.since in first:
            begins = f"from {part.since}" if part.since else "without a `from`"
            raise ValueError(f"entries {first[part.since]} and {number} are both {begins}; keep one of them")
        first[part.since] = number
    return parts


#: Prices one after the other, in any order; before the first one counts what would count without them.
DatedPrices = Annotated[tuple[PricePart, ...], AfterValidator(_begin_on_days_of_their_own)]


def _price_form(part: object) -> str:
    return "dated" if isinstance(part, list | tuple) else "one_price"


#: One price, or several with the days from which they count.
AnyPrice = Annotated[
    Annotated[PricePart, Tag("one_price")] | Annotated[DatedPrices, Tag("dated")], Discriminator(_price_form)
]


def address_mistake(url: str) -> str | None:
    """What is wrong with a provider's base URL; None: nothing. The URL itself is not shown, it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is no address; write it as http://host:port/v1"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or set(url) & set(" \t\r\n"):
        return "is no address; write it as http://host:port/v1"
    if parts.username or parts.password:
        return "holds a user or a password; keys belong into a variable or a file of their own"
    return "may not have a query or a fragment" if parts.query or parts.fragment else None


def _is_address(url: str) -> str:
    if reason := address_mistake(url):
        raise ValueError(reason)
    return url


class NamedPart(ProviderPart):
    """A provider that the deployment adds: any server that speaks OpenAI's chat completions at `base_url`.

    `api_key_env` is the name of the variable with its key or keys, `api_key_file` a file with them; a server that needs
    none has neither. `models` are the patterns of the models that it claims, `timeout` is in seconds for one call.
    """

    kind: Kind
    base_url: Annotated[str, AfterValidator(_is_address)]
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    api_key_file: Path | None = None
    models: tuple[Text, ...] = ()
    default_model: Text | None = None
    embedding_model: Text | None = None
    timeout: Annotated[float, Field(gt=0, le=A_YEAR)] = 60.0
    price: AnyPrice | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> NamedPart:
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file are both set; keep one of them")
        if not self.chat_model:
            raise ValueError("default_model is missing: the model for requests that name none")
        return self

    @property
    def chat_model(self) -> str:
        """The model for requests that name none: the stated one, or the first that `models` has by its full name."""
        whole = (name for name in self.models if not set(name) & set("*?["))
        return self.default_model or next(whole, "")

    @property
    def claims(self) -> tuple[str, ...]:
        """The patterns of all models that are its own."""
        own = (self.default_model, self.embedding_model)
        return tuple(dict.fromkeys((*self.models, *(_literal(name) for name in own if name))))


def _literal(name: str) -> str:
    """A pattern that matches this name only."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


class WorkspacePart(_Part):
    """A workspace. `weight` is its share of a lane, in proportion to the others'."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] = 1.0


_SORTS = ("named", "built_in")
_FORMS = ("one_price", "dated")
#: Where the sort stands in the path of a mistake: `providers`, the name, the sort.
_SORT_PLACE = 2


def _sort_of(part: object) -> str:
    """Which of the two tables of a provider is meant: only one that is added says its kind."""
    return "named" if isinstance(part, dict) and "kind" in part else "built_in"


AnyProvider = Annotated[
    Annotated[NamedPart, Tag("named")] | Annotated[ProviderPart, Tag("built_in")], Discriminator(_sort_of)
]


class SettingsFile(_Part):
    """The whole file. What is not in it has its default."""

    providers: dict[str, AnyProvider] = {}
    #: By `provider` or `provider/model`.
    prices: dict[str, AnyPrice] = {}
    workspaces: dict[WorkspaceId, WorkspacePart] = {}

    def provider(self, name: str) -> ProviderPart:
        return self.providers.get(name) or ProviderPart()

    @property
    def named(self) -> dict[str, NamedPart]:
        """The providers that the deployment adds, in the order of the file."""
        return {name: part for name, part in self.providers.items() if isinstance(part, NamedPart)}


def read_settings_file(path: Path, providers: Sequence[str]) -> SettingsFile:
    """The file, in which these providers are built in. Raises SettingsFileError."""
    found = _read(path)
    wrong = _wrong_names(found, providers)
    lines = [mistake(path, what, f"providers.{name}") for name, what in wrong.items()]
    if wrong:
        found["providers"] = {name: part for name, part in found["providers"].items() if name not in wrong}
    try:
        read = SettingsFile.model_validate(found)
    except ValidationError as error:
        items = error.errors(include_input=False, include_url=False)
        lines += [mistake(path, _said(item), _place(item["loc"])) for item in items]
    if lines:
        raise SettingsFileError("\n".join(lines))
    return read


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsFileError(mistake(path, f"cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise SettingsFileError(mistake(path, "is not UTF-8")) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(mistake(path, f"is not TOML: {error}")) from None


def _wrong_names(found: Mapping[str, Any], built_in: Sequence[str]) -> dict[str, str]:
    """The providers that cannot be called so, each with the reason."""
    parts = found.get("providers")
    if not isinstance(parts, dict):
        return {}
    reasons = {name: _wrong_name(name, part, built_in) for name, part in parts.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _wrong_name(name: str, part: object, built_in: Sequence[str]) -> str | None:
    if name in built_in:
        return f"{name} is built in and has no kind; call yours something else" if _sort_of(part) == "named" else None
    if _sort_of(part) != "named":
        known = ", ".join(built_in)
        return f'there is no such provider; known are {known}, and one of your own needs kind = "openai_compatible"'
    return None if _NAME.fullmatch(name) else "is no name; use lower-case letters, digits, _ and -, with a letter first"


def mistake(path: Path, what: str, place: str = "") -> str:
    """One line about the file; `place` is the path inside it, such as `providers.claude.rpm`."""
    return f"AI_SETTINGS_FILE: {path}: {f'{place}: ' if place else ''}{what}"


def _place(steps: Sequence[int | str]) -> str:
    # A mistake in a key has the key itself and then this step; one in a provider has the sort of its table after it,
    # and one in a price its form.
    told = [
        step
        for place, step in enumerate(steps)
        if step != "[key]"
        and not (place == _SORT_PLACE and step in _SORTS)
        and not (place >= _SORT_PLACE and step in _FORMS)
    ]
    return ".".join(map(str, told))


def _said(item: Mapping[str, object]) -> str:
    return _IN_TOML.get(str(item["type"])) or str(item["msg"]).removeprefix("Value error, ")
