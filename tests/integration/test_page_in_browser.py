"""The page in a real browser: its script runs, its policy holds, and it can be looked at on a desk and on a phone."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.wire import producing
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.dead_letter import DeadLetter, Origin
from streams.topology import DEAD_LETTERS, REQUESTS
from tests.support.page import OpenPage, serving_page
from tests.support.waiting import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here"),
]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
#: Would rename the document, if it ever ran.
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def page(stack: DevStack) -> Iterator[OpenPage]:
    with serving_page(stack) as running:
        yield running


def chromium(address: str, folder: Path, *options: str) -> str:
    """What Chromium prints, after three seconds of the page's own time."""
    profile = folder / "profile"
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=3000", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    shutil.rmtree(profile, ignore_errors=True)
    return done.stdout


async def test_its_script_keeps_it_live_and_nothing_hostile_runs(
    page: OpenPage, settings: Settings, tmp_path: Path
) -> None:
    letter = DeadLetter(Origin(REQUESTS, 0, 1, 0), "not_json", HOSTILE, None, b"x")
    async with producing(settings.kafka_bootstrap_servers) as producer:
        await producer.send_and_wait(DEAD_LETTERS, letter.value, headers=list(letter.to_headers()))
    await eventually(lambda: "onerror" in page.words("live-letters"), what="the letter is shown")
    document = chromium(page.address, tmp_path, "--dump-dom")
    # The script has put in place what it was sent.
    assert '<body class="live">' in document
    assert "<title>Spillway</title>" in document
    assert "&lt;img src=x onerror=" in document


@pytest.mark.parametrize(("width", "height"), [(1280, 1600), (390, 844)], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_looked_at(page: OpenPage, tmp_path: Path, width: int, height: int, scheme: str) -> None:
    picture = tmp_path / f"page-{scheme}-{width}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    chromium(page.address, tmp_path, f"--screenshot={picture}", f"--window-size={width},{height}", *dark)
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (width, height)
    # A blank picture of this size is a few kilobytes.
    assert len(content) > 20_000
