"""The page over HTTP, against a real broker and ClickHouse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.cli.wire import producing
from app.clickhouse.ledger import ClickHouseLedger
from app.devstack.stack import DevStack
from app.kafka import cluster_of
from app.settings import Settings
from schemas.budget import BudgetAction, BudgetChange, BudgetState
from schemas.codec import decode, encode
from schemas.control import LaneState, LimitState, Mode, ModeChange
from schemas.dead_letter import DeadLetter, Origin
from schemas.usage import Outcome, Tokens
from streams.account.answered import Answered, AnsweredError, AnsweredUsage
from streams.topology import BUDGET_STATE, BUDGETS, CONTROL, DEAD_LETTERS, LANES, REQUESTS
from tests.support.clock.months import in_one_month
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.dashboard import OpenPage, serving_page
from tests.support.stack.gateway import bearer
from tests.support.values.names import unique
from tests.support.values.usage import usage

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

TOKEN = "a-token-that-nobody-knows"  # noqa: S105 - of this test
SECRET = "what-was-asked-is-nobodys-business"  # noqa: S105 - a prompt
HOSTILE = "<script>alert(1)</script>'\"&"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;&#x27;&quot;&amp;"


@pytest.fixture(scope="module")
def group() -> str:
    """A model group of claude's that no other test knows."""
    return unique("g")


