"""Keys, prompts and answers are read by nobody but those they are for.

Marked texts are planted wherever one may stand. A worker, the door and the page run as processes, once at the level
DEBUG and once at the default one, and meet success, streams, refusals that repeat the whole request with every key,
broken events, deadlines, budgets, cancellations and SIGTERM. Then everything that is told of it is searched for the
marks: `SURFACES` has the places. What is not searched is said in `CONTENT`, where content belongs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from typer.testing import CliRunner

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.budget import BudgetChange
from schemas.codec import encode
from schemas.response import Response
from streams import topology as topics
from tests.support.clock.months import in_one_month
from tests.support.clock.waiting import eventually
from tests.support.provider.markers import Marks, Parrot, repeating
from tests.support.reader.collector import Collector, collecting
from tests.support.reader.logs import LogPart
from tests.support.reader.topics import reading
from tests.support.stack.dashboard import OpenPage, serving_page
from tests.support.stack.gateway import OpenDoor, bearer, serving
from tests.support.stack.workers import WIDE_LANES
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]

#: Where content belongs, and is not searched for: these fields of responses and chunks; the values of requests, of
#: replies and of what the stages say to each other; the values of dead letters, which are the original bytes.
CONTENT = {
    *("content", "tool_calls", "citations", "embeddings", "images", "related_questions", "search_results"),
    "metadata",
}
SEARCHED_TOPICS = (
    *(topics.USAGE, topics.SPEND, topics.BUDGET_ALERTS, topics.BUDGET_STATE, topics.BUDGETS, topics.TICKS),
    *(topics.CONTROL, topics.LANES, topics.REDRIVES, topics.CANCELLATIONS, topics.API_KEYS),
)
ONLY_HEADERS = (topics.DEAD_LETTERS, topics.REPLIES)
DEFAULT = "the default level"


@dataclass
class Run:
    """All that this test has started, sent and heard."""

    stack: DevStack
    settings: Settings
    marks: Marks
    parrot: Parrot
    collector: Collector
    folder: Path
    name: str = field(default_factory=lambda: unique("told"))
    records: list[ConsumerRecord] = field(default_factory=list)
    producer: AIOKafkaProducer | None = None
    logs: dict[str, LogPart] = field(default_factory=dict)
    #: What a process said while it ran: metrics, pages, answers of the door; by place.
    said: dict[str, list[str]] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    latest: str = ""

    def hear(self, place: str, *texts: object) -> None:
        self.said.setdefault(place, []).extend(map(str, texts))

    async def send(self, topic: str, value: bytes, key: str | None = None) -> None:
        assert self.producer is not None
        await self.producer.send_and_wait(topic, value, key=(key or self.name).encode())

    def of(self, topic: str) -> list[ConsumerRecord]:
        return [record for record in self.records if record.topic == topic]

    def response(self, request_id: str) -> Response | None:
        found = (r for r in self.of(topics.RESPONSES) if f'"{request_id}"'.encode() in r.value)
        record = next(found, None)
        return Response.model_validate_json(record.value) if record else None

    async def publish(self, scenario: str, **fields: Any) -> str:
        request_id = unique(scenario)
        self.asked[scenario] = request_id
        common = {"request_id": request_id, "workspace_id": self.name, "max_tokens": 32, "cache": {"enabled": False}}
        await self.send(topics.REQUESTS, json.dumps(common | fields).encode(), fields.get("workspace_id"))
        return request_id

    async def ask(self, scenario: str, **fields: Any) -> Response:
        request_id = await self.publish(scenario, **fields)
        found: Response = await eventually(lambda: self.response(request_id), what=f"an answer to {scenario}")
        self.latest = request_id
        return found


@pytest.fixture
async def run(stack: DevStack, settings: Settings, tmp_path: Path) -> AsyncIterator[Run]:
    marks = Marks()
    searched = (*SEARCHED_TOPICS, *ONLY_HEADERS, topics.RESPONSES, topics.REQUESTS)
    servers = settings.kafka_bootstrap_servers
    async with repeating(marks) as parrot, collecting() as collector, reading(servers, *searched) as consumer:
        running = Run(stack, settings, marks, parrot, collector, tmp_path)
        running.producer = AIOKafkaProducer(bootstrap_servers=servers)
        await running.producer.start()
        hearing = asyncio.create_task(_collect(consumer, running.records))
        try:
            yield running
        finally:
            hearing.cancel()
            await running.producer.stop()


async def _collect(consumer: AIOKafkaConsumer, into: list[ConsumerRecord]) -> None:
    while True:
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            into += batch


async def test_no_key_and_no_text_is_told_to_anybody_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    await in_one_month(150)
    with at_work(run, 1, "DEBUG") as worker:
        async with a_door_and_a_page(run, "DEBUG") as (door, page):
            await asyncio.to_thread(worker.wait_ready, 90)
            await everything_happens(run, door, page)
            await look_around(run, worker, page)
        await stop_in_the_middle(run, worker, cut_off=True)
    with at_work(run, 2, DEFAULT) as worker:
        async with a_door_and_a_page(run, DEFAULT) as (door, page):
            await commands(run, monkeypatch)
            await asyncio.to_thread(worker.wait_ready, 90)
            await most_of_it_happens(run, door, page)
            await look_around(run, worker, page)
        await stop_in_the_middle(run, worker, cut_off=False)
    surfaces = {place: text for find in SURFACES for place, text in (await find(run)).items()}
    assert_planted(run, surfaces)
    told = {place: found for place, text in surfaces.items() if (found := run.marks.found_in(text))}
    assert told == {}, "who may read these has read what is marked"
    assert_each_line_names_its_request(run)


# What runs, and what happens ------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_door_and_a_page(run: Run, level: str) -> AsyncIterator[tuple[OpenDoor, OpenPage]]:
    told = environment(run, level)
    with ExitStack() as things:
        door, page = await asyncio.gather(
            asyncio.to_thread(things.enter_context, serving(run.stack, **told)),
            asyncio.to_thread(things.enter_context, serving_page(run.stack, **told)),
        )
        run.logs |= {f"log of {one.process.name}, {level}": LogPart(one.process.log, 0) for one in (door, page)}
        yield door, page


@contextmanager
def at_work(run: Run, number: int, level: str) -> Iterator[Child]:
    """A worker, on its way to be ready."""
    worker = run.stack.worker(number, **environment(run, level))
    run.logs[f"log of {worker.name}, {level}"] = LogPart.from_now_on(worker.log)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def environment(run: Run, level: str) -> dict[str, str]:
    return secrets(run) | ({} if level == DEFAULT else {"AI_LOG_LEVEL": level})


def secrets(run: Run) -> dict[str, str]:
    """The processes' settings: every secret that can be set is marked."""
    file = run.folder / "openai.key"
    if not file.exists():
        file.write_text(f"{run.marks['openai-key-old']}\n")
    return {
        **WIDE_LANES,
        "AI_LANE_SHARDS": "1",  # Each act's failures and the answers that end their row meet in one circuit.
        **run.parrot.environment(),
        "AI_TRACE_ENDPOINT": run.collector.endpoint,
        "AI_TRACE_SAMPLING_RATE": "1",
        "AI_CLAUDE_API_KEY": f"{run.marks['claude-key']},{run.marks['claude-key-second']}",
        "AI_OPENAI_API_KEY": "",
        "AI_OPENAI_API_KEY_FILE": str(file),
        "AI_PERPLEXITY_API_KEY": run.marks["perplexity-key"],
        "AI_WEB_TOKEN": run.marks["web-token"],
        "AI_AVAILABILITY_INTERVAL": "1",
        "AI_RETRY_ATTEMPTS": "2",
        "AI_RETRY_DELAY": "0.05",
        "AI_DRAIN_TIMEOUT": "2",
        # Of the stack's own, which made them up itself.
        **{f"AI_{name}": run.marks.setdefault(name, run.stack.environment()[f"AI_{name}"]) for name in PASSWORDS},
    }


