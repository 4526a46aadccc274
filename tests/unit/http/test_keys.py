"""Keys: shown once, kept as digests, valid until they are revoked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.http.keys import Gate, KeyBook, new_key
from app.http.problems import Problem
from schemas.api_key import ApiKey
from schemas.codec import encode
from tests.unit.client.making import NOW


def book_of(*keys: ApiKey) -> KeyBook:
    book = KeyBook()
    for key in keys:
        book.apply(key.key_id.encode(), encode(key))
    return book


def refused(gate: Gate, authorization: str | None, wanted: str | None = None) -> tuple[int, str | None]:
    with pytest.raises(Problem) as caught:
        gate.workspace(authorization, wanted)
    return caught.value.status, caught.value.code


def test_a_secret_is_long_random_and_not_in_what_is_kept() -> None:
    (first, one), (second, two) = new_key(["acme"], "shop", NOW), new_key(["acme"], "shop", NOW)
    assert one != two
    assert first.key_id != second.key_id
    assert len(one.removeprefix("sk-spillway-")) >= 43
    assert one.encode() not in encode(first)
    assert one.removeprefix("sk-spillway-").encode() not in encode(first)


def test_a_key_pays_from_its_first_workspace_or_from_the_one_that_is_named() -> None:
    key, secret = new_key(["acme", "acme-batch"], "", NOW)
    gate = Gate(book_of(key))
    assert gate.workspace(f"Bearer {secret}", None) == "acme"
    assert gate.workspace(f"bearer  {secret}", "acme-batch") == "acme-batch"
    assert refused(gate, f"Bearer {secret}", "globex") == (403, "workspace_not_allowed")


def test_a_key_to_every_workspace_names_one_or_pays_from_the_default() -> None:
    key, secret = new_key(["*"], "", NOW)
    gate = Gate(book_of(key))
    assert gate.workspace(f"Bearer {secret}", "globex") == "globex"
    assert gate.workspace(f"Bearer {secret}", None) == "default"


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer sk-spillway-wrong", "Bearer ü"])
def test_without_a_valid_key_nobody_comes_in(sent: str | None) -> None:
    key, _ = new_key(["acme"], "", NOW)
    assert refused(Gate(book_of(key)), sent) == (401, "invalid_api_key")


def test_the_refusal_does_not_repeat_the_key() -> None:
    with pytest.raises(Problem) as caught:
        Gate(KeyBook()).workspace("Bearer sk-somebodys-secret", None)
    assert "somebodys" not in str(caught.value.body())


def test_a_revoked_key_is_gone_and_what_is_no_key_revokes() -> None:
    (first, one), (second, two) = new_key(["acme"], "", NOW), new_key(["acme"], "", NOW)
    book = book_of(first, second)
    book.apply(first.key_id.encode(), None)
    assert (book.find(one), book.find(two)) == (None, second)
    book.apply(second.key_id.encode(), b"{")
    assert len(book) == 0


def test_a_record_under_another_key_opens_nothing() -> None:
    key, secret = new_key(["*"], "", NOW)
    book = KeyBook()
    book.apply(b"another", encode(key))
    book.apply(None, encode(key))
    assert book.find(secret) is None


def test_an_open_door_asks_for_no_key() -> None:
    assert Gate(None).workspace(None, None) == "default"
    assert Gate(None).workspace("Bearer whatever", "acme") == "acme"


@pytest.mark.parametrize("workspaces", [[], ["a b"], ["", "acme"], ["**"]])
def test_a_key_is_for_real_workspaces(workspaces: list[str]) -> None:
    with pytest.raises(ValidationError):
        new_key(workspaces, "", NOW)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_without_keys_programs_of_this_machine_come_in(host: str) -> None:
    Gate(None).refuse_pages({"host": host})


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8080"},
        {"host": ""},
        {"host": "127.0.0.1:8080", "origin": "https://evil.example"},
        {"host": "127.0.0.1:8080", "origin": "null"},
        {"host": "127.0.0.1:8080", "sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1:8080", "sec-fetch-site": "same-site"},
    ],
)
def test_without_keys_no_page_in_a_browser_can_spend_money_at_the_door(headers: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        Gate(None).refuse_pages(headers)
    assert caught.value.status == 403
    Gate(KeyBook()).refuse_pages(headers)
