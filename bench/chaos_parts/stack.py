"""The processes of a round: a broker, ClickHouse, providers and workers. Each can be killed, and can stand still."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from app.devstack import clickhouse, kafka, ports
from app.devstack.clickhouse import Login
from bench.chaos_parts.names import PARTITIONS, PROVIDERS
from bench.proving.version import ROOT

PROVIDER = Path(__file__).with_name("provider.py")
PR_SET_PDEATHSIG = 1
#: Looked up before any fork: loading a library between fork and exec can hang.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
_OWN = os.getpid()


def _killed_with_us() -> None:
    """For the child, before it becomes the command. SIGKILL: it may stand still when this process ends."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != _OWN:
            os._exit(1)


@dataclass
class Process:
    """One process. It is started from the main thread only: the kernel ties its life to the thread that made it."""

    name: str
    command: Sequence[str]
    log: Path
    cwd: Path
    environment: dict[str, str]
    stands_still: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self.stands_still = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_killed_with_us,  # noqa: PLW1509
            )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def stand_still(self) -> None:
        self._signal(signal.SIGSTOP)
        self.stands_still = self.alive

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)
        self.stands_still = False

    def ask_to_stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None and self.alive:
            self._process.kill()
            self._process.wait()
        self.stands_still = False

    async def ended(self, within: float) -> bool:
        return await holds(lambda: not self.alive, within=within, every=0.1)

    @property
    def megabytes(self) -> int | None:
        """Resident memory."""
        with contextlib.suppress(psutil.Error):
            if self._process is not None and self.alive:
                return int(psutil.Process(self._process.pid).memory_info().rss) >> 20
        return None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.alive:
            self._process.send_signal(number)