PASSWORDS = ("CLICKHOUSE_PASSWORD", "CLICKHOUSE_READER_PASSWORD")


async def everything_happens(run: Run, door: OpenDoor, page: OpenPage) -> None:
    await success(run)
    rotate_key(run)
    await refusals(run, *ACTS)
    await refused_texts(run)
    await what_is_no_event(run)
    await ends_without_an_answer(run)
    await through_the_door(run, door)
    await at_the_page(run, page)


async def most_of_it_happens(run: Run, door: OpenDoor, page: OpenPage) -> None:
    """What is logged at the default level is logged at DEBUG as well: this is to see that it is so."""
    await success(run)
    await refusals(run, "refuse-400", "refuse-500", "shapeless")
    await what_is_no_event(run)
    await through_the_door(run, door)
    await at_the_page(run, page)


def conversation(run: Run, act: str = "answer") -> dict[str, Any]:
    """A request with a mark in each field that holds a text."""
    text, call = run.marks.text, {"name": "look", "arguments": json.dumps({"of": run.marks.text("arguments")})}
    function = {"name": "look", "description": text("tool"), "parameters": {"type": "object", "properties": {}}}
    return {
        "system": text("system"),
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": text("part", act)}]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c1", "content": text("tool-result")},
            {"role": "user", "content": text("message", act)},
        ],
        "tools": [{"type": "function", "function": function}],
        "stop": [run.marks["stop-sequence"]],
        "cache": {"key": run.marks["cache-name"] + unique("")},
        "metadata": {"note": run.marks["metadata"]},
        "provider_options": {"openai": {"metadata": {"note": run.marks["option"]}}},
    }


