"""Bring a database to the ledger's shape: numbered files, applied once, in order, under an advisory lock.

A migration is never edited after it was applied anywhere: its checksum stands in the database, and a difference stops
the start. Change the shape by adding a file. While an upgrade goes on two versions work on one database, so a file
expands: what the last version reads and writes stays. What it has stopped to use goes in a later release, by a file
that says so in a line of its own, `-- needs: 0012`: versions that do not know migration 0012 do not start beside it.
"""

import asyncio
import hashlib
import re
from pathlib import Path

import asyncpg
import msgspec
import structlog

log = structlog.get_logger()

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

_NAME = re.compile(r"\A(?P<number>\d{4})_[a-z0-9_]+\.sql\Z")

_NEEDS = re.compile(r"^-- needs: (?P<number>\d{4})$", re.MULTILINE)

# Any constant will do, as long as every process uses the same.
_LOCK = 0x6F757472

# Seconds for which everybody waits behind us while we wait for a table, how often we try, and the seconds in between.
_PATIENCE, _TRIES, _PAUSE = 2.0, 20, 1.0


class SchemaError(Exception):
    """The migrations on disk and those applied to the database disagree."""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One file of migrations/."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode("utf-8")).hexdigest()

    @property
    def needs(self) -> int:
        """The last migration that a version must know to work beside this one; 0: any version does."""
        named = _NEEDS.search(self.sql)
        return 0 if named is None else int(named["number"])


def read_migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """Return the migrations of *directory* in order; raise `SchemaError` for a gap, a twin or a foreign name."""
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            raise SchemaError(f"migrations/{path.name}: a migration is named like 0001_what_it_does.sql")
        if int(match["number"]) != len(migrations) + 1:
            raise SchemaError(f"migrations/{path.name}: expected number {len(migrations) + 1:04d}")
        migrations.append(Migration(number=int(match["number"]), name=path.name, sql=path.read_text(encoding="utf-8")))
    return migrations


async def migrate(database_url: str, directory: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing and return the names applied; twice is once.

    Raises `SchemaError` when an applied file was edited, when the database is of a version that this code cannot work
    beside, or when a table that a migration changes stays locked.
    """
    migrations = read_migrations(directory)
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        # A session lock: a second process waits here and then finds nothing left to do.
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        missing = await _check(connection, migrations)
        for migration in missing:
            await _apply(connection, migration)
        return [migration.name for migration in missing]
    finally:
        await connection.close()


async def _check(connection: "asyncpg.Connection[asyncpg.Record]", migrations: list[Migration]) -> list[Migration]:
    """Return the migrations that are not applied yet; raise `SchemaError` where this version must not go on."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    await connection.execute("ALTER TABLE migration ADD COLUMN IF NOT EXISTS needs integer NOT NULL DEFAULT 0")
    rows = await connection.fetch("SELECT number, name, checksum, needs FROM migration ORDER BY number")
    newer = [row for row in rows if row["number"] > len(migrations)]
    for row in newer:
        if row["needs"] > len(migrations):
            raise SchemaError(
                f"the database has migration {row['name']}, which this version cannot work beside: "
                "it was written by a newer Outrider; start that one"
            )
    if newer:
        log.warning("ledger_is_newer", migration=newer[-1]["name"])
    for migration, row in zip(migrations, rows, strict=False):
        if migration.checksum != row["checksum"]:
            raise SchemaError(
                f"migrations/{migration.name} was edited after it was applied: restore the file "
                "and put the change into a new migration"
            )
    return migrations[len(rows) :]


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                # Whoever comes after us waits behind us: mail and hits go on between two tries.
                await connection.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}s'")
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO migration (number, name, checksum, needs) VALUES ($1, $2, $3, $4)",
                    migration.number,
                    migration.name,
                    migration.checksum,
                    migration.needs,
                )
        except asyncpg.LockNotAvailableError:
            log.warning("migration_waits", migration=migration.name)
            await asyncio.sleep(_PAUSE)
        else:
            return
    raise SchemaError(
        f"migrations/{migration.name} changes a table that somebody keeps locked: nothing of it is applied. "
        "End the transaction that holds it (pg_stat_activity shows how long each has gone on) and start again"
    )
