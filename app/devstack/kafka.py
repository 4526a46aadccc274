"""Apache Kafka itself, one node in KRaft mode, out of Maven packages."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import re
import shutil
import subprocess
import uuid
from importlib.resources import files
from pathlib import Path

from app.devstack.child import Child
from app.devstack.errors import StackError
from app.devstack.ports import HOST

VERSION = "4.3.1"
OLDEST_JAVA = 17
#: Seconds that fetching the packages may take.
DOWNLOAD_TIMEOUT = 600
MAX_RECORD_BYTES = 5 * 1024 * 1024


def cache_dir() -> Path:
    """Where packages are kept that all stacks of this user share."""
    if chosen := os.environ.get("SPILLWAY_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spillway"


def packages() -> Path:
    return cache_dir() / f"kafka-{VERSION}"


def fetch() -> bool:
    """Make sure that the packages are there; True if they had to be fetched. Raises StackError.

    A folder that exists is complete: it is filled under another name and renamed at the end.
    """
    check_java()
    target = packages()
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return False
        _download(target)
    return True


def check_java() -> None:
    """Raises StackError when Java is missing or too old, or Maven is needed and missing."""
    java = shutil.which("java")
    if java is None:
        raise StackError(f"Java is missing: install a JDK or JRE of version {OLDEST_JAVA} or newer.")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(\d+)', told)
    if found and int(found[1]) < OLDEST_JAVA:
        raise StackError(f"Java {found[1]} is too old: install version {OLDEST_JAVA} or newer.")
    if not packages().exists() and shutil.which("mvn") is None:
        raise StackError("Maven is missing: install it (the command mvn), it fetches the Kafka broker.")


def _download(target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "pom.xml").write_bytes((files("app.devstack") / "pom.xml").read_bytes())
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={partial / 'libs'}"]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=partial, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"Maven did not fetch the Kafka broker within {DOWNLOAD_TIMEOUT} s.") from None
    if done.returncode:
        problem = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr.strip())
        raise StackError(f"Maven could not fetch the Kafka broker: {problem[:300]}")
    (partial / "libs").rename(target)
    shutil.rmtree(partial, ignore_errors=True)


def broker(state: Path, port: int, controller_port: int, log: Path) -> Child:
    """The broker on its data in `state`, not started yet. Formats the data folder the first time."""
    state.mkdir(parents=True, exist_ok=True)
    properties = state / "server.properties"
    properties.write_text(_properties(state / "data", port, controller_port))
    if not (state / "data" / "meta.properties").exists():
        prepare(state, properties)
    return Child(
        name="kafka",
        command=[*java(state, "-Xmx512m"), "kafka.Kafka", str(properties)],
        log=log,
        ready=lambda: answers(port),
        cwd=state,
        grace=30.0,
    )


def java(state: Path, *options: str) -> list[str]:
    """The begin of a command that runs one of Kafka's programs."""
    (state / "log4j2.properties").write_bytes((files("app.devstack") / "log4j2.properties").read_bytes())
    logging = f"-Dlog4j2.configurationFile={state / 'log4j2.properties'}"
    return ["java", *options, logging, "-cp", f"{packages()}/*"]


def _cluster_id() -> str:
    """A random id as Kafka writes them; one that begins with a dash would look like an option."""
    while (identity := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return identity


def prepare(state: Path, properties: Path, *more: str) -> None:
    """Format the data folder; `more` are options of Kafka's StorageTool."""
    cluster = _cluster_id()
    command = [*java(state), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise StackError(f"Kafka's data folder could not be prepared: {(done.stderr or done.stdout).strip()[:300]}")


def _properties(data: Path, port: int, controller_port: int) -> str:
    """One node that is broker and controller. Topics are made by `spillway topics`, never by the broker."""
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{HOST}:{controller_port}
listeners=PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}
advertised.listeners=PLAINTEXT://{HOST}:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.network.threads=2
num.io.threads=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes={MAX_RECORD_BYTES}
replica.fetch.max.bytes={MAX_RECORD_BYTES}
"""


def answers(port: int) -> bool:
    """Whether the broker tells its topics: more than an open port."""
    try:
        return asyncio.run(_answers(port))
    except (OSError, TimeoutError):
        return False


async def _answers(port: int) -> bool:
    _, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port), 1.0)
    writer.close()
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - takes long to import

    from app.kafka import Cluster  # noqa: PLC0415

    admin = Cluster(f"{HOST}:{port}").admin(2.0)
    try:
        await asyncio.wait_for(admin.start(), 3.0)
        await asyncio.wait_for(admin.list_topics(), 3.0)
    except KafkaError:
        return False
    finally:
        await admin.close()
    return True
