"""A Kafka broker that lets nobody in without TLS and a login, and ClickHouse behind TLS; certificates made for the run.

Listeners of the broker: `LOGIN` (SASL_SSL with SCRAM-SHA-512), `OTHER` (SASL_SSL with the other mechanisms) and `CERT`
(SSL with a certificate of the client, whose common name is the principal); there is no plain one. The authorizer
refuses what no ACL allows.

The engine out of the chdb wheel starts no listener with TLS ("SYSTEM START/STOP LISTEN in clickhouse-local supports
only TCP and HTTP listeners"): a small proxy in front of it ends the TLS, and asks for a certificate.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from app.devstack import clickhouse, kafka, ports, simulator
from app.devstack.child import Child, wait_all_ready
from app.devstack.ports import HOST
from app.kafka import Cluster, admin_client
from app.security import KafkaSecurity
from app.settings import Settings, load_settings
from streams.access import Grant

#: Who has a login; `admin` may do everything, the others what ACLs allow.
USERS = ("admin", "worker", "client", "producer", "door", "page", "operator", "nobody", "newcomer")

#: Kafka's own numbers. Source: org.apache.kafka.common.acl.AclOperation, AclPermissionType; resource.ResourceType,
#: PatternType.
_OPERATIONS = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Delete": 6,
    "Alter": 7,
    "Describe": 8,
    "DescribeConfigs": 10,
    "AlterConfigs": 11,
}
_RESOURCES = {"topic": 2, "group": 3, "transactional-id": 5}
_LITERAL, _PREFIXED = 3, 4
_ALLOW = 3


class _CreateAcls(CreateAclsRequest):  # type: ignore[misc]
    """aiokafka's own makes one at a time."""

    def __init__(self, creations: list[tuple[int, str, int, str, str, int, int]]) -> None:
        self._creations = creations

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._creations)


