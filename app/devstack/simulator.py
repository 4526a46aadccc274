"""The provider simulator: a real HTTP server that speaks the providers' interfaces, for those without a key."""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from app.devstack.child import Child
from app.devstack.ports import HOST

#: What a simulated provider's base URL ends with.
PATHS = {"claude": "/anthropic", "openai": "/v1", "perplexity": "/perplexity/v1"}
#: Given to the SDKs, which insist on a key.
STAND_IN_KEY = "simulated"


def simulated(environment: Mapping[str, str]) -> list[str]:
    """The providers that have no key."""
    return [name for name in PATHS if not any(map(environment.get, _key_variables(name)))]


def _key_variables(provider: str) -> tuple[str, str]:
    variable = f"AI_{provider.upper()}_API_KEY"
    return variable, f"{variable}_FILE"


def variables(providers: list[str], port: int) -> dict[str, str]:
    """What a worker must be told to call the simulator in place of these providers."""
    told = {}
    for name in providers:
        told[f"AI_{name.upper()}_API_KEY"] = STAND_IN_KEY
        told[f"AI_{name.upper()}_BASE_URL"] = f"http://{HOST}:{port}{PATHS[name]}"
    if "perplexity" in providers:
        # The simulator has only the older of Perplexity's two interfaces.
        told["AI_PERPLEXITY_INTERFACE"] = "sonar"
    return told


def server(port: int, log: Path) -> Child:
    """The simulator, not started yet."""
    command = [str(Path(sys.executable).parent / "llmock"), "serve", "--host", HOST, "--port", str(port)]
    return Child(
        name="simulator",
        command=[*command, "--log-level", "warning", "--response-style", "varied"],
        log=log,
        ready=lambda: answers(port),
        # It would take a real key from the environment for its own.
        environment={name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")},
    )


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {STAND_IN_KEY}"})
        reply = connection.getresponse()
        reply.read()
        status = reply.status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status == http.client.OK
