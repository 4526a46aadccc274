"""TLS, logins and ACLs on the real broker, and TLS before the real engine: who may come in works, who may not is told.

Every role is a process, or a client, with exactly what `spillway acls` lists for it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.errors import TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed

from app.cli.acls import as_commands
from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.client import ConnectionLostError, RequestRejected, SpillwayClient, SpillwayError
from app.devstack.child import Child
from app.devstack.ports import HOST, choose
from app.dlq.desk import LetterDesk
from app.dlq.letters import Wanted
from app.kafka import Cluster, KafkaUnavailableError, admin_client
from app.topics import build_topology
from schemas.response import Status
from streams.access import ROLES, Grant, grants
from streams.runtime.outbox import kafka_producer
from streams.topology import CONTROL, REQUESTS
from tests.support.clock.waiting import eventually
from tests.support.stack.gateway import bearer
from tests.support.stack.secured import SecurePlant

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

#: Seconds within which whoever is not let in must know why.
SOON = 20.0


def ended(process: Child) -> bool:
    return process.exit_code() is not None


@pytest.fixture(scope="module")
def plant(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecurePlant]:  # noqa: ARG001
    """The services, with the ACLs of each role, topics made by the operator, and tables."""
    running = SecurePlant(tmp_path_factory.mktemp("secure"))
    try:
        running.start()
        topology = build_topology(running.settings("admin"))

        asyncio.run(running.allow({role: grants(topology, role) for role in ROLES}))
        with ThreadPoolExecutor() as pool:
            for done in pool.map(lambda command: running.run("operator", command), ("topics", "migrate")):
                assert done.returncode == 0, done.stderr
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def worker(plant: SecurePlant) -> Iterator[Child]:
    """A worker with all that it can have to do: content, alerts from the first cent on, a webhook."""
    everything = {
        "AI_STORE_CONTENT": "true",
        "AI_MONTHLY_BUDGET_USD": "0.00001",
        "AI_ALERT_WEBHOOK_URL": f"http://{HOST}:1/nobody",
    }
    running = plant.process("worker-1", "worker", "worker", **everything)
    running.start()
    try:
        running.wait_ready(60)
        yield running
    finally:
        assert running.stop(), running.last_words()


def client(plant: SecurePlant, user: str = "client", **other: str | None) -> SpillwayClient:
    return SpillwayClient(plant.servers, workspace_id="acme", timeout=30, security=plant.security(user, **other))


@pytest.mark.usefixtures("worker")
async def test_a_request_goes_all_the_way_with_nothing_but_the_listed_grants(plant: SecurePlant) -> None:
    async with client(plant) as spillway:
        answer = await spillway.complete("Is the door locked?")
        assert answer.status is Status.SUCCEEDED
        async with spillway.stream("And the window?") as pieces:
            assert "".join([piece.content async for piece in pieces])
        assert (await spillway.result(answer.request_id)).content == answer.content
    # A record that is no request makes a dead letter, and each cent an alert.
    producer = plant.cluster("producer").producer()
    await producer.start()
    await producer.send_and_wait(REQUESTS, b"no JSON")
    await producer.stop()
    settings = plant.settings("operator")

    async def count(table: str) -> int:
        async with ClickHouse(settings) as database:
            return int((await database.query(f"SELECT count() FROM {table}")).rows[0][0])  # noqa: S608

    await eventually(lambda: count("ledger"), within=30, what="the attempts are in the ledger")
    await eventually(lambda: count("alerts"), within=30, what="the alerts are, too")
    await eventually(lambda: count("contents"), within=30, what="and what was asked")
    port = int((plant.folder / "worker-1" / "ops").read_text().rsplit(":", 1)[-1])
    async with httpx.AsyncClient() as web:
        ready = (await web.get(f"http://{HOST}:{port}/ready")).json()
    assert ready == {
        "ready": True,
        "checks": dict.fromkeys(("partitions", "progress", "stages", "clock", "kafka", "clickhouse"), "ok"),
    }
    letters = json.loads(plant.run("operator", "dlq", "list", "--json").stdout)
    assert letters
    assert plant.refusals("client") == []
    assert plant.refusals("worker") == []


@pytest.mark.usefixtures("worker")
def test_the_door_and_the_page_serve_with_their_own_grants(plant: SecurePlant) -> None:
    """The page shows a certificate instead of a password."""
    made = plant.run("operator", "keys", "create", "-w", "acme", "--json")
    key, ports = json.loads(made.stdout)["key"], {name: choose(0, name) for name in ("door", "page")}
    certificates = plant.certificates
    by_certificate = {
        "AI_KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{plant.ports['cert']}",
        "AI_KAFKA_SECURITY_PROTOCOL": "SSL",
        "AI_KAFKA_CERTIFICATE_FILE": str(certificates.certificate("page")),
        "AI_KAFKA_KEY_FILE": str(certificates.key("page")),
        "AI_KAFKA_USER": "",
        "AI_KAFKA_PASSWORD": "",
    }
    door = plant.process("door", "door", "serve", AI_HTTP_PORT=str(ports["door"]))
    page = plant.process("page", "page", "web", AI_WEB_PORT=str(ports["page"]), **by_certificate)
    for each in (door, page):
        each.start()
    try:
        asyncio.run(eventually(lambda: all(map(listens, ports.values())), within=30, what="both listen"))
        body = {"model": "claude-sonnet-5-5", "messages": [{"role": "user", "content": "Who is there?"}]}
        answer = httpx.post(
            f"http://{HOST}:{ports['door']}/v1/chat/completions",
            json=body,
            headers=bearer(key),
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        seen = asyncio.run(eventually(lambda: shown(ports["page"]), within=30, what="the page knows its lanes"))
        assert "does not answer" not in seen
    finally:
        for each in (door, page):
            each.stop()
    assert plant.refusals("door") == []
    assert plant.refusals("page") == []


def listens(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()


def shown(port: int) -> str | None:
    text = httpx.get(f"http://{HOST}:{port}/", timeout=10).text
    return text if "claude" in text and "acme" in text else None


@pytest.mark.parametrize(
    ("user", "variables", "said"),
    [
        ("client", {"AI_KAFKA_PASSWORD": "wrong"}, "refuses the login of the user 'client'; check AI_KAFKA_USER and"),
        ("client", {"AI_KAFKA_CA_FILE": ""}, "certificate that is not trusted"),
        ("client", {"AI_KAFKA_SASL_MECHANISM": "PLAIN"}, "does not take PLAIN"),
        ("client", {"AI_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "AI_KAFKA_CA_FILE": ""}, "hangs up on us"),
        ("nobody", {}, "The topic ai.replies does not exist, or is hidden from this user (`spillway acls`)"),
    ],
)
def test_a_command_that_is_not_let_in_says_why_in_one_sentence(
    plant: SecurePlant, user: str, variables: dict[str, str], said: str
) -> None:
    begun = time.monotonic()
    done = plant.run(user, "ask", "Is anybody there?", **variables)
    assert time.monotonic() - begun < SOON
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert plant.passwords[user] not in done.stderr + done.stdout


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
async def test_the_other_mechanisms_log_in_as_well(plant: SecurePlant, mechanism: str) -> None:
    servers = f"{HOST}:{plant.ports['other']}"
    security = plant.security("client", sasl_mechanism=mechanism)
    async with SpillwayClient(servers, workspace_id="acme", timeout=30, security=security) as known:
        assert (await known.complete(f"Is {mechanism} spoken here?")).status is Status.SUCCEEDED
    wrong = plant.security("client", sasl_mechanism=mechanism, password="wrong")  # noqa: S106
    with pytest.raises(SpillwayError, match="refuses the login of the user 'client'"):
        await SpillwayClient(servers, security=wrong).start()


@pytest.mark.parametrize("kind", ["consumer", "producer", "admin"])
async def test_a_plain_client_is_refused_at_once(plant: SecurePlant, kind: str) -> None:
    plain = SpillwayClient(plant.servers)
    async with asyncio.timeout(SOON):
        with pytest.raises(ConnectionLostError, match="AI_KAFKA_SECURITY_PROTOCOL is PLAINTEXT"):
            await plain.start()
        for port in (plant.ports["login"], plant.ports["cert"]):
            one = getattr(Cluster(f"{HOST}:{port}"), kind)()
            with pytest.raises(Exception, match="Unable to bootstrap"):
                await one.start()
            await (one.close() if kind == "admin" else one.stop())


async def test_a_certificate_that_is_wanted_and_not_shown_is_told(plant: SecurePlant) -> None:
    security = plant.security("page", protocol="SSL", user=None, password=None)
    with pytest.raises(KafkaUnavailableError, match=r"a certificate of ours \(AI_KAFKA_CERTIFICATE_FILE\)"):
        async with admin_client(Cluster(f"{HOST}:{plant.ports['cert']}", security.options)):
            pass


async def test_a_worker_that_is_not_let_in_ends_with_the_reason_in_its_log(plant: SecurePlant) -> None:
    """One has a wrong password; one is somebody who may not see what a worker needs; one may not join the group."""
    given = grants(build_topology(plant.settings("admin")), "worker")
    await plant.allow({"newcomer": [grant for grant in given if grant.resource == "topic"]})
    expected = {
        "worker": "refuses the login of the user 'worker'; check AI_KAFKA_USER and AI_KAFKA_PASSWORD",
        "producer": "does not exist, or is hidden from this user (`spillway acls`)",
        "newcomer": "Kafka does not allow the user 'newcomer' to do this ([Error 30] GroupAuthorizationFailedError",
    }
    refused = {user: plant.process(f"refused-{user}", user, "worker") for user in ("producer", "newcomer")}
    refused["worker"] = plant.process("refused-worker", "worker", "worker", AI_KAFKA_PASSWORD="wrong")  # noqa: S106
    for each in refused.values():
        each.start()
    for user, each in refused.items():
        await eventually(partial(ended, each), within=120, what=f"{user} ends")
        assert each.exit_code() == 1
        log = each.log.read_text()
        assert expected[user] in log
        assert "Traceback" not in log


@pytest.mark.usefixtures("worker")
async def test_a_reply_topic_that_may_not_be_written_holds_up_nothing(plant: SecurePlant) -> None:
    async with admin_client(plant.cluster("admin")) as admin:
        await admin.create_topics([NewTopic("shop.replies", 1, 1)])
    await plant.allow({"worker": [Grant("topic", "shop.replies", ("Describe",))]})
    settings = plant.settings("operator")

    async with client(plant) as spillway:
        seen = await eventually(lambda: asks_for(spillway, "shop.replies"), within=30, what="the topic is seen")
        assert (await spillway.complete("Is anybody held up?")).status is Status.SUCCEEDED

    async def letters() -> list[str]:
        return [letter.message for letter in (await LetterDesk(settings).newest(Wanted(code="reply_undeliverable")))[0]]

    # The answer is given before anybody knows that the reply cannot be.
    told = await eventually(letters, what="it is in the dead letters")
    assert told == ["The reply topic shop.replies may not be written by Spillway."], seen


async def asks_for(spillway: SpillwayClient, reply_topic: str) -> bool:
    """Ask for a reply there, and look for the answer where all are; true once admission has taken the address."""
    [request_id] = await spillway.publish_many([{"prompt": "A reply, please.", "reply_to": reply_topic}])
    try:
        return (await spillway.result(request_id, timeout=20)).status is Status.SUCCEEDED
    except RequestRejected:
        return False


async def test_who_only_publishes_may_neither_steer_nor_read(plant: SecurePlant) -> None:
    cluster = plant.cluster("producer")
    producer = cluster.producer()
    await producer.start()
    try:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(CONTROL, b"{}", key=b"lanes/claude")
    finally:
        await producer.stop()
    paused = await asyncio.to_thread(plant.run, "producer", "lanes", "pause", "claude")
    assert paused.returncode == 1
    assert "Kafka does not allow the user 'producer' to do this" in paused.stderr
    read = await asyncio.to_thread(plant.run, "producer", "tail", "responses")
    assert "The topic ai.responses does not exist, or is hidden from this user" in read.stderr
    assert plant.refusals("producer"), "the broker's log, by which others are known to need no more"


async def test_an_operator_mends_the_tables_with_nothing_but_the_listed_grants(plant: SecurePlant) -> None:
    """In a deployment of its own, in which no worker runs."""
    mended = {"AI_KAFKA_APPLICATION_ID": "mended"}
    topology = build_topology(plant.settings("operator", **mended))
    await plant.allow({"operator": grants(topology, "operator")})
    before = plant.refusals("operator")
    for command in (
        ("topics",),
        ("tables", "--drop", "--yes"),
        ("budget", "restore", "--month", "2031-01"),
        ("refill",),
    ):
        done = await asyncio.to_thread(partial(plant.run, "operator", *command, **mended))
        assert done.returncode == 0, done.stderr
    async with admin_client(plant.cluster("operator")) as admin:
        await admin.create_partitions({REQUESTS: NewPartitions(12)}, validate_only=True)
    assert plant.refusals("operator") == before


@pytest.mark.parametrize("user", ["client", "producer", "door"])
async def test_who_writes_requests_may_not_own_partitions_of_the_tables(plant: SecurePlant, user: str) -> None:
    cluster = plant.cluster(user)
    producer = kafka_producer(cluster.servers, **cluster.options)
    await producer.start()
    try:
        with pytest.raises(TransactionalIdAuthorizationFailed):
            await asyncio.wait_for(producer.take_epoch("spillway-owner-0"), SOON)
    finally:
        await producer.stop()


async def test_kafkas_own_program_takes_the_listed_commands(plant: SecurePlant) -> None:
    """A stranger becomes a publisher by them."""
    stranger = client(plant, "nobody")
    with pytest.raises(SpillwayError, match="hidden from this user"):
        await stranger.start()
    topology = build_topology(plant.settings("nobody"))
    for line in as_commands("User:nobody", grants(topology, "client")):
        done = await asyncio.to_thread(plant.acl_tool, line)
        assert done.returncode == 0, done.stderr + done.stdout

    async def publishes() -> bool:
        try:
            async with client(plant, "nobody") as spillway:
                return bool(await spillway.publish("May I?"))
        except SpillwayError:
            return False

    await eventually(publishes, within=10, what="the grants hold")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AI_CLICKHOUSE_PASSWORD": "wrong"}, "refuses the login of the user 'spillway'; check AI_CLICKHOUSE_USER"),
        ({"AI_CLICKHOUSE_CA_FILE": ""}, "certificate that is not trusted"),
        ({"AI_CLICKHOUSE_CERTIFICATE_FILE": "", "AI_CLICKHOUSE_KEY_FILE": ""}, "want a certificate of ours"),
    ],
)
async def test_clickhouse_behind_tls_lets_in_who_shows_all_that_is_wanted(
    plant: SecurePlant, variables: dict[str, str], said: str
) -> None:
    async with ClickHouse(plant.settings("client", **variables), use_database=False) as database:
        with pytest.raises(ClickHouseError, match=said) as caught:
            await database.query("SELECT 1")
    assert plant.login.password not in str(caught.value)
    async with ClickHouse(plant.settings("client"), use_database=False) as database:
        assert (await database.query("SELECT currentUser()")).rows == [("spillway",)]


async def test_a_server_whose_certificate_is_not_checked_is_a_choice(plant: SecurePlant) -> None:
    trusting = plant.settings("client", AI_CLICKHOUSE_CA_FILE="", AI_CLICKHOUSE_VERIFY="false")
    async with ClickHouse(trusting, use_database=False) as database:
        assert (await database.query("SELECT 1")).rows == [(1,)]


def test_no_process_has_logged_a_password(plant: SecurePlant) -> None:
    secrets = [*plant.passwords.values(), plant.login.password, plant.login.reader_password]
    for log in Path(plant.folder / "logs").glob("*.log"):
        text = log.read_text(encoding="utf-8", errors="replace")
        assert not [secret for secret in secrets if secret in text], log
