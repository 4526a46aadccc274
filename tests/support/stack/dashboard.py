"""The page as a process, and what asks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import httpx

from app.devstack.child import Child
from app.devstack.ports import HOST
from app.devstack.stack import DevStack
from tests.support.stack.server import server


@dataclass(frozen=True)
class OpenPage:
    """A page that serves. `http` asks it as a browser without a cookie would."""

    process: Child
    http: httpx.Client

    @property
    def address(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def live(self, **headers: str) -> dict[str, str]:
        answer = self.http.get("/live", headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()
        return found

    def words(self, part: str) -> str:
        """What a part of the page says, without its elements."""
        return said(self.live()[part])

    def press(self, path: str, **form: str) -> tuple[int, str]:
        """Press a button on the page, as its own script does."""
        headers = {"origin": self.address, "accept": "application/json"}
        answer = self.http.post(path, data=form, headers=headers)
        return answer.status_code, answer.json()["message"]

    def log_in(self, token: str, *, origin: str = "") -> httpx.Response:
        """Send the form of the log-in; `http` keeps the cookie that comes with it."""
        return self.http.post("/", data={"token": token}, headers={"origin": origin or self.address})


def said(html: str) -> str:
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_data = words.append  # type: ignore[method-assign, assignment]
    parser.feed(html)
    parser.close()
    return " ".join("".join(words).split())


@contextmanager
def serving_page(stack: DevStack, **environment: Any) -> Iterator[OpenPage]:
    """`spillway web` on a free port; it must stop by itself when it is asked to."""
    process, port = server(stack, "page", "web", **environment)
    process.start()
    try:
        process.wait_ready(60)
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30) as client:
            yield OpenPage(process, client)
    finally:
        assert process.stop(), "the page did not stop by itself"