@pytest.fixture(scope="module")
def page(stack: DevStack, group: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    file = tmp_path_factory.mktemp("page") / "spillway.toml"
    file.write_text(f'[providers.claude.groups.{group}]\nmodels = ["x-*"]\nrpm = 10\n')
    with serving_page(stack, AI_SETTINGS_FILE=str(file)) as running:
        yield running


def dead(value: bytes, topic: str = REQUESTS, message: str = HOSTILE) -> DeadLetter:
    headers = (("ce_id", b"7"), ("traceparent", b"00-1-2-03"))
    return DeadLetter(Origin(topic, 2, 17, 1_764_083_045_000), "not_json", message, b"who", value, headers)


async def bury(settings: Settings, letter: DeadLetter) -> None:
    async with producing(cluster_of(settings)) as producer:
        await producer.send_and_wait(DEAD_LETTERS, letter.value, letter.key, headers=list(letter.to_headers()))


@pytest.fixture
async def filled(settings: Settings, group: str) -> AsyncIterator[str]:
    """A workspace with something of everything that the page shows; returns its name."""
    month = await in_one_month(60)
    workspace, now = unique("w"), datetime.now(UTC)
    common: dict[str, Any] = {"workspace_id": workspace, "request_id": f"{workspace}-r", "purpose": HOSTILE}
    ledger = ClickHouseLedger(settings)
    failed = usage(
        workspace, **common, outcome=Outcome.FAILED, error_code="overloaded", cost=Decimal(0), started_at=now
    )
    paid = usage(workspace, **common, attempt=2, model=f"m-{HOSTILE}", cost=Decimal("1.25"), started_at=now)
    await ledger.write([failed.model_copy(update={"tokens": Tokens()}), paid])
    used = AnsweredUsage(prompt_tokens=100, completion_tokens=20, cost=Decimal("1.25"))
    answer = Answered(**common, status="succeeded", provider="openai", usage=used, latency=1.5, answered_at=now)
    refused = {"request_id": f"{workspace}-s", "status": "rejected", "error": AnsweredError(code="budget_exceeded")}
    await ledger.write_outcomes([answer, Answered(**{**common, **refused}, answered_at=now)])
    limits = {name: LimitState(used=3, limit=10) for name in ("rpm", "rph", "tpm", "tph")}
    # A lane that has said nothing for fifteen seconds is silent: this one speaks until the test is over.
    later = now + timedelta(minutes=2)
    lane = LaneState(lane=f"claude:{group}/0", provider="claude", circuit="open", waiting=5, at=later, **limits)
    budget = BudgetChange(workspace_id=workspace, amount=Decimal(10), action=BudgetAction.REFUSE)
    amounts = {"limit": Decimal(10), "spent": Decimal(9), "reserved": Decimal("0.5"), "open_requests": 1}
    state = BudgetState(workspace_id=workspace, month=month, action=BudgetAction.REFUSE, at=now, **amounts)
    for topic, key, event in (
        (LANES, lane.lane, lane),
        (BUDGETS, workspace, budget),
        (BUDGET_STATE, state.key, state),
    ):
        await publish(settings.kafka_bootstrap_servers, topic, [(key.encode(), encode(event))])
    await bury(settings, dead(SECRET.encode()))
    yield workspace
    await publish(settings.kafka_bootstrap_servers, BUDGETS, [(workspace.encode(), None)])
    await publish(settings.kafka_bootstrap_servers, BUDGET_STATE, [(state.key.encode(), None)])
    await ledger.close()


async def shows(page: OpenPage, part: str, what: str) -> str:
    async def there() -> str | None:
        found = await asyncio.to_thread(page.words, part)
        return found if what in found else None

    found: str = await eventually(there, within=60, what=f"{part} shows {what}")
    return found


async def live(page: OpenPage) -> None:
    """Return when the page has nothing to remark."""

    async def is_live() -> bool:
        return not (await asyncio.to_thread(page.live))["notices"]

    await eventually(is_live, within=60, what="the page is live")


async def test_what_kafka_and_clickhouse_know_appears_live(page: OpenPage, filled: str, group: str) -> None:
    budgets = await shows(page, "live-budgets", filled)
    assert "$9.00 spent and $0.5000 reserved of $10.00; $0.5000 left, then refused." in budgets
    lanes = await shows(page, "live-lanes", "circuit open: 5 waiting")
    assert f"claude:{group}" in lanes
    latest = await shows(page, "live-latest", filled)
    for sentence in ("rejected", "budget_exceeded", "failed (overloaded)", "$1.25 computed", f"Request {filled}-r"):
        assert sentence.replace(" ", "") in latest.replace(" ", "")
    assert f"openai m-{HOSTILE}" in await shows(page, "live-costs", HOSTILE)
    letters = await shows(page, "live-letters", HOSTILE)
    assert "ai.requests, partition 2, offset 17" in letters
    flow = await shows(page, "live-flow", "Answers by minute")
    assert "not succeeded" in flow
    await live(page)


async def test_hostile_text_is_escaped_and_no_content_is_shown(page: OpenPage, filled: str) -> None:
    await shows(page, "live-latest", filled)
    await shows(page, "live-letters", HOSTILE)
    answer = page.http.get("/")
    assert SHOWN in answer.text
    assert "<script>alert" not in answer.text
    assert SECRET not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_a_lane_is_paused_and_resumed_by_its_buttons(page: OpenPage, settings: Settings, group: str) -> None:
    target = f"claude:{group}"
    servers = settings.kafka_bootstrap_servers
    try:
        async with reading(servers, CONTROL) as consumer:
            status, told = await asyncio.to_thread(page.press, "/lanes/pause", target=target)
            assert (status, told.partition(":")[0]) == (200, "claude")
            assert f"{target} is paused" in told
            await shows(page, "live-lanes", f"Resume {target}")
            status, told = await asyncio.to_thread(page.press, "/lanes/resume", target=target)
            assert (status, f"{target} is open" in told) == (200, True)
            await shows(page, "live-lanes", f"Pause {target}")
            found = await consume_until(
                consumer, lambda records: len(records) == 2, only=lambda record: record.key == f"mode/{target}".encode()
            )
        assert [decode(ModeChange, record.value).mode for record in found] == [Mode.PAUSED, Mode.OPEN]
    finally:
        await publish(servers, CONTROL, [(f"mode/{target}".encode(), None)])


@pytest.mark.parametrize("target", ["", "nobody", HOSTILE])
def test_a_lane_that_is_none_cannot_be_steered(page: OpenPage, target: str) -> None:
    assert page.press("/lanes/pause", target=target)[0] == 400
    answer = page.http.post("/lanes/pause", data={"target": target}, headers={"origin": page.address})
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize("path", ["/lanes/pause", "/letters/redrive"])
def test_another_sites_button_does_nothing(page: OpenPage, path: str, headers: dict[str, str]) -> None:
    answer = page.http.post(path, data={"target": "claude", "place": "0/0"}, headers=headers)
    assert answer.status_code == 403


def test_by_another_name_the_page_shows_nothing(page: OpenPage) -> None:
    """A site that lets its name point to 127.0.0.1 would be of the same origin as the page."""
    assert page.http.get("/", headers={"host": "evil.example"}).status_code == 403
    assert page.http.get("/live", headers={"host": "evil.example"}).status_code == 401


async def test_a_dead_letter_is_sent_again_as_it_was(page: OpenPage, settings: Settings) -> None:
    value = unique("no json").encode()
    async with reading(settings.kafka_bootstrap_servers, REQUESTS, DEAD_LETTERS) as consumer:
        await bury(settings, dead(value))
        [buried] = await consume_until(consumer, bool, only=lambda record: record.value == value)
        place = f"{buried.partition}@{buried.offset}"
        await shows(page, "live-letters", f"now at {place}")
        status, told = await asyncio.to_thread(page.press, "/letters/redrive", place=place)
        assert (status, told) == (200, f"The dead letter {place} was sent again to ai.requests.")
        [again] = await consume_until(consumer, bool, only=lambda record: record.value == value)
    assert (again.topic, again.partition, again.key) == (REQUESTS, 2, b"who")
    assert again.headers[:2] == (("ce_id", b"7"), ("traceparent", b"00-1-2-03"))
    # Once, whoever presses: also from a page that does not know it yet.
    status, told = await asyncio.to_thread(page.press, "/letters/redrive", place=place)
    assert (status, "it was sent again at" in told) == (400, True)
    await shows(page, "live-letters", "sent again at")


@pytest.mark.parametrize("topic", ["somebody.elses", DEAD_LETTERS])
async def test_a_dead_letter_cannot_have_anything_written_elsewhere(
    page: OpenPage, settings: Settings, topic: str
) -> None:
    value = unique("letter").encode()
    async with reading(settings.kafka_bootstrap_servers, DEAD_LETTERS) as consumer:
        await bury(settings, dead(value, topic))
        [buried] = await consume_until(consumer, bool, only=lambda record: record.value == value)
    status, told = await asyncio.to_thread(page.press, "/letters/redrive", place=f"{buried.partition}@{buried.offset}")
    assert (status, f"no worker reads {topic}" in told) == (400, True)


@pytest.mark.parametrize("place", ["", "nowhere", "0@999999999", "99@0", "9" * 100])
def test_a_letter_that_is_not_there_is_said_to_be_gone(page: OpenPage, place: str) -> None:
    assert page.press("/letters/redrive", place=place)[0] == 400


def test_a_form_that_is_too_large_and_an_address_that_is_none_are_refused(page: OpenPage) -> None:
    headers = {"origin": page.address}
    assert page.http.post("/lanes/pause", content=b"x" * 10_000, headers=headers).status_code == 413
    assert page.http.get("/nothing").status_code == 404
    assert page.http.get("/lanes/pause").status_code == 405


def test_behind_a_token_only_who_has_it_comes_in(stack: DevStack) -> None:
    with serving_page(stack, AI_WEB_TOKEN=TOKEN, AI_WEB_HOST="0.0.0.0") as page:  # noqa: S104 - that is the claim
        http, here = page.http, {"origin": page.address}
        assert (http.get("/").status_code, http.get("/live").status_code) == (401, 401)
        assert "Lanes" not in http.get("/").text
        assert http.post("/lanes/pause", data={"target": "claude"}, headers=here).status_code == 403
        assert page.log_in("wrong").status_code == 401
        assert page.log_in(TOKEN, origin="http://evil.example").status_code == 403
        assert page.live(**bearer(TOKEN))
        assert page.log_in(TOKEN).status_code == 303
        # The cookie that came with it opens now, but not for another site's button.
        assert "Log out" in http.get("/").text
        assert http.post("/lanes/pause", data={"target": "nobody"}, headers=here).status_code == 400
        assert http.post("/lanes/pause", data={"target": "nobody"}).status_code == 403
        assert http.post("/logout", headers=here).status_code == 303
        assert http.get("/live").status_code == 401
        log = page.process.log
    assert TOKEN not in Path(log).read_text()


def test_beyond_loopback_without_a_token_it_does_not_start(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    result = CliRunner().invoke(app, ["web", "--host", "0.0.0.0", "--port", "0"])  # noqa: S104 - it is refused
    assert result.exit_code == 1
    assert "AI_WEB_TOKEN" in result.output


async def test_while_both_are_away_the_page_says_so_and_serves(stack: DevStack) -> None:
    nowhere = {"AI_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "AI_CLICKHOUSE_URL": "http://127.0.0.1:1"}
    with serving_page(stack, **nowhere) as page:
        await shows(page, "notices", "Kafka at 127.0.0.1:1 does not answer")
        await shows(page, "notices", "ClickHouse at http://127.0.0.1:1 does not answer")
        assert page.http.get("/").status_code == 200
        assert page.press("/lanes/pause", target="claude")[0] == 503


async def test_what_was_known_stays_while_clickhouse_is_away_and_is_live_again_after(
    page: OpenPage, stack: DevStack, filled: str
) -> None:
    await shows(page, "live-latest", filled)
    part = stack.parts["clickhouse"]
    part.stop()
    try:
        told = await shows(page, "notices", "ClickHouse")
        assert "Figures and requests are as of" in told
        assert filled in page.words("live-latest")
    finally:
        part.start()
        await asyncio.to_thread(part.wait_ready, 60)
    await live(page)