async def success(run: Run) -> None:
    for provider in ("openai", "claude"):
        answer = await run.ask(f"success-{provider}", preferred_providers=[provider], **conversation(run))
        assert (answer.status, answer.provider) == ("succeeded", provider), answer.error
        assert run.marks["answer"] in (answer.content or "")
    streamed = {"stream": True, "reply_to": topics.REPLIES, "preferred_providers": ["openai"]}
    assert (await run.ask("stream", prompt=run.marks.text("prompt"), **streamed)).status == "succeeded"
    assert (await run.ask("embedding", kind="embedding", input=[run.marks.text("input")])).status == "succeeded"
    assert (await run.ask("search", kind="search", query=run.marks.text("query"))).search_results


def rotate_key(run: Run) -> None:
    (run.folder / "openai.key").write_text(f"{run.marks['openai-key']}\n")


ACTS = ("refuse-400", "refuse-401", "refuse-500", "noise", "shapeless", "refuse-429")


async def refusals(run: Run, *acts: str) -> None:
    """Each of them is told by all providers in turn, with the request and all keys in it."""
    used = lambda: any(run.marks["openai-key"] in one for one in run.parrot.heard)  # noqa: E731
    await eventually(used, what="the new key of the file is used")
    for act in acts:
        answer = await run.ask(act, preferred_providers=["openai"], **conversation(run, act))
        assert answer.status == "failed", act
        await success_again(run)


async def refused_texts(run: Run) -> None:
    """Other kinds of requests, and streams."""
    for kind, fields in (("embedding", {"input": "input"}), ("search", {"query": "query"})):
        told = {name: run.marks.text(place, "refuse-400") for name, place in fields.items()}
        answer = await run.ask(f"refused-{kind}", kind=kind, **told)
        assert answer.error is not None
        assert "[prompt]" in answer.error.message, "what it says of the text is left out, and nothing else"
    streamed = {"stream": True, "reply_to": topics.REPLIES, "preferred_providers": ["openai"]}
    for act in ("breaks", "refuse-503"):
        assert (await run.ask(f"stream-{act}", prompt=run.marks.text("prompt", act), **streamed)).status
        await success_again(run)


async def success_again(run: Run) -> None:
    """Circuits stay closed: a text or a search that only one provider can answer would wait for its probe."""
    for provider in ("openai", "claude"):
        assert (await run.ask("well", prompt=unique("well"), preferred_providers=[provider])).provider == provider
    assert (await run.ask("well", kind="search", query=unique("well"))).status == "succeeded"


