"""A streamed answer on its way: in order, whole, and never in the way of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiokafka.errors import InvalidTopicError, KafkaTimeoutError, ProducerClosed

from schemas.chunk import Chunk
from schemas.codec import decode, header
from schemas.internal import DispatchCommand
from schemas.request import CompletionRequest, EmbeddingRequest, ReplyAddress
from streams.dispatch import chunks
from streams.dispatch.chunks import ChunkStream, wants_chunks
from streams.dispatch.ports import Delta, always
from streams.runtime.outbox import Outbox
from tests.support.clock.waiting import eventually
from tests.unit.streams.making import NOW, REPLY, admitted, command, summary

STREAMED = CompletionRequest(prompt="hi", stream=True)


class Broker:
    """Acknowledges at once, unless it is told what else to do."""

    def __init__(self, refuses: Exception | None = None, loses: Exception | None = None) -> None:
        self.refuses, self.loses = refuses, loses
        self.taken: list[Any] = []

    async def start(self) -> None: ...

    async def send(self, topic: str, value: bytes, key: bytes, partition: int, _: None, headers: Any) -> Any:
        if self.refuses:
            raise self.refuses
        self.taken.append((topic, value, key, partition, headers))
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.loses:
            sent.set_exception(self.loses)
        else:
            sent.set_result(None)
        return sent

    @property
    def chunks(self) -> list[Chunk]:
        return [decode(Chunk, value) for _, value, *_ in self.taken]


async def stream_to(
    broker: Broker,
    interval: float = 0.0,
    to_do: DispatchCommand | None = None,
    may_tell: Callable[[], bool] = always,
) -> ChunkStream:
    outbox = Outbox(cast(Callable[[], Any], lambda: broker))
    await outbox.start()
    return ChunkStream(to_do or command(), REPLY, outbox, lambda: NOW, interval, may_tell)


async def test_pieces_arrive_whole_in_order_and_numbered_at_the_requests_reply_address() -> None:
    broker = Broker()
    async with await stream_to(broker) as stream:
        for number in range(20):
            await stream.tell(Delta(f"{number} "))
            await asyncio.sleep(0)
    assert "".join(chunk.content for chunk in broker.chunks) == "".join(f"{n} " for n in range(20))
    assert [chunk.index for chunk in broker.chunks] == list(range(len(broker.chunks)))
    topic, _, key, partition, headers = broker.taken[0]
    assert (topic, key, partition) == (REPLY.topic, b"r-1", REPLY.partition)
    assert header(headers, "kafka_correlationId") == b"c-1", "in the dialect of the one who asked"
    assert header(headers, "ce_type") == b"ai.response.chunk"
    assert header(headers, "ce_id") == b"r-1/1/0"


async def test_the_first_piece_goes_at_once_and_what_follows_quickly_goes_together() -> None:
    broker = Broker()
    async with await stream_to(broker, interval=3600) as stream:
        await stream.tell(Delta("first"))
        await eventually(lambda: broker.chunks)
        for word in ("and ", "all ", "the ", "rest"):
            await stream.tell(Delta(word))
    assert [chunk.content for chunk in broker.chunks] == ["first", "and all the rest"]


async def test_a_pause_of_the_provider_holds_back_nothing_that_was_written_before_it() -> None:
    broker = Broker()
    async with await stream_to(broker, interval=0.01) as stream:
        await stream.tell(Delta("first"))
        await stream.tell(Delta(", second"))
        await eventually(lambda: "".join(chunk.content for chunk in broker.chunks) == "first, second")


async def test_chunks_of_a_later_attempt_begin_anew_with_its_number() -> None:
    broker = Broker()
    async with await stream_to(broker, to_do=command(attempts=(summary(1),))) as stream:
        await stream.tell(Delta("again"))
    assert [(chunk.attempt, chunk.index) for chunk in broker.chunks] == [(2, 0)]


async def test_pieces_of_tool_calls_are_chunks_as_well() -> None:
    broker = Broker()
    piece = {"index": 0, "function": {"arguments": '{"city'}}
    async with await stream_to(broker) as stream:
        await stream.tell(Delta(tool_calls=(piece,)))
    assert broker.chunks[0].tool_calls == (piece,)
    assert stream.first_at == NOW


async def test_nothing_written_is_nothing_sent() -> None:
    broker = Broker()
    async with await stream_to(broker) as stream:
        pass
    assert (broker.chunks, stream.first_at, stream.written) == ([], None, 0)


@pytest.mark.parametrize(
    "broker",
    [
        Broker(refuses=InvalidTopicError()),
        Broker(refuses=KafkaTimeoutError()),
        Broker(refuses=ProducerClosed()),
        Broker(loses=KafkaTimeoutError()),
    ],
    ids=["refused", "no room", "closed", "lost"],
)
async def test_chunks_that_cannot_be_delivered_fail_nothing(broker: Broker) -> None:
    async with await stream_to(broker) as stream:
        for _ in range(5):
            await stream.tell(Delta("é"))
            await asyncio.sleep(0)
    assert stream.written == 10, "what was written counts, whoever has read it"


async def test_a_broker_that_does_not_take_a_chunk_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Broker):
        async def send(self, *_: Any) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr(chunks, "SEND_TIMEOUT", 0.01)
    async with await stream_to(Silent()) as stream:
        await stream.tell(Delta("a"))


async def test_the_end_of_a_call_waits_a_moment_only_for_what_cannot_be_delivered_and_nothing_comes_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(Broker):
        """Has no room for a while."""

        def __init__(self) -> None:
            super().__init__()
            self.asked = 0
            self.room = asyncio.Event()

        async def send(self, *told: Any) -> Any:
            self.asked += 1
            await self.room.wait()
            return await super().send(*told)

    monkeypatch.setattr(chunks, "END_TIMEOUT", 0.01)
    broker = Full()
    async with await stream_to(broker) as stream:
        await stream.tell(Delta("first"))
        await eventually(lambda: broker.asked)
        await stream.tell(Delta("last"))
    # The call has ended, though its first chunk has time until SEND_TIMEOUT.
    broker.room.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert broker.taken == []


async def test_the_end_of_a_call_waits_a_moment_only_for_chunks_that_do_not_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Deaf(Broker):
        async def send(self, *told: Any) -> Any:
            self.taken.append(told)
            return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(chunks, "END_TIMEOUT", 0.01)
    broker = Deaf()
    async with await stream_to(broker) as stream:
        await stream.tell(Delta("a"))
        await eventually(lambda: broker.taken)


async def test_a_worker_that_may_be_taken_for_dead_sends_no_more_chunks_and_goes_on_listening() -> None:
    broker, may = Broker(), [True]
    async with await stream_to(broker, may_tell=lambda: may[0]) as stream:
        await stream.tell(Delta("first"))
        await eventually(lambda: broker.chunks)
        may[0] = False
        await stream.tell(Delta("second"))
        await eventually(lambda: stream._is_given_up)
        may[0] = True
        await stream.tell(Delta("third"))
    assert [chunk.content for chunk in broker.chunks] == ["first"]
    assert stream.written == len("firstsecondthird")
    rest = stream.rest()
    assert rest is not None
    assert (rest.attempt, rest.index, rest.content) == (1, 1, "secondthird"), "where it is the answer, all is told"


async def test_a_stream_that_was_told_to_its_end_leaves_no_rest() -> None:
    async with await stream_to(Broker()) as stream:
        await stream.tell(Delta("all of it"))
    assert stream.rest() is None


async def test_a_chunk_that_waits_for_the_broker_when_the_stream_ends_is_still_before_the_last_one() -> None:
    class Hesitant(Broker):
        """Takes its first chunk late: its buffer is full."""

        def __init__(self) -> None:
            super().__init__()
            self.asked = asyncio.Event()
            self.go_on = asyncio.Event()

        async def send(self, *told: Any) -> Any:
            if not self.asked.is_set():
                self.asked.set()
                await self.go_on.wait()
            return await super().send(*told)

    broker = Hesitant()

    async def call() -> None:
        async with await stream_to(broker, interval=3600) as stream:
            await stream.tell(Delta("first "))
            await broker.asked.wait()
            await stream.tell(Delta("last"))

    running = asyncio.create_task(call())
    await broker.asked.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not running.done(), "the response may not come before a chunk"
    broker.go_on.set()
    await running
    assert [(chunk.index, chunk.content) for chunk in broker.chunks] == [(0, "first "), (1, "last")]


async def test_an_error_of_the_call_passes_through_and_what_was_written_is_sent() -> None:
    broker = Broker()

    async def broken() -> None:
        async with await stream_to(broker, interval=3600) as stream:
            await stream.tell(Delta("half an"))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await broken()
    assert [chunk.content for chunk in broker.chunks] == ["half an"]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"request": STREAMED}, REPLY),
        ({"request": STREAMED, "reply": None}, None),
        ({"request": CompletionRequest(prompt="hi")}, None),
        ({"request": EmbeddingRequest(kind="embedding", input="hi")}, None),
    ],
)
def test_only_who_asks_for_a_stream_and_can_be_reached_gets_chunks(
    fields: dict[str, Any], wanted: ReplyAddress | None
) -> None:
    assert wants_chunks(DispatchCommand(admitted=admitted(**fields), route=("claude",))) == wanted
