"""The example requests of the docs: valid, and together they show every field that a request has."""

from __future__ import annotations

import json
from pathlib import Path

from schemas.request import KINDS

LINES = (Path(__file__).parents[2] / "docs" / "examples" / "requests.jsonl").read_text().splitlines()
#: What whoever publishes them need not say: the first is made for them, the other has one value.
UNSAID = {"request_id", "schema_version"}


def test_each_is_a_request_and_every_field_of_every_kind_is_in_one_of_them() -> None:
    shown: dict[str, set[str]] = {kind: set() for kind in KINDS}
    common = set.intersection(*(set(model.model_fields) for model in KINDS.values()))
    for line in LINES:
        body = json.loads(line)
        kind = body.get("kind", "completion")
        request = KINDS[kind].model_validate_json(line)
        assert not body.keys() - type(request).model_fields.keys(), "a field that is ignored would teach nothing"
        shown[kind] |= body.keys()
    for kind, model in KINDS.items():
        assert set(model.model_fields) - common <= shown[kind]
    assert common - UNSAID <= set.union(*shown.values())
