"""Bring a database to the ledger's shape: numbered files, applied once, in order, under an advisory lock.

A migration is never edited after it was applied anywhere: its checksum stands in the database, and a difference stops
the start. Change the shape by adding a file.
"""

import hashlib
import re
from pathlib import Path

import asyncpg
import msgspec

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

_NAME = re.compile(r"\A(?P<number>\d{4})_[a-z0-9_]+\.sql\Z")

# Any constant will do, as long as every process uses the same.
_LOCK = 0x6F757472


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

    Raises `SchemaError` when an applied file was edited or is missing, or when the database is newer than this code.
    """
    migrations = read_migrations(directory)
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        # A session lock: a second process waits here and then finds nothing left to do.
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        return await _apply(connection, migrations)
    finally:
        await connection.close()


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migrations: list[Migration]) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT number, name, checksum FROM migration ORDER BY number")
    known = {migration.number: migration for migration in migrations}
    for row in rows:
        migration = known.get(row["number"])
        if migration is None:
            raise SchemaError(
                f"the database has migration {row['name']}, which this version does not know: "
                "it was written by a newer Outrider; start that one"
            )
        if migration.checksum != row["checksum"]:
            raise SchemaError(
                f"migrations/{migration.name} was edited after it was applied: restore the file "
                "and put the change into a new migration"
            )
    applied: list[str] = []
    for migration in migrations[len(rows) :]:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO migration (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
        applied.append(migration.name)
    return applied
