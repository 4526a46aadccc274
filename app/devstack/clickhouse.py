"""ClickHouse's real engine behind its own HTTP server, with users of its own."""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from app.devstack.child import Child
from app.devstack.ports import HOST

DATABASE = "spillway"
USER = "spillway"
READER = "spillway_reader"
#: The server release that the embedded engine reports; docker-compose.yml uses the same.
ENGINE_VERSION = "26.9"


@dataclass(frozen=True)
class Login:
    """The stack's own secrets. `display_name` tells this stack's engine from any other on the same port."""

    password: str
    reader_password: str
    display_name: str


def engine(state: Path, port: int, login: Login, log: Path) -> Child:
    """The engine on its data in `state`, not started yet."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "config.xml").write_text(_config(port, login))
    users = state / "users.xml"
    users.touch(mode=0o600)
    users.write_text(_users(login))
    return Child(
        name="clickhouse",
        command=[sys.executable, "-m", "app.devstack.clickhouse_engine", str(state.resolve())],
        log=log,
        ready=lambda: answers(port, login),
        grace=10.0,
    )


def answers(port: int, login: Login) -> bool:
    """Whether this stack's engine, and no other, answers there. The engine does not report a busy port."""
    query = urllib.parse.quote("SELECT displayName()")
    headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": login.password}
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", f"/?query={query}", headers=headers)
        reply = connection.getresponse()
        return reply.status == http.client.OK and reply.read().decode().strip() == login.display_name
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _config(port: int, login: Login) -> str:
    return f"""\
<clickhouse>
  <listen_host>{HOST}</listen_host>
  <http_port>{port}</http_port>
  <users_config>users.xml</users_config>
  <display_name>{login.display_name}</display_name>
  <max_server_memory_usage>2000000000</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <logger><level>warning</level></logger>
</clickhouse>
"""


def _users(login: Login) -> str:
    """The application may do all in its own database, the reader may read there all but prompts and answers, `default`
    only starts the engine.
    """
    return f"""\
<clickhouse>
  <profiles>
    <default/>
    <reader>
      <readonly>1</readonly>
      <max_execution_time>60</max_execution_time>
    </reader>
  </profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>{HOST}</ip></networks>
      <profile>default</profile><quota>default</quota>
      <grants>
        <query>GRANT SYSTEM ON *.*</query>
        <query>GRANT SELECT ON system.numbers</query>
      </grants>
    </default>
    <{USER}>
      <password_sha256_hex>{_sha256(login.password)}</password_sha256_hex>
      <networks><ip>{HOST}</ip></networks>
      <profile>default</profile><quota>default</quota>
      <grants>
        <query>GRANT ALL ON {DATABASE}.*</query>
        <query>GRANT TABLE ENGINE ON *</query>
        <query>GRANT SELECT ON system.*</query>
      </grants>
    </{USER}>
    <{READER}>
      <password_sha256_hex>{_sha256(login.reader_password)}</password_sha256_hex>
      <networks><ip>{HOST}</ip></networks>
      <profile>reader</profile><quota>default</quota>
      <grants>
        <query>GRANT SELECT ON {DATABASE}.*</query>
        <query>REVOKE SELECT ON {DATABASE}.contents</query>
      </grants>
    </{READER}>
  </users>
</clickhouse>
"""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
