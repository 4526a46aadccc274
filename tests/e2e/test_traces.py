"""One trace of a request through every process that it passes, as a collector gets it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import app.tracing.client as client_spans
from app.client import SpillwayClient
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from app.topics import build_topology
from app.tracing.export import OneWarning
from app.tracing.setup import make_provider, nobody_counts
from app.tracing.show import Span
from schemas.response import Status
from tests.support.clock.waiting import eventually
from tests.support.provider.instant import Provider
from tests.support.reader import topics
from tests.support.reader.collector import Collector, collecting
from tests.support.reader.logs import LogPart
from tests.support.stack.gateway import serving
from tests.support.stack.workers import WIDE_LANES
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

PROMPT, KEY, USER = (f"{secrets.token_hex(8)}-{what}" for what in ("prompt", "key", "user"))
#: OpenAI's address is one where nobody listens; Perplexity takes its time.
TOLD = {
    "AI_OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "AI_OPENAI_API_KEY": KEY,
    "AI_RETRY_ATTEMPTS": "2",
    "AI_RETRY_DELAY": "0.05",
    "AI_PERPLEXITY_INTERFACE": "sonar",
    "AI_TRACE_SAMPLING_RATE": "1",
}
#: The way of a request that is answered by one call, in the order of its stages.
WAY = (
    "send ai.requests",
    "process ai.requests",
    "send ai.dispatch.claude",
    "process ai.dispatch.claude",
    "send ai.attempts",
    "process ai.attempts",
    "send ai.usage",
    "process ai.usage",
)
ENDS = ("process ai.usage", "process ai.responses", "receive ai.replies")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Provider.running(tmp_path_factory.mktemp("slow"), delay_ms=2_000) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(stack: DevStack, collector: Collector, slow: Provider) -> AsyncIterator[Child]:
    perplexity = {name: value for name, value in slow.environment().items() if "PERPLEXITY" in name}
    told = {**WIDE_LANES, **TOLD, **perplexity, "AI_TRACE_ENDPOINT": collector.endpoint}
    running = stack.worker(1, **told, OTEL_BSP_SCHEDULE_DELAY="200")
    running.start()
    try:
        await asyncio.to_thread(running.wait_ready, 90)
        yield running
    finally:
        assert await asyncio.to_thread(running.stop), "the worker did not stop by itself"
        assert running.exit_code() == 0, running.last_words()


@pytest_asyncio.fixture(loop_scope="module")
async def client(
    settings: Settings, worker: Child, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SpillwayClient]:
    """The client of an application that traces itself."""
    assert worker.alive()
    provider = make_provider(1.0, "shop")
    provider.add_span_processor(
        BatchSpanProcessor(OneWarning(collector.endpoint + "/v1/traces", nobody_counts), schedule_delay_millis=200)
    )
    monkeypatch.setattr(client_spans, "get_tracer", provider.get_tracer)
    async with SpillwayClient(settings.kafka_bootstrap_servers, workspace_id=unique("traced")) as connected:
        yield connected
    await asyncio.to_thread(provider.shutdown)


def new_trace(sampled: bool = True) -> tuple[str, str]:
    """A trace that some application has begun: its id, and its traceparent."""
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"


def one(spans: list[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name == name]
    return found


def parents(spans: list[Span], span: Span) -> list[str]:
    """The names from a span up to its root."""
    known = {one.id: one for one in spans}
    return [span.name, *parents(spans, known[span.parent])] if span.parent in known else [span.name]


async def put(settings: Settings, body: dict[str, Any], partition: int | None = None, **headers: str) -> None:
    """As any Kafka client does, without a key."""
    told = [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]
    await topics.put(
        settings.kafka_bootstrap_servers, "ai.requests", json.dumps(body).encode(), partition=partition, headers=told
    )


async def test_one_trace_leads_from_the_client_to_the_provider_and_to_the_rows_of_the_ledger(
    client: SpillwayClient, collector: Collector
) -> None:
    trace, traceparent = new_trace()
    answer = await client.complete(PROMPT, user_id=USER, traceparent=traceparent, max_tokens=77)
    spans = await collector.complete(trace, *WAY, *ENDS)
    chain = parents(spans, one(spans, "process ai.usage"))
    assert tuple(reversed(chain)) == WAY
    assert one(spans, "send ai.requests").parent == traceparent.split("-")[2]
    assert [span.service for span in spans if span.name == "send ai.requests"] == ["shop"]
    assert one(spans, "process ai.requests").service == "spillway"

    [call] = [span for span in spans if span.kind == "CLIENT"]
    stage = one(spans, "process ai.dispatch.claude")
    assert (call.name, call.parent) == (f"chat {answer.model}", stage.id)
    assert stage.start <= call.start <= call.end <= stage.end
    usage = answer.usage
    known = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.max_tokens": 77,
        "gen_ai.response.model": answer.model,
        "gen_ai.response.finish_reasons": [answer.finish_reason],
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    assert known.items() <= call.attributes.items()
    assert (stage.kind, stage.attributes["messaging.system"]) == ("CONSUMER", "kafka")
    assert stage.attributes["spillway.request_id"] == answer.request_id
    for pair in ("ai.requests", "ai.dispatch.claude", "ai.attempts", "ai.usage"):
        sent, read = one(spans, f"send {pair}").attributes, one(spans, f"process {pair}").attributes
        for name in ("messaging.destination.partition.id", "messaging.kafka.offset"):
            assert sent[name] == read[name], (pair, name)
    assert parents(spans, one(spans, "receive ai.replies"))[1] == "send ai.replies"


async def test_each_attempt_is_a_span_and_the_fallback_is_in_the_same_trace(
    client: SpillwayClient, collector: Collector
) -> None:
    trace, traceparent = new_trace()
    answer = await client.complete(f"{PROMPT} fallback", preferred_providers=["openai"], traceparent=traceparent)
    assert answer.provider == "claude"
    spans = await collector.complete(trace, *ENDS, "process ai.dispatch.openai", "process ai.dispatch.claude")
    calls = [span for span in spans if span.kind == "CLIENT"]
    told = [(c.attributes["gen_ai.provider.name"], c.attributes["spillway.attempt"], c.failed) for c in calls]
    assert told == [("openai", 1, True), ("openai", 2, True), ("anthropic", 3, False)]
    assert {c.attributes.get("error.type") for c in calls} == {"connection", None}
    assert calls[0].parent == calls[1].parent == one(spans, "process ai.dispatch.openai").id
    assert calls[2].parent == one(spans, "process ai.dispatch.claude").id
    waits = [span for span in spans if span.name.startswith("wait openai")]
    assert len(waits) == 2, "one for its turn, one for the retry"
    assert calls[0].end <= waits[-1].start <= waits[-1].end <= calls[1].start


async def test_an_answer_out_of_the_cache_has_no_call(client: SpillwayClient, collector: Collector) -> None:
    asked = f"{PROMPT} kept"
    await client.complete(asked)
    trace, traceparent = new_trace()
    answer = await client.complete(asked, traceparent=traceparent)
    assert answer.cached
    spans = await collector.complete(trace, "process ai.requests", "process ai.responses", "receive ai.replies")
    admission = one(spans, "process ai.requests")
    assert (admission.attributes["spillway.decision"], admission.attributes["spillway.cached"]) == ("answer", True)
    assert not [span for span in spans if span.kind == "CLIENT" or "dispatch" in span.name]


async def test_one_who_joins_keeps_a_trace_of_their_own_that_is_linked_to_the_leaders(
    client: SpillwayClient, collector: Collector
) -> None:
    """Both are admitted long before the provider answers."""
    (leading, first), (joining, second) = new_trace(), new_trace()
    common: dict[str, Any] = {"preferred_providers": ["perplexity"], "model": "sonar"}
    asked = f"{PROMPT} joined"
    answers = await asyncio.gather(
        client.complete(asked, traceparent=first, timeout=60, **common),
        client.complete(asked, traceparent=second, timeout=90, **common),
    )
    assert [answer.cached for answer in answers] == [False, True]
    # The report is worked on until all who wait have been told.
    leader = await collector.complete(leading, *ENDS, "process ai.attempts")
    joined = await collector.complete(joining, "process ai.responses", "receive ai.replies")
    assert len([span for span in leader if span.kind == "CLIENT"]) == 1
    assert not [span for span in joined if span.kind == "CLIENT"]
    admission = one(joined, "process ai.requests")
    assert admission.attributes["spillway.decision"] == "join"
    assert admission.links == (one(leader, "process ai.requests").id,)
    response = one(joined, "send ai.responses")
    assert response.links == (one(leader, "process ai.attempts").id,)
    assert response.parent == admission.id


async def test_a_stream_says_when_its_first_chunk_came(client: SpillwayClient, collector: Collector) -> None:
    trace, traceparent = new_trace()
    async with client.stream(f"{PROMPT} streamed", traceparent=traceparent) as answer:
        text = "".join([piece.content async for piece in answer])
    assert text == answer.response.content
    spans = await collector.complete(trace, *ENDS)
    [call] = [span for span in spans if span.kind == "CLIENT"]
    assert call.attributes["gen_ai.request.stream"] is True
    first = call.attributes["gen_ai.response.time_to_first_chunk"]
    assert first == pytest.approx(answer.response.time_to_first_chunk, abs=0.001)
    # Counted from the attempt, which begins in its stage, before its mark is written and the call is made.
    stage = one(spans, "process ai.dispatch.claude")
    assert 0 < first <= (call.end - stage.start) / 1e9 + 0.001
    assert len([span for span in spans if span.name == "send ai.replies"]) == 1, "chunks have no spans"


async def test_a_record_without_a_trace_begins_one_and_keeps_it_where_it_is_sent_home(
    settings: Settings, worker: Child, collector: Collector
) -> None:
    assert worker.alive()
    request_id, workspace = unique("bare"), unique("bare")
    elsewhere = (build_topology(settings).workspace_partition(workspace) + 1) % settings.partitions
    body = {"request_id": request_id, "workspace_id": workspace, "prompt": PROMPT}
    await put(settings, body, partition=elsewhere)

    def known() -> list[Span]:
        return [span for span in collector.spans if span.attributes.get("spillway.request_id") == request_id]

    [first, *_] = await eventually(known)
    spans = await collector.complete(first.trace, *ENDS[:2])
    [root] = [span for span in spans if not span.parent]
    [home, admission] = [span for span in spans if span.name == "process ai.requests"]
    assert home is root
    told = [span.attributes["spillway.decision"] for span in (home, admission)]
    assert told == ["home", "forward"]
    assert parents(spans, admission) == ["process ai.requests", "send ai.requests", "process ai.requests"]
    assert {span.trace for span in known()} == {first.trace}


async def test_whoever_sends_a_trace_decides_whether_it_is_sampled(
    settings: Settings, client: SpillwayClient, collector: Collector
) -> None:
    (unsampled, told), (sampled, after) = new_trace(sampled=False), new_trace()
    body = {"workspace_id": unique("w"), "prompt": PROMPT}
    await put(settings, {**body, "request_id": unique("r")}, traceparent=told)
    await client.complete(PROMPT, traceparent=told)
    await put(settings, {**body, "request_id": unique("r")}, traceparent=after)
    await client.complete(f"{PROMPT} after", traceparent=after)
    await collector.complete(sampled, *ENDS)
    assert collector.trace(unsampled) == []


async def test_the_http_door_is_the_beginning_of_the_trace(
    stack: DevStack, worker: Child, collector: Collector
) -> None:
    assert worker.alive()
    trace, traceparent = new_trace()
    body = {"model": "default", "messages": [{"role": "user", "content": f"{PROMPT} door"}]}
    environment = {"AI_TRACE_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    def ask() -> int:
        with serving(stack, "--open", **environment) as door:
            return door.ask("POST", "/v1/chat/completions", body, traceparent=traceparent)[0]

    assert await asyncio.to_thread(ask) == 200
    spans = await collector.complete(trace, "POST /v1/chat/completions", *WAY, *ENDS)
    door = one(spans, "POST /v1/chat/completions")
    assert (door.kind, door.service, door.parent) == ("SERVER", "spillway-http", traceparent.split("-")[2])
    assert door.attributes["http.response.status_code"] == 200
    assert one(spans, "send ai.requests").parent == door.id


async def test_log_lines_of_a_traced_request_name_its_trace(
    stack: DevStack, client: SpillwayClient, collector: Collector
) -> None:
    trace, traceparent = new_trace()
    answer = await client.complete(f"{PROMPT} logged", preferred_providers=["openai"], traceparent=traceparent)
    await collector.complete(trace, *ENDS)
    lines = [json.loads(line) for line in LogPart(stack.log("worker-1"), 0).text().splitlines() if line.startswith("{")]
    [failed, *_] = [line for line in lines if line.get("trace_id") == trace]
    assert failed["event"].startswith("attempt_failed")
    assert failed["request_id"] == answer.request_id


@pytest.mark.prove
async def test_a_call_that_died_with_its_worker_is_made_again_in_the_same_trace(
    client: SpillwayClient, collector: Collector, worker: Child, slow: Provider
) -> None:
    trace, traceparent = new_trace()
    request_id = unique("killed")
    asking = asyncio.create_task(
        client.complete(
            f"{PROMPT} killed",
            request_id=request_id,
            preferred_providers=["perplexity"],
            model="sonar",
            traceparent=traceparent,
            # Its worker has to start, and the broker to give up the one that was killed.
            timeout=150,
        )
    )
    await eventually(lambda: any(str(event["id"]).startswith(request_id) for event in slow.events()), every=0.01)
    worker.kill()
    worker.start()
    answer = await asking
    assert [attempt.attempt for attempt in answer.attempts] == [1, 2]
    spans = await collector.complete(trace, *ENDS)
    [call] = [span for span in spans if span.kind == "CLIENT"]
    assert call.attributes["spillway.attempt"] == 2, "the span of the first one died with it"
    stages = [span for span in spans if span.name == "process ai.dispatch.perplexity"]
    plans = [span.attributes["spillway.plan"] for span in stages]
    assert set(plans[:-1]) == {"interrupted"}, "as often as it was delivered again"
    assert plans[-1] == "start"
    chain = parents(spans, call)
    assert chain[:6] == [
        call.name,
        "process ai.dispatch.perplexity",
        "send ai.dispatch.perplexity",
        "process ai.attempts",
        "send ai.attempts",
        "process ai.dispatch.perplexity",
    ]
    assert len({span.id for span in spans}) == len(spans)


async def test_no_prompt_key_or_user_is_in_what_was_exported(collector: Collector) -> None:
    """After all of the above, which have sent them."""
    assert len(collector.spans) > 100
    everything = b"".join(collector.received)
    assert PROMPT.encode() not in everything
    assert KEY.encode() not in everything
    assert USER.encode() not in everything


@pytest.mark.prove
async def test_a_collector_that_is_away_harms_nothing(stack: DevStack, settings: Settings, worker: Child) -> None:
    """A second worker takes a part of the partitions; it says once that its traces go nowhere, and stops in order."""
    assert worker.alive()
    lost = stack.worker(2, **WIDE_LANES, AI_TRACE_ENDPOINT="http://127.0.0.1:9", AI_TRACE_SAMPLING_RATE="1")
    log = LogPart.from_now_on(stack.log("worker-2"))
    lost.start()
    try:
        await asyncio.to_thread(lost.wait_ready, 90)
        async with SpillwayClient(settings.kafka_bootstrap_servers, timeout=60) as asking:
            told = [{"prompt": f"{PROMPT} lost {number}", "workspace_id": unique("lost")} for number in range(60)]
            answers = await asyncio.gather(*[asking.request(fields) for fields in told])
        assert {answer.status for answer in answers} == {Status.SUCCEEDED}
        await eventually(lambda: "traces_unsent" in log.text(), within=60)
    finally:
        assert await asyncio.to_thread(lost.stop), "the worker did not stop by itself"
    assert lost.exit_code() == 0
    assert log.text().count("traces_unsent") == 1
    assert "Traceback" not in log.text()
