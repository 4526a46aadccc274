"""Lines of a file as records."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError

from app.cli.bulk import Published, _send_all, outgoing
from schemas.response import Response, Status, Usage


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"workspace_id": "team", "prompt": "hi"}', b"team"),
        (b'{"prompt": "hi"}', b"default"),
        (b'{"workspace_id": 5}', None),
        (b'{"workspace_id": ""}', None),
        (b"not json", None),
        (b'["a list"]', None),
        (b"\xff\xfe", None),
    ],
)
def test_the_key_is_the_workspace_where_it_can_be_read(line: bytes, key: bytes | None) -> None:
    record = outgoing(line)
    assert (record.key, record.value) == (key, line)


def test_a_line_with_an_id_is_known_by_it_and_carries_no_header() -> None:
    record = outgoing(b'{"request_id": "r-1", "prompt": "hi"}')
    assert (record.request_id, record.headers) == ("r-1", ())


@pytest.mark.parametrize("line", [b'{"prompt": "hi"}', b'{"request_id": "has spaces"}', b'{"request_id": 7}', b"no"])
def test_a_line_without_a_usable_id_is_given_one_as_a_header(line: bytes) -> None:
    record = outgoing(line)
    assert record.headers == (("ce_id", record.request_id.encode()),)
    assert outgoing(line).request_id != record.request_id


def response(status: Status, cost: str) -> Response:
    return Response(
        request_id="r",
        workspace_id="w",
        status=status,
        usage=Usage(cost=cost),
        answered_at="2026-11-23T07:00:00Z",
    )


def test_answers_are_counted_by_status_with_their_cost() -> None:
    done = Published(published=3)
    for status, cost in ((Status.SUCCEEDED, "0.1"), (Status.SUCCEEDED, "0.2"), (Status.REJECTED, "0")):
        done.count(response(status, cost))
    assert done.as_data(waited=True)["answers"] == {
        "succeeded": {"requests": 2, "cost": "0.300000000"},
        "rejected": {"requests": 1, "cost": "0.000000000"},
    }
    assert not done.ok


def test_it_is_well_only_when_everything_was_answered_and_nothing_failed() -> None:
    done = Published(published=1)
    done.count(response(Status.SUCCEEDED, "0.1"))
    assert done.ok
    assert not Published(published=1, missing=frozenset({"r"})).ok
    assert not Published(refused=[(1, "too large")]).ok


class Producer:
    """A broker that has lost the first record by the time that the others are sent."""

    def __init__(self) -> None:
        self._sent = 0

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[None]:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._sent:
            sent.set_result(None)
        else:
            sent.set_exception(KafkaTimeoutError())
        self._sent += 1
        await asyncio.sleep(0)
        return sent


async def test_a_record_that_was_lost_early_is_not_counted_as_published_without_a_word() -> None:
    lines = [b'{"prompt": "one"}', b'{"prompt": "two"}', b'{"prompt": "three"}']
    with pytest.raises(KafkaTimeoutError):
        await _send_all(cast(Any, Producer()), lines, Published(), None)
