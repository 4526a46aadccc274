"""What a stack leaves in its folder: who runs, where, and with which passwords."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from app.devstack import clickhouse, simulator
from app.devstack.child import end, find
from app.devstack.clickhouse import Login
from app.devstack.errors import StackError
from app.devstack.ports import HOST

FILE = "stack.json"
LOCK = "stack.lock"

#: The embedded parts know neither TLS nor users of Kafka: what a `.env` says of another cluster must not reach them.
PLAIN = {
    "AI_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    **dict.fromkeys(
        (
            "AI_KAFKA_CA_FILE",
            "AI_KAFKA_CERTIFICATE_FILE",
            "AI_KAFKA_KEY_FILE",
            "AI_KAFKA_USER",
            "AI_KAFKA_PASSWORD",
            "AI_CLICKHOUSE_CA_FILE",
            "AI_CLICKHOUSE_CERTIFICATE_FILE",
            "AI_CLICKHOUSE_KEY_FILE",
        ),
        "",
    ),
}


@dataclass
class StackState:
    """`stack.json`. `parts` maps names to process identities; it names the secrets, so its mode is 0600."""

    login: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    supervisor: dict[str, float] | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    simulated: list[str] = field(default_factory=list)
    ready: bool = False

    def credentials(self) -> Login:
        return Login(**self.login)

    def environment(self) -> dict[str, str]:
        """What a client or a worker of this stack needs to know."""
        return {
            **PLAIN,
            "AI_KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{self.ports['kafka']}",
            "AI_CLICKHOUSE_URL": f"http://{HOST}:{self.ports['clickhouse']}",
            "AI_CLICKHOUSE_DATABASE": clickhouse.DATABASE,
            "AI_CLICKHOUSE_USER": clickhouse.USER,
            "AI_CLICKHOUSE_PASSWORD": self.login["password"],
            "AI_CLICKHOUSE_READER_USER": clickhouse.READER,
            "AI_CLICKHOUSE_READER_PASSWORD": self.login["reader_password"],
            **simulator.variables(self.simulated, self.ports["simulator"]),
        }


def fresh_state() -> StackState:
    secret = secrets.token_urlsafe
    return StackState(login=asdict(Login(secret(24), secret(24), f"spillway-{secrets.token_hex(4)}")))


def read(folder: Path) -> StackState | None:
    """The state in a folder, or None where no stack has been."""
    try:
        return StackState(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StackError(f"{folder / FILE} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError):
        raise StackError(f"{folder / FILE} cannot be read; start clean with `spillway up --fresh`.") from None


def write(folder: Path, state: StackState) -> None:
    """Written aside and renamed: a reader never sees half of it."""
    partial = folder / f"{FILE}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(state), file, indent=2)
    partial.replace(folder / FILE)


def lock(folder: Path) -> IO[str]:
    """Hold the folder for this process. Raises StackError when another one has it."""
    file = (folder / LOCK).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        state = read(folder)
        holder = f" (process {int(state.supervisor['pid'])})" if state and state.supervisor else ""
        file.close()
        raise StackError(f"A stack is running in {folder}{holder}; stop it with `spillway down` first.") from None
    return file


def end_orphans(state: StackState, grace: float = 10.0) -> int:
    """End what a supervisor that died has left running. Returns how many there were."""
    orphans = [process for part in state.parts.values() if (process := find(part.get("identity")))]
    for process in orphans:
        end(process, grace)
    return len(orphans)
