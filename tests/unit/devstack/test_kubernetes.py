"""The manifests: valid by the API's own schemas, and as the contract says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.run import STOP_GRACE
from app.settings import Settings, load_settings

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
KUBERNETES = "1.34"
#: No objects of the API itself.
OTHERS = ("kustomization.yaml", "scaling.yaml")


def objects(*names: str) -> list[dict[str, Any]]:
    files = [FOLDER / name for name in names] or sorted(FOLDER.glob("*.yaml"))
    return [
        found for file in files if names or file.name not in OTHERS for found in yaml.safe_load_all(file.read_text())
    ]


@pytest.mark.parametrize("manifest", objects(), ids=lambda found: f"{found['kind']}/{found['metadata']['name']}")
def test_a_manifest_is_valid_and_has_no_field_that_the_api_does_not_know(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_validator_refuses_what_is_wrong() -> None:
    [_, worker, _] = objects("worker.yaml")
    worker["spec"]["replicas"] = "three"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, KUBERNETES, strict=True)


def test_the_kustomization_names_files_that_are_there_and_no_secret() -> None:
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert all((FOLDER / name).is_file() for name in named)
    assert "Secret" not in {found["kind"] for found in objects(*named)}


def worker() -> dict[str, Any]:
    [found] = [one for one in objects("worker.yaml") if one["kind"] == "StatefulSet"]
    return found


def test_the_workers_are_as_the_contract_says() -> None:
    spec = worker()["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert spec["replicas"] == 3
    assert container["resources"] == {
        "requests": {"memory": "512Mi", "cpu": "500m"},
        "limits": {"memory": "1Gi", "cpu": "1000m"},
    }
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "ops"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "ops"}


def test_an_orderly_stop_fits_into_the_grace_period() -> None:
    drain = load_settings().stop_within()
    assert worker()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain + 2 * STOP_GRACE


@pytest.mark.parametrize("name", ["configmap.yaml", "secret.example.yaml"])
def test_every_variable_is_a_setting(name: str) -> None:
    [found] = objects(name)
    variables = {**found.get("data", {}), **found.get("stringData", {})}
    assert {variable.removeprefix("AI_").lower() for variable in variables} <= set(Settings.model_fields)
    load_settings(**{variable.removeprefix("AI_").lower(): value for variable, value in variables.items()})


def test_no_more_workers_are_asked_for_than_there_are_partitions() -> None:
    scaling = yaml.safe_load((FOLDER / "scaling.yaml").read_text())["spec"]
    [settings] = objects("configmap.yaml")
    assert scaling["maxReplicaCount"] <= int(settings["data"]["AI_PARTITIONS"])
    assert scaling["scaleTargetRef"]["name"] == worker()["metadata"]["name"]
