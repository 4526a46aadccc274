"""A real Prometheus, with the project's rules in which every minute is a second."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import yaml

from app.devstack.child import Child
from app.devstack.ports import HOST, choose

RULES = Path(__file__).parents[3] / "deploy/prometheus/rules.yml"
MINUTES = re.compile(r"\b(\d+)m\b")


#: The sink tries again every 15 seconds at last, which no test hurries: what looks back at that looks back further.
LOOKS_BACK = {"AISinkFailing": 4}


def hurried_rules() -> str:
    """The project's rules, with seconds for minutes."""
    stated = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in stated["groups"] for rule in group["rules"]):
        factor = LOOKS_BACK.get(rule["alert"], 1)
        rule["expr"] = MINUTES.sub(lambda minutes: f"{int(minutes[1]) * factor}s", rule["expr"])  # noqa: B023
        if "for" in rule:
            rule["for"] = MINUTES.sub(r"\1s", rule["for"])
    return str(yaml.safe_dump(stated))


def is_installed() -> bool:
    return shutil.which("prometheus") is not None


class Prometheus:
    """Scrapes one worker every second."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.address = f"{HOST}:{choose(0, '')}"
        (folder / "rules.yml").write_text(hurried_rules())
        job = {"job_name": "spillway", "static_configs": [{"targets": [worker]}]}
        told = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({"global": told, "rule_files": ["rules.yml"], "scrape_configs": [job]}))
        self.process = Child(
            name="prometheus",
            command=[
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            log=folder / "prometheus.log",
            ready=lambda: "Server is ready" in (folder / "prometheus.log").read_text(),
        )  # fmt: skip

    async def firing(self) -> list[dict[str, str]]:
        """The labels of all alerts that fire."""
        alerts = (await self._ask("alerts"))["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    async def fires(self, name: str, **labels: str) -> bool:
        wanted = {"alertname": name, **labels}
        return any(wanted.items() <= alert.items() for alert in await self.firing())

    async def query(self, expression: str) -> list[Any]:
        return list((await self._ask(f"query?query={quote(expression)}"))["result"])

    async def _ask(self, what: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.address}/api/v1/{what}") as reply:
            body = await reply.json()
        assert body["status"] == "success", body
        return body["data"]
