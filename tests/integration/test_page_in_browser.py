"""The page in a real browser: its script runs, its policy holds, and it can be used on a desk and on a phone."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.cli.wire import producing
from app.devstack.stack import DevStack
from app.kafka import cluster_of
from app.settings import Settings
from schemas.dead_letter import DeadLetter, Origin
from streams.topology import CONTROL, DEAD_LETTERS, REQUESTS
from tests.support.reader.topics import publish
from tests.support.stack.browser import CHROMIUM, Tab, browsing
from tests.support.stack.dashboard import OpenPage, serving_page

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here"),
]

#: Would rename the document, if it ever ran; and as wide as one word can be.
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>" + "w" * 200
TOKEN = "a-token-that-nobody-knows"  # noqa: S105 - of this test

LIVE = "document.body.className === 'live'"


@pytest.fixture(scope="module")
def page(stack: DevStack) -> Iterator[OpenPage]:
    with serving_page(stack) as running:
        yield running


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browsing(tmp_path) as found:
        yield found
        assert found.problems == []


async def bury(settings: Settings, message: str) -> None:
    letter = DeadLetter(Origin(REQUESTS, 0, 1, 0), "not_json", message, None, b"x")
    async with producing(cluster_of(settings)) as producer:
        await producer.send_and_wait(DEAD_LETTERS, letter.value, headers=list(letter.to_headers()))


async def test_nothing_hostile_runs(page: OpenPage, settings: Settings, tab: Tab) -> None:
    await bury(settings, HOSTILE)
    await tab.open(page.address)
    await tab.until(f"{LIVE} && document.body.textContent.includes('onerror=')", "the letter is shown")
    assert await tab.run("document.title") == "Spillway"
    assert await tab.run("document.querySelectorAll('main img, main script').length") == 0


async def test_a_button_is_pressed_with_the_keyboard_and_keeps_the_focus(
    page: OpenPage, settings: Settings, tab: Tab
) -> None:
    try:
        await tab.open(page.address)
        await tab.until(f"{LIVE} && !!document.getElementById('mode-openai')", "the button is there")
        await tab.run("document.getElementById('mode-openai').focus()")
        for kind in ("rawKeyDown", "char", "keyUp"):
            await tab.call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")
        told = await tab.until("document.getElementById('said').textContent", "what was done is said")
        assert told.startswith("openai is paused")
        await tab.until(
            "document.activeElement.textContent === 'Resume openai'", "the button is its opposite, in focus"
        )
    finally:
        await publish(settings.kafka_bootstrap_servers, CONTROL, [(b"mode/openai", None)])


async def test_what_is_open_stays_open_while_all_around_it_changes(page: OpenPage, tab: Tab) -> None:
    await tab.open(page.address)
    await tab.until(LIVE, "the page is live")
    # As the page's own script puts it in place, with something that can be opened.
    one, two = (f"'<details data-key=\"a&quot;b\"><summary>s</summary>{each}</details>'" for each in "12")
    await tab.run(f"put('said', {one}); document.querySelector('#said summary').focus()")
    await tab.run(f"document.querySelector('#said details').open = true; put('said', {two})")
    assert await tab.run("document.querySelector('#said').textContent") == "s2"
    assert await tab.run("document.querySelector('#said details').open") is True
    assert await tab.run("document.activeElement.tagName") == "SUMMARY"


async def test_a_page_whose_server_is_gone_says_so(stack: DevStack, tmp_path: Path) -> None:
    async with browsing(tmp_path) as tab:
        with serving_page(stack) as page:
            await tab.open(page.address)
            await tab.until(LIVE, "the page is live")
        told = await tab.until("document.querySelector('.lost #notices')?.textContent", "it says that it is not live")
    assert "no longer live" in told


async def test_a_browser_logs_in(stack: DevStack, tab: Tab) -> None:
    with serving_page(stack, AI_WEB_TOKEN=TOKEN) as page:
        await tab.open(page.address)
        await tab.until("!!document.getElementById('token')", "it is asked for the token")
        tab.problems.clear()  # The status 401 is told as one.
        await tab.run(f"document.getElementById('token').value = '{TOKEN}'")
        await tab.run("document.querySelector('button').click()")
        await tab.until(f"{LIVE} && !!document.querySelector('[action=logout]')", "the page is there")
        assert await tab.run("document.cookie") == ""
        await tab.run("document.querySelector('[action=logout] button').click()")
        await tab.until("!!document.getElementById('token')", "it is asked again")
        tab.problems.clear()


@pytest.mark.parametrize(("width", "height"), [(1280, 1600), (390, 844)], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_and_can_be_looked_at(
    page: OpenPage, settings: Settings, tab: Tab, tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    await bury(settings, HOSTILE)
    await tab.look(width, height, scheme)
    await tab.open(page.address)
    await tab.until(f"{LIVE} && document.body.textContent.includes('www')", "the letter is shown")
    assert await tab.run("document.documentElement.scrollWidth") == width
    small = "[...document.querySelectorAll('main button')].filter(b => b.getBoundingClientRect().height < 36).length"
    assert await tab.run(small) == 0
    picture = await tab.picture()
    (tmp_path / f"page-{scheme}-{width}.png").write_bytes(picture)
    assert struct.unpack(">II", picture[16:24]) == (width, height)
    light = "getComputedStyle(document.body).backgroundColor"
    assert await tab.run(light) == ("rgb(246, 247, 248)" if scheme == "light" else "rgb(18, 22, 26)")
