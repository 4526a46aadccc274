"""Replies find those who wait for them, once, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from app.client.errors import ClientClosedError
from app.client.inbox import Inbox, Waiter
from app.client.outgoing import Outgoing
from tests.unit.client.making import chunk, heard, response


def asked(workspace: str = "acme") -> Outgoing:
    return Outgoing("r-1", workspace, b"{}", (), 1.0)


async def test_a_response_is_for_its_request_and_workspace() -> None:
    inbox, mine, other = Inbox(), Waiter(asked()), Waiter(asked("globex"))
    inbox.expect(mine)
    inbox.expect(other)
    inbox.hear(*heard(response("for acme")))
    assert (await mine.response()).content == "for acme"
    inbox.hear(*heard(response("for globex", workspace_id="globex")))
    assert (await other.response()).content == "for globex"


async def test_a_repeat_changes_nothing_and_a_forgotten_waiter_hears_nothing() -> None:
    inbox, waiter = Inbox(), Waiter(asked())
    inbox.expect(waiter)
    inbox.hear(*heard(response("first")))
    inbox.hear(*heard(response("again")))
    assert (await waiter.response()).content == "first"
    inbox.forget(waiter)
    inbox.forget(waiter)
    assert len(inbox) == 0
    inbox.hear(*heard(response("later")))


async def test_two_who_wait_for_one_id_get_the_same_answer() -> None:
    inbox, both = Inbox(), (Waiter(asked()), Waiter(asked()))
    for waiter in both:
        inbox.expect(waiter)
    inbox.hear(*heard(response()))
    assert [(await waiter.response()).content for waiter in both] == ["whole", "whole"]


async def test_chunks_come_before_the_response_and_end_with_it() -> None:
    inbox, waiter = Inbox(), Waiter(asked(), streamed=True)
    inbox.expect(waiter)
    for event in (chunk(1, 0, "a"), chunk(1, 1, "b"), response("ab")):
        inbox.hear(*heard(event))
    assert [one.content async for one in waiter.chunks()] == ["a", "b"]
    assert (await waiter.response()).content == "ab"


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"request_id": 1}'], ids=["none", "empty", "cut", "no response"])
async def test_what_is_no_reply_is_left_unread(value: bytes | None) -> None:
    inbox, waiter = Inbox(), Waiter(asked())
    inbox.expect(waiter)
    key, headers, _ = heard(response())
    inbox.hear(key, headers, value)
    inbox.hear(key, (), b"{}")
    inbox.hear(None, (), None)
    inbox.hear(*heard(response("real")))
    assert (await waiter.response()).content == "real"


async def test_when_nobody_reads_any_more_those_who_wait_are_told() -> None:
    inbox, waiter = Inbox(), Waiter(asked(), streamed=True)
    inbox.expect(waiter)
    assert inbox.fail(ClientClosedError("closed")) == [waiter.request]
    assert [one async for one in waiter.chunks()] == []
    with pytest.raises(ClientClosedError):
        await waiter.response()


async def test_whoever_stops_waiting_does_not_take_the_answer_from_others() -> None:
    inbox, waiter = Inbox(), Waiter(asked())
    inbox.expect(waiter)
    impatient = asyncio.ensure_future(waiter.response())
    await asyncio.sleep(0)
    impatient.cancel()
    inbox.hear(*heard(response()))
    assert (await waiter.response()).content == "whole"
