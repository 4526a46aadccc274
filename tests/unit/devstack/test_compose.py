"""docker-compose.yml cannot be run without an engine, so what can be checked of it is checked here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from app.devstack.clickhouse import ENGINE_VERSION, READER
from app.devstack.kafka import VERSION
from app.run import STOP_GRACE
from app.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_the_images_are_the_versions_that_the_embedded_stack_runs(compose: dict[str, Any]) -> None:
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{VERSION}"
    assert compose["services"]["clickhouse"]["image"] == f"clickhouse/clickhouse-server:{ENGINE_VERSION}"
    assert f"<version>{VERSION}</version>" in (ROOT / "app/devstack/pom.xml").read_text()


def test_every_variable_that_a_worker_is_given_is_a_setting(compose: dict[str, Any]) -> None:
    known = {f"AI_{name.upper()}" for name in Settings.model_fields}
    assert set(compose["services"]["worker"]["environment"]) <= known


def test_a_service_depends_only_on_services_that_exist_and_mounts_only_volumes_that_exist(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), volume


def test_several_workers_share_no_folder_and_have_the_time_to_stop_in_order(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert "volumes" not in worker, "the tables of one worker are locked, and are not another's"
    assert "VOLUME /var/lib/spillway" in (ROOT / "deploy/Dockerfile").read_text()
    drain = load_settings().stop_within()
    assert int(worker["stop_grace_period"].removesuffix("s")) > drain + 2 * STOP_GRACE


def test_prometheus_scrapes_the_port_on_which_a_worker_of_the_image_listens(compose: dict[str, Any]) -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    [job] = scrape["scrape_configs"]
    [workers] = job["dns_sd_configs"]
    port = Settings.model_fields["ops_port"].default
    assert (job["job_name"], workers["names"], workers["port"]) == ("spillway", ["worker"], port)
    image = (ROOT / "deploy/Dockerfile").read_text()
    assert f"EXPOSE {port}" in image
    assert "AI_OPS_HOST=0.0.0.0" in image
    assert f":{port}/ready" in str(compose["services"]["worker"]["healthcheck"])


def test_the_dashboard_asks_the_prometheus_of_the_same_file(compose: dict[str, Any]) -> None:
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    [prometheus] = source["datasources"]
    assert prometheus["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
    board = json.loads((ROOT / "deploy/grafana/dashboards/spillway.json").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {prometheus["uid"]}
    folder = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/spillway.yml").read_text())
    mounted = compose["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{folder['providers'][0]['options']['path']}:ro" in mounted


def test_topics_and_tables_are_there_before_a_worker_starts(compose: dict[str, Any]) -> None:
    needed = compose["services"]["worker"]["depends_on"]
    assert {name: wait["condition"] for name, wait in needed.items()} == {
        "topics": "service_completed_successfully",
        "migrations": "service_completed_successfully",
    }


def test_the_reader_of_the_real_server_may_only_read_as_the_embedded_one() -> None:
    root = ET.parse(ROOT / "deploy/clickhouse/users.xml").getroot()  # noqa: S314 - our own file
    reader = root.find(f"users/{READER}")
    assert reader is not None
    assert reader.findtext("profile") == "reader"
    assert [grant.text for grant in reader.iter("query")] == [
        "GRANT SELECT ON spillway.*",
        "REVOKE SELECT ON spillway.contents",
    ]
    assert root.findtext("profiles/reader/readonly") == "1"
