"""The AsyncAPI document is current, complete, and valid by the public validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.asyncapi import export
from app.asyncapi.document import document
from app.settings import PROVIDER_NAMES
from schemas.export import FOLDER
from streams.topology import API_KEYS, Topology
from tests.support.stack.node import installed

NODE = Path(__file__).parents[1] / "data" / "node" / "asyncapi"
#: Severities of the validator: 0 is an error, 1 a warning.
WARNING = 1
TOPICS = Topology("spillway", PROVIDER_NAMES).topics()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def validated(folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    """What the public validator says of a document with the schemas beside it."""
    shutil.copytree(FOLDER, folder / "json", dirs_exist_ok=True)
    shutil.copy(NODE / "validate.mjs", folder)
    (folder / "asyncapi.json").write_text(json.dumps(made))
    done = subprocess.run(
        ["node", "validate.mjs", "asyncapi.json"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_file_is_current() -> None:
    assert export.is_current(), "run `make schemas`"


def test_a_file_that_is_missing_or_differs_is_not_current(tmp_path: Path) -> None:
    assert not export.is_current(tmp_path / "asyncapi.json")
    (tmp_path / "asyncapi.json").write_text(export.rendered().replace("Spillway", "Floodgate"))
    assert not export.is_current(tmp_path / "asyncapi.json")


def test_every_public_topic_is_a_channel_with_its_partitions_and_retention() -> None:
    channels = {channel["address"]: channel for channel in document()["channels"].values() if channel["address"]}
    public = {spec.name: spec for spec in TOPICS if spec.audience == "public"}
    assert channels.keys() == public.keys()
    assert API_KEYS not in channels
    for name, spec in public.items():
        kafka = channels[name]["bindings"]["kafka"]
        assert kafka["partitions"] == spec.partitions
        assert kafka["topicConfiguration"].get("retention.ms") == spec.retention_ms


def test_every_exported_event_is_on_a_channel() -> None:
    found = {Path(name).stem for name in references(document()) if name.startswith("./json/")}
    assert found == {file.stem for file in FOLDER.glob("*.json")}


def test_each_channel_has_an_operation() -> None:
    made = document()
    used = {operation["channel"]["$ref"].rsplit("/", 1)[1] for operation in made["operations"].values()}
    assert made["channels"].keys() - used == {"reply"}  # Which is where the answers of `ask` come.


@pytest.mark.prove
def test_the_public_validator_has_nothing_to_complain_of(tmp_path: Path) -> None:
    folder = installed(tmp_path, NODE / "package.json")
    made = document()
    found = validated(folder, made)
    assert [item for item in found["diagnostics"] if item["severity"] <= WARNING] == []
    assert set(found["channels"]) == made["channels"].keys()
    assert "request_id" in found["required"], "the schemas beside the document were not followed"

    made["operations"]["ask"]["action"] = "shout"
    made["operations"]["receiveUsage"]["messages"][0]["$ref"] = "#/channels/usage/messages/none"
    complaints = [item["path"] for item in validated(folder, made)["diagnostics"] if item["severity"] == 0]
    assert any("ask" in path for path in complaints), complaints
    assert any("receiveUsage" in path for path in complaints), complaints