async def what_is_no_event(run: Run) -> None:
    mark = run.marks
    wrong: list[tuple[str, bytes]] = [
        (topics.REQUESTS, b'{"prompt": "' + mark["not-json"].encode()),
        (topics.REQUESTS, json.dumps([mark["list"]]).encode()),
        (topics.REQUESTS, json.dumps({"prompt": {"deep": mark["wrong-type"]}}).encode()),
        (topics.REQUESTS, json.dumps({"messages": [{"role": "nobody", "content": mark["wrong-role"]}]}).encode()),
        (topics.REQUESTS, json.dumps({"kind": "telepathy", "prompt": mark["wrong-kind"]}).encode()),
        (topics.REQUESTS, json.dumps({"prompt": mark["too-long"] * 43_000}).encode()),
        (topics.REPORTS, b'{"content": "' + mark["report"].encode()),
        (topics.USAGE, b'{"content": "' + mark["usage"].encode()),
        (topics.dispatch_topic("openai"), b'{"admitted": "' + mark["command"].encode()),
        (topics.CANCELLATIONS, b'{"request_id": "' + mark["cancellation"].encode()),
    ]
    buried = len(run.of(topics.DEAD_LETTERS)) + len(wrong) - 1  # A cancellation that is none is left aside.
    for topic, value in wrong:
        await run.send(topic, value)
    await eventually(lambda: len(run.of(topics.DEAD_LETTERS)) >= buried, what="all are in the dead letters")


async def ends_without_an_answer(run: Run) -> None:
    asked = conversation(run, "slow") | {"preferred_providers": ["claude"]}
    later = {"kind": "completion", "prompt": run.marks.text("late", "slow"), "preferred_providers": ["openai"]}
    poor = f"{run.name}-poor"
    for amount, workspace, action in ((Decimal("0.000001"), poor, "refuse"), (Decimal("0.0000001"), run.name, "alert")):
        change = BudgetChange(workspace_id=workspace, amount=amount, action=action)
        await run.send(topics.BUDGETS, encode(change), workspace)
    late = asyncio.create_task(run.ask("late", deadline=_soon(), **later))
    request_id = await run.publish("cancelled", **asked)
    await eventually(lambda: run.parrot.slow, what="the slow call is there")
    cancel = {"request_id": request_id, "workspace_id": run.name}
    await run.send(topics.CANCELLATIONS, json.dumps(cancel).encode())
    await eventually(lambda: run.response(request_id), what="it is cancelled")
    assert (await late).status in ("expired", "failed")

    async def refused() -> bool:
        answer = await run.ask("budget", prompt=run.marks.text("poor"), workspace_id=poor)
        return answer.error is not None and answer.error.code == "budget_exceeded"

    await eventually(refused, what="the budget is known")
    await eventually(
        lambda: any("/hook/" in one for one in run.parrot.heard), within=40, what="an alert is sent to the webhook"
    )


