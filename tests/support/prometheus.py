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

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules.yml"
MINUTES = re.compile(r"\b(\d+)m\b")


def is_installed() -> bool:
    return shutil.which("prometheus") is not None


class Prometheus:
    """Scrapes one worker every second."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.address = f"{HOST}:{choose(0, '')}"
        (folder / "rules.yml").write_text(MINUTES.sub(r"\1s", RULES.read_text()))
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