async def holds(condition: Callable[[], bool | Awaitable[bool]], *, within: float, every: float = 0.2) -> bool:
    """Whether the condition comes true within so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return True
        await asyncio.sleep(every)
    return False


@dataclass(frozen=True)
class Done:
    """A command that has ended. The code is None when it took too long."""

    code: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Limits:
    """Openai's requests and the local model's tokens a minute, and how often providers fail by themselves."""

    rpm: int = 540
    tpm: int = 20_000
    faults: float = 1.0


class Stack:
    """All of it in one folder. What happens to it is written down in `events`, and in events.jsonl."""

    def __init__(self, folder: Path, seed: int, limits: Limits) -> None:
        self.folder, self.limits = folder.resolve(), limits
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = self.folder / "journal.jsonl"
        self.events: list[dict[str, Any]] = []
        self.workers: dict[int, Process] = {}
        self._log = (self.folder / "events.jsonl").open("a", buffering=1)
        self._login = Login("pw" * 12, "rd" * 12, f"chaos-{seed}-{_OWN}")
        self._kafka_port, controller, self._clickhouse_port, self._control = (ports.choose(0, "") for _ in range(4))
        self._provider_ports = {name: ports.choose(0, "") for name in PROVIDERS}
        kafka.fetch()
        broker = kafka.broker(self.folder / "kafka", self._kafka_port, controller, self._log_of("kafka"))
        self.broker = self._process("kafka", broker.command, self.folder / "kafka")
        engine = clickhouse.engine(
            self.folder / "clickhouse", self._clickhouse_port, self._login, self._log_of("clickhouse")
        )
        self.clickhouse = self._process("clickhouse", engine.command, ROOT)
        self.provider = self._process(
            "provider",
            [
                *(sys.executable, str(PROVIDER), "--seed", str(seed), "--journal", str(self.journal)),
                *("--ports", ",".join(f"{name}={port}" for name, port in self._provider_ports.items())),
                *("--control", str(self._control), "--faults", str(limits.faults)),
            ],
        )

    @property
    def servers(self) -> str:
        return f"{ports.HOST}:{self._kafka_port}"

    def note(self, event: str, **more: Any) -> None:
        line = {"t": time.time(), "event": event, **more}
        self.events.append(line)
        self._log.write(json.dumps(line) + "\n")

    # Life -------------------------------------------------------------------------------------------------------------

    async def start(self, workers: int) -> None:
        """Start all of it; AssertionError if that takes too long."""
        for part in (self.broker, self.clickhouse, self.provider):
            part.start()
        assert await self.broker_answers(), f"the broker does not answer; its log is {self.broker.log}"
        assert await self.clickhouse_answers(), f"ClickHouse does not answer; its log is {self.clickhouse.log}"
        for command in ("topics", "migrate"):
            done = await self.command(command)
            assert done.code == 0, f"spillway {command}: {done.err}"
        for number in range(1, workers + 1):
            self.worker(number).start()
        assert await self.ready(self.workers), f"not all workers are ready; their logs are in {self.folder / 'logs'}"

    def kill(self) -> None:
        """End everything at once."""
        for part in (*self.workers.values(), self.provider, self.clickhouse, self.broker):
            part.kill()
        self._log.close()

    async def broker_answers(self, within: float = 60.0) -> bool:
        return await holds(lambda: asyncio.to_thread(kafka.answers, self._kafka_port), within=within, every=0.3)

    async def clickhouse_answers(self, within: float = 60.0) -> bool:
        return await holds(
            lambda: asyncio.to_thread(clickhouse.answers, self._clickhouse_port, self._login), within=within, every=0.3
        )

    async def ready(self, numbers: Collection[int], within: float = 90.0) -> bool:
        """Whether these workers become ready."""
        return await holds(
            lambda: all(self.worker(number).alive and (self.data(number) / "ready").exists() for number in numbers),
            within=within,
        )

    # Workers ----------------------------------------------------------------------------------------------------------

    def data(self, number: int) -> Path:
        """A worker's folder."""
        return self.folder / f"data-{number}"

    def worker(self, number: int) -> Process:
        """Not started yet when it is asked for the first time."""
        if number not in self.workers:
            name = f"w{number}"
            more = {
                "AI_DATA_DIR": str(self.data(number)),
                "AI_OPS_PORT": str(ports.choose(0, "")),
                "AI_SETTINGS_FILE": str(self._settings_file(name)),
                "AI_CLAUDE_BASE_URL": self._url("claude", name),
                "AI_OPENAI_BASE_URL": self._url("openai", name) + "/v1",
            }
            command = [sys.executable, "-m", "app.cli.main", "worker"]
            self.workers[number] = self._process(name, command, environment=self._environment() | more)
        return self.workers[number]

    # Talking to it ----------------------------------------------------------------------------------------------------

    async def command(self, *words: str, within: float = 60.0) -> Done:
        """One of Spillway's own commands."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.cli.main", *words),
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), within)
        except TimeoutError:
            return Done(None, "", f"not within {within:g} s")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    async def tell_providers(self, *words: str) -> None:
        """`down claude`, `up claude openai`, `calm`."""
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(ports.HOST, self._control)
            writer.write((" ".join(words) + "\n").encode())
            await writer.drain()
            await asyncio.wait_for(reader.readline(), 5)
            writer.close()

    async def ask_clickhouse(self, sql: str) -> list[dict[str, Any]]:
        """Rows. Raises OSError when it is away."""
        return await asyncio.to_thread(self._ask_clickhouse, sql)

    def _ask_clickhouse(self, sql: str) -> list[dict[str, Any]]:
        login = {"database": clickhouse.DATABASE, "user": clickhouse.USER, "password": self._login.password}
        url = f"http://{ports.HOST}:{self._clickhouse_port}/?{urllib.parse.urlencode(login)}"
        request = urllib.request.Request(url, data=f"{sql} FORMAT JSONEachRow".encode())
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return [json.loads(line) for line in answer.read().decode().splitlines() if line]

    # Made of ----------------------------------------------------------------------------------------------------------

    def _log_of(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _process(
        self, name: str, command: Sequence[str], cwd: Path | None = None, environment: dict[str, str] | None = None
    ) -> Process:
        known = self._inherited() if environment is None else environment
        return Process(name, command, self._log_of(name), cwd or self.folder, known)

    @staticmethod
    def _inherited() -> dict[str, str]:
        """This process's variables, and none that set up another Spillway. Workers run in the round's folder, where no
        .env lies, so they are told where the code is.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AI_")}
        return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def _environment(self) -> dict[str, str]:
        return self._inherited() | {
            "AI_KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "AI_CLICKHOUSE_URL": f"http://{ports.HOST}:{self._clickhouse_port}",
            "AI_CLICKHOUSE_DATABASE": clickhouse.DATABASE,
            "AI_CLICKHOUSE_USER": clickhouse.USER,
            "AI_CLICKHOUSE_PASSWORD": self._login.password,
            "AI_CLICKHOUSE_READER_USER": clickhouse.READER,
            "AI_CLICKHOUSE_READER_PASSWORD": self._login.reader_password,
            "AI_PARTITIONS": str(PARTITIONS),
            "AI_CLAUDE_API_KEY": "k-chaos-a",
            "AI_OPENAI_API_KEY": "k-chaos-b",
            "AI_CLAUDE_TIMEOUT": "8",
            "AI_OPENAI_TIMEOUT": "8",
            "AI_RETRY_DELAY": "0.3",
            "AI_FALLBACK_PROVIDERS": "openai,local",
            "AI_DEFAULT_DEADLINE": "150",
            "AI_LOG_FORMAT": "json",
            "AI_AVAILABILITY_INTERVAL": "20",
            "AI_SETTINGS_FILE": str(self._settings_file("cli")),
        }

    def _url(self, provider: str, caller: str) -> str:
        return f"http://{ports.HOST}:{self._provider_ports[provider]}/{caller}"

    def _settings_file(self, caller: str) -> Path:
        file = self.folder / f"settings-{caller}.toml"
        if not file.exists():
            file.write_text(f"""\
[providers.claude]
rpm = 100000
tpm = 100000000
unlimited = ["rph", "tph"]
shards = 2

[providers.openai]
rpm = {self.limits.rpm}
tpm = 100000000
unlimited = ["rph", "tph"]

[providers.local]
kind = "openai_compatible"
base_url = "{self._url("local", caller)}/v1"
models = ["m1"]
default_model = "m1"
timeout = 8
tpm = {self.limits.tpm}
shards = 2
price = {{ input_mtok = "1.00", output_mtok = "3.00" }}

[prices.claude]
input_mtok = "2.00"
output_mtok = "6.00"

[prices.openai]
input_mtok = "1.50"
output_mtok = "4.00"
""")
        return file