def _soon() -> str:
    return (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()


async def through_the_door(run: Run, door: OpenDoor) -> None:
    made = await spillway("keys", "create", "-w", run.name, "--json", stack=run.stack)
    key = run.marks["door-key"] = json.loads(made)["key"]

    def ask(path: str, body: Any, sent: str = "", **headers: str) -> tuple[int, Any]:
        status, told, answer = door.ask("POST", path, body, **bearer(sent or key), **headers)
        run.hear("headers of the door", told)
        run.hear("ids of the door", told.get("x-request-id", ""))
        if status != 200:
            run.hear("errors of the door", answer)
        return status, answer

    await door.knows(key)
    chat = {"model": "gpt-4o-mini", "messages": conversation(run)["messages"], "user": "someone"}
    refused = {**chat, "messages": conversation(run, "refuse-400")["messages"]}
    for body, status in ((chat, 200), (chat | {"stream": True}, 200), (refused, 502), (b'{"x": "mark-', 400)):
        assert (await asyncio.to_thread(ask, "/v1/chat/completions", body))[0] in (status, 400), body
    await asyncio.to_thread(ask, "/v1/chat/completions", refused | {"stream": True})
    await asyncio.to_thread(ask, "/v1/embeddings", {"model": "default", "input": run.marks.text("input")})
    await asyncio.to_thread(ask, "/v1/nothing", chat)
    await asyncio.to_thread(ask, "/v1/chat/completions", {**chat, "messages": [run.marks["no-message"]]})
    assert (await asyncio.to_thread(ask, "/v1/chat/completions", chat, run.marks["wrong-door-key"]))[0] == 401


async def at_the_page(run: Run, page: OpenPage) -> None:
    def visit() -> None:
        for token, status in ((run.marks["wrong-web-token"], 401), (run.marks["web-token"], 303)):
            answer = page.log_in(token)
            assert answer.status_code == status
            run.hear("page", answer.headers, answer.text)
        place, origin = run.marks["wrong-place"][:8], {"origin": page.address}
        answer = page.http.post("/letters/redrive", data={"place": place}, headers=origin)
        assert answer.status_code == 400, "it is let in, and there is no such letter"
        run.hear("page", answer.headers, answer.text)

    await asyncio.to_thread(visit)


async def look_around(run: Run, worker: Child, page: OpenPage) -> None:
    """What the processes say of themselves when all has happened."""
    address = "http://" + (run.stack.folder / worker.name / "ops").read_text().strip()
    async with httpx.AsyncClient(base_url=address, timeout=30) as ops:
        for path in ("/metrics", "/health", "/ready", "/nothing"):
            answer = await ops.get(path)
            run.hear("what a worker tells of itself", answer.text, answer.headers)

    def shown() -> bool:
        parts = [page.http.get(path) for path in ("/", "/live", "/health", "/page.js")]
        run.hear("page", *[part.text for part in parts], *[part.headers for part in parts])
        return run.latest in parts[0].text

    await eventually(lambda: asyncio.to_thread(shown), every=0.5, what="the page shows the latest of all requests")


async def stop_in_the_middle(run: Run, worker: Child, *, cut_off: bool) -> None:
    """SIGTERM with a call in flight: the first one is cut off, and the next worker finds its mark; the second ends."""
    run.parrot.slow.clear()
    prompt = f"{run.marks.text('stopped', 'slow')} {unique('stop')}"
    await run.publish("sigterm", prompt=prompt, preferred_providers=["claude"])
    await eventually(lambda: run.parrot.slow, what="the call is made")
    worker.ask_to_stop()
    if not cut_off:
        run.parrot.release.set()
    assert await asyncio.to_thread(worker.stop), "the worker did not stop by itself"


# What is told, and who could read it ----------------------------------------------------------------------------------


async def spillway(*arguments: str, stack: DevStack) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_STACK_DIR", str(stack.folder))
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "250")
        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return str(result.output)


