"""The ledger's tables, made and changed by numbered SQL files.

Each file runs once, in order, and is then fixed: its checksum is kept beside its name. Every statement in them is
repeatable (IF NOT EXISTS), so two workers that start at the same moment do no harm to each other, and a run that was
cut off is simply run again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import UNKNOWN_DATABASE, UNKNOWN_TABLE, ClickHouseError
from app.clickhouse.retention import changes as retention
from app.clickhouse.retention import retention_changes
from app.settings import Settings

_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_STATEMENT_END = re.compile(r";[ \t]*$", re.MULTILINE)
_DATABASE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")

#: Seconds that one statement may take: a new table may have to be filled from a large one.
MIGRATION_TIMEOUT = 600.0

_APPLIED_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    name       String,
    checksum   FixedString(64),
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY name
COMMENT 'Which of the migrations have run'
"""


class MigrationError(Exception):
    """The database and the migrations contradict each other. The message is one sentence."""


@dataclass(frozen=True)
class Migration:
    """One SQL file. `name` is the file's name without its ending."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> list[str]:
        """A statement ends with a semicolon at the end of a line."""
        return [part.strip() for part in _STATEMENT_END.split(self.sql) if part.strip()]


def known_migrations() -> tuple[Migration, ...]:
    """All migrations of this version, in order."""
    found = [
        Migration(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in (files("app.clickhouse") / "migrations").iterdir()
        if _FILE_NAME.match(file.name)
    ]
    return tuple(sorted(found, key=lambda migration: migration.name))


def missing_migrations(known: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """Those that have not run. `applied` maps names to checksums. Raises MigrationError when one was changed since.

    What a newer version has applied is left alone: tables only grow, and an older worker can still write to them.
    """
    for migration in known:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationError(
                f"The migration {migration.name} was changed after it ran in this database; "
                "restore the file and put the change into a new migration."
            )
    return [migration for migration in known if migration.name not in applied]


async def pending(settings: Settings) -> list[Migration]:
    """What `migrate` would run now, in order. Raises ClickHouseError, MigrationError."""
    async with ClickHouse(settings) as database:
        return await _planned(database, settings)


async def migrate(settings: Settings) -> list[str]:
    """Bring the database up to date, and return the names of what ran. Raises ClickHouseError, MigrationError.

    Creates the database when it is missing. A user who may not create tables is enough when nothing is pending.
    """
    async with ClickHouse(settings, timeout=MIGRATION_TIMEOUT) as database:
        missing = await _missing(database)
        if missing:
            await _ensure_database(settings)
            await database.command(_APPLIED_TABLE)
        for migration in missing:
            await _run(database, migration)
            await database.command(
                "INSERT INTO schema_migrations (name, checksum) SELECT {name:String}, {checksum:String}",
                {"name": migration.name, "checksum": migration.checksum},
            )
        retention = _retention(await retention_changes(database, settings))
        for change in retention:
            await _run(database, change)
        return [migration.name for migration in (*missing, *retention)]


async def _run(database: ClickHouse, migration: Migration) -> None:
    for statement in migration.statements():
        await database.command(statement)


async def _planned(database: ClickHouse, settings: Settings) -> list[Migration]:
    missing = await _missing(database)
    try:
        changes = await retention_changes(database, settings)
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        changes = list(retention(settings, {}))
    return [*missing, *_retention(changes)]


def _retention(statements: Sequence[str]) -> list[Migration]:
    """What the settings say of retention, as a migration of which no note is kept: it is compared with the tables."""
    return [Migration("retention", ";\n".join(statements))] if statements else []


async def _missing(database: ClickHouse) -> list[Migration]:
    try:
        result = await database.query("SELECT name, toString(checksum) FROM schema_migrations FINAL")
    except ClickHouseError as error:
        if error.code not in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
            raise
        return list(known_migrations())
    return missing_migrations(known_migrations(), dict(result.rows))


async def _ensure_database(settings: Settings) -> None:
    """Asked first: creating one that exists would need a right that the user can do without."""
    name = settings.clickhouse_database
    if not _DATABASE_NAME.match(name):
        raise MigrationError("AI_CLICKHOUSE_DATABASE may hold letters, digits and underscores only.")
    async with ClickHouse(settings, use_database=False) as server:
        found = await server.query("SELECT count() FROM system.databases WHERE name = {name:String}", {"name": name})
        if not found.rows[0][0]:
            await server.command(f"CREATE DATABASE IF NOT EXISTS {name}")
