"""TLS and SASL: what fits together, what is refused by its variable's name, and that no client is made without it."""

from __future__ import annotations

import ast
import asyncio
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from app.client import SpillwayClient
from app.kafka import Cluster, cluster_of
from app.kafka_refusals import closed, refusal
from app.security import MECHANISMS, PROTOCOLS, KafkaSecurity, SecurityError
from app.settings import Settings, SettingsError, load_settings
from streams.runtime.app import credentials

ROOT = Path(__file__).parents[2]
SECRET = "open-sesame-1001"  # noqa: S105 - a planted one
LOGIN = {"kafka_user": "shop", "kafka_password": SECRET}

#: Whatever talks to Kafka by itself.
CLIENTS = {
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "FencedProducer",
    "AIOKafkaAdminClient",
    "AIOKafkaClient",
    "create_conn",
}
#: What makes clients of them, and must be told how they are let in.
MAKERS = {"kafka_producer", "RuntimeConfig", "SpillwayClient"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An authority, a certificate with its key, and another's key."""
    folder, authority = tmp_path_factory.mktemp("pem"), trustme.CA()
    mine, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    found = {name: folder / f"{name}.pem" for name in ("ca", "certificate", "key", "other", "junk")}
    authority.cert_pem.write_to_path(str(found["ca"]))
    mine.cert_chain_pems[0].write_to_path(str(found["certificate"]))
    mine.private_key_pem.write_to_path(str(found["key"]))
    other.private_key_pem.write_to_path(str(found["other"]))
    found["junk"].write_text("no PEM")
    found["absent"] = folder / "absent.pem"
    return found


@pytest.fixture(scope="module")
def encrypted(files: dict[str, Path]) -> Path:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = serialization.load_pem_private_key(files["key"].read_bytes(), None)
    file = files["key"].with_name("encrypted.pem")
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    return file


def refused(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(**values)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_without_settings_kafka_is_talked_to_plainly() -> None:
    assert cluster_of(load_settings()) == Cluster("127.0.0.1:9092")


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_and_mechanism_becomes_what_aiokafka_and_faust_take(protocol: str, mechanism: str) -> None:
    login = LOGIN if protocol.startswith("SASL") else {}
    settings = load_settings(kafka_security_protocol=protocol, kafka_sasl_mechanism=mechanism, **login)
    options = dict(cluster_of(settings).options)
    assert options.get("security_protocol", "PLAINTEXT") == protocol
    assert ("ssl_context" in options) == protocol.endswith("SSL")
    assert options.get("sasl_mechanism") == (mechanism if login else None)
    assert options.get("sasl_plain_password") == (SECRET if login else None)
    by_faust = {name: value for name, value in credentials_to_aiokafka_auth(credentials(options)).items() if value}
    assert by_faust == {"security_protocol": protocol, **options}


def test_all_clients_share_one_context_which_checks_certificates_and_names(files: dict[str, Path]) -> None:
    settings = load_settings(kafka_security_protocol="SSL", kafka_ca_file=files["ca"])
    first, second = (cluster_of(settings).options["ssl_context"] for _ in range(2))
    assert first is second
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    assert len(first.get_ca_certs()) == 1, "the authority that is named, and not the system's"


@contextmanager
def silent_server(files: dict[str, Path]) -> Iterator[int]:
    """Speaks TLS until it is connected, and never again: it neither answers nor closes. Its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(lambda: context.wrap_socket(listener.accept()[0], server_side=True))
        yield listener.getsockname()[1]
        accepted.result().close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_closing_does_not_wait_for_a_server_that_says_no_goodbye(files: dict[str, Path], new_loop: Any) -> None:
    """The event loops would wait for 30 seconds."""

    async def leave(port: int) -> None:
        context = KafkaSecurity("SSL", ca_file=files["ca"]).options["ssl_context"]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        async with asyncio.timeout(15):
            writer.close()
            await writer.wait_closed()

    with silent_server(files) as port, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(leave(port))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "AI_KAFKA_USER: is missing"),
        ({"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_user": "shop"}, "AI_KAFKA_PASSWORD: is missing"),
        ({"kafka_security_protocol": "TLS"}, "AI_KAFKA_SECURITY_PROTOCOL: .*'SASL_SSL'"),
        ({"kafka_sasl_mechanism": "GSSAPI"}, "AI_KAFKA_SASL_MECHANISM: .*'SCRAM-SHA-256'"),
        (LOGIN, "AI_KAFKA_USER: is of no use with PLAINTEXT"),
        ({"kafka_security_protocol": "SSL", **LOGIN}, "AI_KAFKA_USER: is of no use with SSL"),
        ({"kafka_password": SECRET}, "AI_KAFKA_PASSWORD: is of no use with PLAINTEXT"),
        ({"clickhouse_url": f"https://me:{SECRET}@host"}, "AI_CLICKHOUSE_URL: must not hold a login"),
        ({"clickhouse_url": f"tcp://{SECRET}"}, "AI_CLICKHOUSE_URL: is no address"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_variable(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(**values)
    refused(**values)


@pytest.mark.parametrize("prefix", ["kafka", "clickhouse"])
@pytest.mark.parametrize(
    ("given", "variable", "said"),
    [
        ({"ca_file": "absent"}, "CA_FILE", "cannot be read: No such file"),
        ({"ca_file": "junk"}, "CA_FILE", "holds no certificate"),
        ({"certificate_file": "certificate"}, "KEY_FILE", "is missing"),
        ({"key_file": "key"}, "CERTIFICATE_FILE", "is missing"),
        ({"certificate_file": "certificate", "key_file": "absent"}, "KEY_FILE", "cannot be read"),
        ({"certificate_file": "certificate", "key_file": "other"}, "KEY_FILE", "is not the key of"),
        ({"certificate_file": "junk", "key_file": "junk"}, "KEY_FILE", "are no certificate and key"),
    ],
)
def test_a_file_that_is_of_no_use_is_refused_by_its_variable(
    prefix: str, given: dict[str, str], variable: str, said: str, files: dict[str, Path]
) -> None:
    values = {f"{prefix}_{part}": files[name] for part, name in given.items()}
    message = refused(kafka_security_protocol="SSL", clickhouse_url="https://host:8443", **values)
    assert message.startswith(f"AI_{prefix.upper()}_{variable}: ")
    assert said in message


def test_a_key_with_a_passphrase_is_refused_and_asks_nobody_for_it(files: dict[str, Path], encrypted: Path) -> None:
    values = {"kafka_certificate_file": files["certificate"], "kafka_key_file": encrypted}
    assert "is encrypted" in refused(kafka_security_protocol="SSL", **values)


@pytest.mark.parametrize("prefix", ["kafka", "clickhouse"])
def test_a_file_for_tls_without_tls_is_refused(prefix: str, files: dict[str, Path]) -> None:
    message = refused(**{f"{prefix}_ca_file": files["ca"]})
    assert message.startswith(f"AI_{prefix.upper()}_CA_FILE: is of no use")


def test_an_empty_variable_is_an_unset_one() -> None:
    names = [name for name in Settings.model_fields if name.startswith("kafka_") and name.endswith("_file")]
    values = dict.fromkeys([*names, "kafka_user", "kafka_password", "clickhouse_ca_file"], "")
    assert load_settings(**values).model_dump() == load_settings().model_dump()


def test_no_representation_shows_the_password() -> None:
    settings = load_settings(kafka_security_protocol="SASL_PLAINTEXT", **LOGIN)
    cluster = cluster_of(settings)
    shown = [settings, settings.kafka_security, cluster, credentials(cluster.options)]
    for value in shown:
        assert SECRET not in f"{value!r} {value}"


def test_a_client_is_told_in_its_own_words_what_is_wrong() -> None:
    with pytest.raises(SecurityError, match="user: is missing"):
        KafkaSecurity("SASL_SSL")
    with pytest.raises(SecurityError, match="sasl_mechanism: 'MD5' is not known; use PLAIN, SCRAM-SHA-256 or"):
        KafkaSecurity("SASL_PLAINTEXT", user="shop", password=SECRET, sasl_mechanism="MD5")
    with pytest.raises(SecurityError, match="security_protocol: 'sasl' is not known"):
        KafkaSecurity("sasl")


def test_the_python_client_hands_its_security_to_every_connection() -> None:
    security = KafkaSecurity("SASL_PLAINTEXT", user="shop", password=SECRET)
    client = SpillwayClient("kafka:9092", security=security, kafka={"client_id": "shop"})
    assert client._connection.cluster == Cluster("kafka:9092", {**security.options, "client_id": "shop"})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SaslAuthenticationFailed("no"), "refuses the login of the user 'shop'; check AI_KAFKA_USER and"),
        (UnsupportedSaslMechanismError("no"), "does not take PLAIN; set AI_KAFKA_SASL_MECHANISM"),
        (KafkaConnectionError("closed"), "hangs up on us: AI_KAFKA_SECURITY_PROTOCOL is SASL_SSL"),
        (IllegalSaslStateError("no"), "hangs up on us"),
        (ssl.SSLError("record layer failure"), "hangs up on us"),
        (ConnectionResetError(), "hangs up on us"),
        (ssl.SSLCertVerificationError("no"), "is not trusted"),
        (ConnectionRefusedError(), None),
        (TimeoutError(), None),
    ],
)
def test_why_a_broker_keeps_us_out_names_what_to_check(error: Exception, said: str | None) -> None:
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    options = KafkaSecurity("SASL_SSL", user="shop", password=SECRET, sasl_mechanism="PLAIN").options
    found = closed(error, options)
    assert (found is None) == (said is None)
    assert (said or "") in (found or "")
    assert SECRET not in (found or "")


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed])
def test_what_a_user_may_not_do_is_told_with_the_command_that_lists_it(error: type[KafkaError]) -> None:
    options = KafkaSecurity("SASL_PLAINTEXT", user="shop", password=SECRET).options
    said = refusal("kafka:9092", options, error("what it is about")).reason
    assert said.startswith("Kafka does not allow the user 'shop' to do this")
    assert "what it is about" in said
    assert "`spillway acls`" in said


# Architecture --------------------------------------------------------------------------------------------------------


def calls(folder: str) -> Iterator[tuple[Path, ast.Call, str]]:
    """All calls in a package, with the last part of what is called."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                yield file.relative_to(ROOT), node, name


def spread(call: ast.Call) -> set[str]:
    """What a call spreads into its arguments: `options` of `**self.options`."""
    parts = (keyword.value for keyword in call.keywords if keyword.arg is None)
    return {ast.unparse(part).rsplit(".", 1)[-1] for part in parts}


def forgetful(folder: str) -> list[str]:
    """Places where a client of Kafka is made without what lets it in."""
    return [
        f"{file}:{call.lineno} {name}"
        for file, call, name in calls(folder)
        if name in CLIENTS | MAKERS
        and not {"options", "security"} & (spread(call) | {keyword.arg for keyword in call.keywords})
    ]


@pytest.mark.parametrize("folder", ["app", "streams"])
def test_no_client_of_kafka_is_made_without_what_lets_it_in(folder: str) -> None:
    assert forgetful(folder) == []


def test_aiokafkas_clients_are_made_in_few_places() -> None:
    made = {str(file) for folder in ("app", "streams") for file, _, name in calls(folder) if name in CLIENTS}
    assert made == {"app/kafka.py", "app/kafka_refusals.py", "streams/runtime/outbox.py"}


def test_only_the_embedded_stack_knows_a_plain_cluster() -> None:
    plain = {
        str(file) for file, call, name in calls("app") if name == "Cluster" and len(call.args) + len(call.keywords) < 2
    }
    assert plain == {"app/devstack/kafka.py"}


def test_clickhouses_client_is_made_in_one_place() -> None:
    names = {"get_async_client", "get_client", "create_async_client", "create_client"}
    made = {str(file) for file, _, name in calls("app") if name in names}
    assert made == {"app/clickhouse/client.py"}


def test_a_place_that_forgets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "new.py").write_text(
        "aiokafka.AIOKafkaConsumer('x', bootstrap_servers=s)\n"
        "AIOKafkaProducer(bootstrap_servers=s, **cluster.options)\n"
        "SpillwayClient(s)\n"
    )
    assert forgetful("app") == ["app/new.py:1 AIOKafkaConsumer", "app/new.py:3 SpillwayClient"]