async def commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people at a terminal see. `tail`, `dlq show --body` and an answer itself show content: not these."""
    for name, value in secrets(run).items():
        monkeypatch.setenv(name, value)
    today = _soon()[:10]
    place = (await spillway("dlq", "list", "--json", stack=run.stack)).split('"place": "')[1].split('"')[0]
    for line in (
        "status",
        "lanes --json",
        "limits",
        "providers",
        "keys list",
        "budget list",
        "dlq list -n 100",
        "dlq list --json",
        f"dlq show {place}",
        f"audit -w {run.name} --json",
        f"report {run.name}",
        "report --all --json",
        f"replay --from {today} --to {today}T23:59:00Z --filter workspace_id={run.name} --again",
        f"simulate --month {today[:7]} -w {run.name}",
    ):
        run.hear(f"spillway {line.split()[0]}", await spillway(*line.split(), stack=run.stack))


async def logs(run: Run) -> dict[str, str]:
    """What each process has printed, and the servers beside them."""
    servers = {f"log of {name}": LogPart(run.stack.log(name), 0) for name in ("kafka", "clickhouse", "simulator")}
    return {place: log.text() for place, log in {**run.logs, **servers}.items()}


async def said(run: Run) -> dict[str, str]:
    return {place: "\n".join(texts) for place, texts in run.said.items()}


async def records(run: Run) -> dict[str, str]:
    """What stands in the topics beside content: their headers and keys, and what is about requests and not of them."""
    found = {f"records of {topic}": _text(run.of(topic), lambda r: r.value) for topic in SEARCHED_TOPICS}
    found[f"records of {topics.USAGE}"] = _text(
        run.of(topics.USAGE), lambda r: r.value if (r.value or b"").endswith(b"}") else b""
    )
    found[f"records of {topics.CANCELLATIONS}"] = _text(run.of(topics.CANCELLATIONS), lambda _: b"")
    found |= {f"headers of {topic}": _text(run.of(topic), lambda _: b"") for topic in ONLY_HEADERS}
    return found | {"responses without their content": _text(run.of(topics.RESPONSES), _without_content)}


def _text(found: list[ConsumerRecord], value: Callable[[ConsumerRecord], bytes | None]) -> str:
    return "\n".join(f"{record.key!r} {record.headers!r} {(value(record) or b'')!r}" for record in found)


def _without_content(record: ConsumerRecord) -> bytes:
    body = json.loads(record.value)
    return json.dumps({name: part for name, part in body.items() if name not in CONTENT}).encode()


async def tables(run: Run) -> dict[str, str]:
    """All rows of all tables: by default no content is kept."""
    async with ClickHouse(run.settings) as database:

        async def has_the_last() -> bool:
            found = await database.query("SELECT request_id FROM outcomes")
            return (run.latest,) in found.rows

        await eventually(has_the_last, what="the ledger has all of it")
        names = await database.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
        return {
            f"table {name}": (await database.raw(f"SELECT * FROM {name}", "JSONEachRow")).decode()  # noqa: S608
            for (name,) in names.rows
        }


async def spans(run: Run) -> dict[str, str]:
    """Traces of all processes, as the collector got them."""
    return {"spans": "\n".join(body.decode(errors="replace") for body in run.collector.received)}


SURFACES: tuple[Callable[[Run], Awaitable[dict[str, str]]], ...] = (logs, said, records, tables, spans)


def assert_planted(run: Run, surfaces: dict[str, str]) -> None:
    """The search would find something: every mark was sent, and each place tells of these requests."""
    heard = "\n".join(run.parrot.heard)
    answered = "\n".join(str(record.value) for record in run.records)
    own = {"webhook", "web-token", "wrong-web-token", "wrong-place", "door-key", "wrong-door-key", "no-message"}
    unsent = {*own, *PASSWORDS, "cache-name"}
    planted = run.marks.found_in(heard.replace("\\", "")) | run.marks.found_in(answered.replace("\\", "")) | unsent
    assert planted == set(run.marks), "each mark has gone where it belongs"
    for place in (*run.logs, *run.said, f"records of {topics.LANES}", f"headers of {topics.DEAD_LETTERS}"):
        assert surfaces[place], f"nothing was read of: {place}"
    ours = (
        "page",
        "spans",
        "responses without their content",
        f"records of {topics.USAGE}",
        "table attempts",
        "table outcomes",
    )
    for place in (*ours, "spillway audit", "spillway report"):
        assert run.name in surfaces[place], f"nothing of these requests was read of: {place}"


def assert_each_line_names_its_request(run: Run) -> None:
    """A request is found in the logs by its id, in a field of its own, at both levels."""
    told: dict[tuple[str, str], set[str]] = {}
    for place, log in run.logs.items():
        who = f"{place.split()[2].split('-')[0]}, {place.split(', ')[1]}"
        for line in log.text().splitlines():
            entry = json.loads(line)
            if "request_id" in entry:
                told.setdefault((who, entry["event"].split(":")[0]), set()).add(entry["request_id"])
    for event in ("request_admitted", "attempt_started", "request_answered"):
        assert run.asked["refused-search"] in told["worker, DEBUG", event]
    for level in ("DEBUG", DEFAULT):
        assert told[f"worker, {level}", "request_refused"]
        of_the_door = told[f"door, {level}", "http"] | told[f"door, {level}", "http_refused"]
        assert of_the_door & set(run.said["ids of the door"])
    assert run.asked["refuse-429"] in told["worker, DEBUG", "attempt_failed"]
    assert run.asked["refuse-500"] in told[f"worker, {DEFAULT}", "attempt_failed"]
