"""A headless Chromium, steered over its own protocol (DevTools), so that no driver is needed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.clock.waiting import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
)


class BrowserError(Exception):
    """The browser cannot do what it was asked: for example, because the page that was asked is gone."""


class Tab:
    """One page of the browser. `problems` is what it has complained of: errors of scripts, and of the page's policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=30)
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(message["error"]["message"])
                found: dict[str, Any] = message["result"]
                return found
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        if message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])
        if message["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))

    async def open(self, address: str) -> None:
        for domain in ("Page", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=address)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited where it is a promise."""
        told = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str, what: str) -> Any:
        """The first true value of an expression, in whatever page is there by then."""

        async def value() -> Any:
            try:
                return await self.run(f"document.readyState === 'complete' && ({script})")
            except BrowserError:
                return None

        return await eventually(value, within=60, what=what)

    async def look(self, width: int, height: int, scheme: str) -> None:
        """Be a screen of this size, on which somebody has chosen light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self) -> bytes:
        """The screen as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


def _first_line(file: Path) -> str | None:
    """None where it is not there, or only half of it."""
    line, end, _ = (file.read_text() if file.exists() else "").partition("\n")
    return line if end else None


async def _tab(session: aiohttp.ClientSession, port: str) -> dict[str, Any] | None:
    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
        return next((each for each in await answer.json(content_type=None) if each["type"] == "page"), None)


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """A tab of a browser with a profile of its own, which is gone when the block ends."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    told = folder / "profile" / "DevToolsActivePort"
    try:
        port = await eventually(lambda: _first_line(told), within=60, what="Chromium has told its port")
        async with aiohttp.ClientSession() as session:
            tab = await eventually(lambda: _tab(session, port), within=60, what="Chromium has a tab")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        await process.wait()
