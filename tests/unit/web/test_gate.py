"""Who may see the page, and whose button it was."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

from app.settings import SettingsError, load_settings
from app.web.gate import Gate
from app.web.serve import serve

TOKEN = "a-token-that-nobody-knows"  # noqa: S105 - of this test
HERE = {"host": "page.example:8081", "origin": "http://page.example:8081"}


def cookie_of(gate: Gate) -> str:
    return gate.cookie(secure=False).partition(";")[0]


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "localhost:8081", "LOCALHOST", "[::1]:8081", "127.0.0.2"])
def test_without_a_token_loopback_comes_in_by_its_own_names(host: str) -> None:
    assert Gate(None).lets_in({"host": host})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_a_foreign_name_for_loopback_is_refused(host: str) -> None:
    assert not Gate(None).lets_in({"host": host, "authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer t\u00f6ken"},
        {"cookie": "spillway_page="},
        {"cookie": f"spillway_page={TOKEN}"},
        {"cookie": "spillway_page=\udcff; ="},
    ],
)
def test_with_a_token_nobody_else_comes_in(headers: dict[str, str]) -> None:
    assert not Gate(TOKEN).lets_in(headers)


def test_the_token_or_the_cookie_opens() -> None:
    gate = Gate(TOKEN)
    assert gate.lets_in({"authorization": f"Bearer {TOKEN}"})
    assert gate.lets_in({"cookie": f"other=1; {cookie_of(gate)}"})
    assert not Gate("another-token-altogether").lets_in({"cookie": cookie_of(gate)})


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_does_not_show_the_token() -> None:
    set_cookie = Gate(TOKEN).cookie(secure=True)
    [morsel] = SimpleCookie(set_cookie).values()
    assert (morsel["httponly"], morsel["secure"], morsel["samesite"]) == (True, True, "Strict")
    assert TOKEN not in set_cookie
    assert "Secure" not in Gate(TOKEN).cookie(secure=False)


@pytest.mark.parametrize(
    ("more", "may"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://page.example:9999"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
    ],
)
def test_a_button_works_on_the_page_alone(more: dict[str, str], may: bool) -> None:
    gate = Gate(TOKEN)
    assert gate.may_change({**HERE, "cookie": cookie_of(gate), **more}) is may


def test_without_an_origin_only_a_program_with_the_token_may_change_anything() -> None:
    gate = Gate(TOKEN)
    assert not gate.may_change({"host": HERE["host"], "cookie": cookie_of(gate)})
    assert gate.may_change({"host": HERE["host"], "authorization": f"Bearer {TOKEN}"})
    assert not gate.may_change(HERE)
    assert not Gate(None).may_change({"host": "127.0.0.1:8081"})
    assert Gate(None).may_change({"host": "127.0.0.1:8081", "origin": "http://127.0.0.1:8081"})


async def test_beyond_loopback_the_page_does_not_start_without_a_token() -> None:
    with pytest.raises(SettingsError, match=r"AI_WEB_TOKEN: 0\.0\.0\.0 is not loopback"):
        await serve(load_settings(web_host="0.0.0.0"))  # noqa: S104 - it is refused


def test_a_token_that_can_be_guessed_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"AI_WEB_TOKEN: must have at least 16") as told:
        load_settings(web_token="hunter2")  # noqa: S106 - it is refused
    assert "hunter2" not in str(told.value)
    assert load_settings(web_token="").web_token is None