@dataclass
class Certificates:
    """An authority, and what it has signed."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def make(self, *names: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        for name in names:
            made = self.authority.issue_cert(HOST, "localhost", common_name=name)
            # Kafka reads PKCS#8 only.
            key = load_pem_private_key(made.private_key_pem.bytes(), None)
            self.key(name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            self.certificate(name).write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
            self.both(name).write_bytes(self.key(name).read_bytes() + self.certificate(name).read_bytes())

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def both(self, name: str) -> Path:
        return self.folder / f"{name}.both.pem"


class TlsProxy:
    """Ends TLS in front of a plain port, in a thread of its own; without a certificate of ours nobody comes through."""

    def __init__(self, port: int, target: int, certificates: Certificates) -> None:
        self._port = port
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca_file))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(certificates.certificate("server"), certificates.key("server"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        serving = asyncio.start_server(self._carry, HOST, self._port, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, self._target)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


class SecurePlant:
    """The services, started and stopped; `environment` is what a process of a user needs to know."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = Certificates(folder / "certificates")
        self.passwords = {user: secrets.token_urlsafe(12) for user in USERS}
        names = ("login", "other", "cert", "controller", "clickhouse", "plain_clickhouse", "simulator")
        self.ports = {name: ports.choose(0, name) for name in names}
        self.login = clickhouse.Login(secrets.token_urlsafe(12), secrets.token_urlsafe(12), "secure")
        self.parts: list[Child] = []

    def start(self) -> None:
        self.certificates.make("broker", "server", *USERS)
        kafka.fetch()
        self.parts = [
            self._broker(),
            clickhouse.engine(
                self.folder / "clickhouse", self.ports["plain_clickhouse"], self.login, self._log("clickhouse")
            ),
            simulator.server(self.ports["simulator"], self._log("simulator")),
        ]
        self._proxy = TlsProxy(self.ports["clickhouse"], self.ports["plain_clickhouse"], self.certificates)
        self._proxy.start()
        for part in self.parts:
            part.start()
        wait_all_ready(self.parts, 60)

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.stop()
        self._proxy.stop()

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    # Kafka ---------------------------------------------------------------------------------------------------------

    @property
    def servers(self) -> str:
        return f"{HOST}:{self.ports['login']}"

    def security(self, user: str, /, **other: str | Path | None) -> KafkaSecurity:
        values = {
            "protocol": "SASL_SSL",
            "ca_file": self.certificates.ca_file,
            "user": user,
            "password": self.passwords[user],
        }
        return KafkaSecurity(**{**values, **other})  # type: ignore[arg-type]

    def cluster(self, user: str) -> Cluster:
        return Cluster(self.servers, self.security(user).options)

    async def allow(self, given: Mapping[str, Iterable[Grant]]) -> None:
        """Make the ACLs of these users; exactly these."""
        creations = [
            (
                _RESOURCES[grant.resource],
                grant.name,
                _PREFIXED if grant.prefixed else _LITERAL,
                f"User:{user}",
                "*",
                _OPERATIONS[operation],
                _ALLOW,
            )
            for user, grants in given.items()
            for grant in grants
            for operation in grant.operations
        ]
        async with admin_client(self.cluster("admin")) as admin:
            answer = await admin._send_request(_CreateAcls(creations))
            assert {code for code, _ in answer.creation_responses} == {0}, answer

    def refusals(self, user: str) -> list[str]:
        """What the broker has refused to a principal, by its log."""
        log = self._log("kafka").read_text(encoding="utf-8", errors="replace")
        return [line for line in log.splitlines() if f"User:{user} is Denied" in line]

    def acl_tool(self, arguments: str) -> subprocess.CompletedProcess[str]:
        """Kafka's own program for ACLs, as the administrator."""
        config = self.folder / "admin.properties"
        config.write_text(
            f"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\n"
            f"ssl.truststore.location={self.certificates.ca_file}\n"
            "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
            f'username="admin" password="{self.passwords["admin"]}";\n'
        )
        to = ["--bootstrap-server", self.servers, "--command-config", str(config)]
        tool = [*kafka.java(self.folder, "-Xmx128m"), "org.apache.kafka.tools.AclCommand"]
        return subprocess.run([*tool, *to, *arguments.split()], capture_output=True, text=True, timeout=60, check=False)

    def _broker(self) -> Child:
        state = self.folder / "kafka"
        state.mkdir(parents=True)
        properties = state / "server.properties"
        properties.write_text(self._properties(state / "data"))
        scram = [
            f"{mechanism}=[name={user},password={password}]"
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for user, password in self.passwords.items()
        ]
        kafka.prepare(state, properties, *(word for each in scram for word in ("--add-scram", each)))
        command = [*kafka.java(state, "-Xmx512m"), "kafka.Kafka", str(properties)]
        with (state / "log4j2.properties").open("a") as logging:
            # Every refusal is in the log, with the principal and what it wanted.
            logging.write("\nlogger.refusals.name=kafka.authorizer.logger\nlogger.refusals.level=info\n")
        return Child(
            name="kafka",
            command=command,
            log=self._log("kafka"),
            ready=self._answers,
            cwd=state,
            grace=30.0,
        )

    def _answers(self) -> bool:
        async def ask() -> None:
            # An open port first: a client would log that there is none.
            (await asyncio.open_connection(HOST, self.ports["login"]))[1].close()
            async with admin_client(self.cluster("admin")) as admin:
                await admin.list_topics()

        try:
            asyncio.run(asyncio.wait_for(ask(), 5))
        except Exception:  # noqa: BLE001 - whatever it is, it is not ready
            return False
        return True

    def _properties(self, data: Path) -> str:
        login, other, cert, controller = (
            f"//{HOST}:{self.ports[name]}" for name in ("login", "other", "cert", "controller")
        )
        plain = " ".join(f'user_{user}="{password}"' for user, password in self.passwords.items())
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{HOST}:{self.ports["controller"]}
listeners=LOGIN:{login},OTHER:{other},CERT:{cert},CONTROLLER:{controller}
advertised.listeners=LOGIN:{login},OTHER:{other},CERT:{cert}
listener.security.protocol.map=LOGIN:SASL_SSL,OTHER:SASL_SSL,CERT:SSL,CONTROLLER:SSL
controller.listener.names=CONTROLLER
inter.broker.listener.name=CERT
ssl.keystore.type=PEM
ssl.keystore.location={self.certificates.both("broker")}
ssl.truststore.type=PEM
ssl.truststore.location={self.certificates.ca_file}
listener.name.cert.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/
listener.name.login.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.other.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN
listener.name.login.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.other.scram-sha-256.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.other.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required {plain};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:broker
allow.everyone.if.no.acl.found=false
log.dirs={data}
num.network.threads=2
num.io.threads=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes={kafka.MAX_RECORD_BYTES}
replica.fetch.max.bytes={kafka.MAX_RECORD_BYTES}
"""

    # Processes -----------------------------------------------------------------------------------------------------

    def environment(self, user: str, **other: str) -> dict[str, str]:
        """The AI_* variables of a user's process."""
        certificates = self.certificates
        return {
            "AI_KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "AI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "AI_KAFKA_CA_FILE": str(certificates.ca_file),
            "AI_KAFKA_USER": user,
            "AI_KAFKA_PASSWORD": self.passwords[user],
            "AI_CLICKHOUSE_URL": f"https://{HOST}:{self.ports['clickhouse']}",
            "AI_CLICKHOUSE_CA_FILE": str(certificates.ca_file),
            "AI_CLICKHOUSE_CERTIFICATE_FILE": str(certificates.certificate(user)),
            "AI_CLICKHOUSE_KEY_FILE": str(certificates.key(user)),
            "AI_CLICKHOUSE_DATABASE": clickhouse.DATABASE,
            "AI_CLICKHOUSE_USER": clickhouse.USER,
            "AI_CLICKHOUSE_PASSWORD": self.login.password,
            "AI_PARTITIONS": "2",
            "AI_OPS_PORT": "0",
            **other,
        }

    def settings(self, user: str, **other: str) -> Settings:
        variables = self.environment(user, **other)
        return load_settings(**{name.removeprefix("AI_").lower(): value for name, value in variables.items()})

    def run(self, user: str, *arguments: str, **other: str) -> subprocess.CompletedProcess[str]:
        """One of Spillway's commands, as a user, to its end."""
        environment = {**_inherited(), **self.environment(user, **other)}
        command = [sys.executable, "-m", "app.cli.main", *arguments]
        # In a folder without a `.env` and without a stack.
        return subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def process(self, name: str, user: str, *arguments: str, **other: str) -> Child:
        """One of Spillway's programs as a user, that goes on running. Not started yet."""
        data = self.folder / name
        providers = simulator.variables(["claude", "openai", "perplexity"], self.ports["simulator"])
        own = self.environment(user, AI_DATA_DIR=str(data), **providers, **other)
        return Child(
            name=name,
            command=[sys.executable, "-m", "app.cli.main", *arguments],
            log=self._log(name),
            ready=(data / "ready").exists,
            ready_file=data / "ready",
            cwd=self.folder,
            environment={**_inherited(), **own},
            grace=90.0,
        )


def _inherited() -> dict[str, str]:
    """Neither the developer's settings nor keys; the project on the path, wherever the process runs."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("AI_")}
