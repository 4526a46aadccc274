"""`.env.example` lists every setting, and tells the truth about the defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from app.devstack.settings import StackSettings
from app.settings import Settings, SettingsError, load_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SETTINGS: tuple[tuple[str, type[BaseSettings]], ...] = (("AI_STACK_", StackSettings), ("AI_", Settings))


def listed() -> dict[str, str]:
    return dict(re.findall(r"^# (AI_[A-Z_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_setting_is_listed_and_nothing_else() -> None:
    known = {prefix + name.upper() for prefix, kind in SETTINGS for name in kind.model_fields}
    assert set(listed()) == known


def test_the_listed_defaults_are_the_real_ones() -> None:
    values = {name: value for name, value in listed().items() if value}
    stack = {name.removeprefix("AI_STACK_").lower(): value for name, value in values.items() if "AI_STACK_" in name}
    rest = {name.removeprefix("AI_").lower(): value for name, value in values.items() if "AI_STACK_" not in name}
    assert load_settings(**rest).model_dump() == load_settings().model_dump()
    assert StackSettings.model_validate(stack).model_dump() == StackSettings(_env_file=None).model_dump()


def test_nothing_is_set_by_a_plain_copy() -> None:
    assert not [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]


def test_a_wrong_value_is_refused_by_the_name_of_its_variable() -> None:
    with pytest.raises(SettingsError, match="AI_PARTITIONS"):
        load_settings(partitions="many")
