"""Migrations: applied once, in order, by one process, and never edited."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from ledger import schema
from ledger.schema import MIGRATIONS, SchemaError, migrate, read_migrations


async def _shape(database_url: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text"
            " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        )
    finally:
        await connection.close()
    return [tuple(row) for row in rows]


async def test_twice_is_once(database_url: str) -> None:
    """A second run applies nothing and changes nothing."""
    before = await _shape(database_url)
    assert await migrate(database_url) == []
    assert await _shape(database_url) == before


async def test_two_first_starts_do_not_collide(database_url: str) -> None:
    """Processes that start together on an empty database apply every file once."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        await connection.close()
    applied = await asyncio.gather(*(migrate(database_url) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == [one.name for one in read_migrations()]


async def test_an_edited_file_stops_the_start(database_url: str, tmp_path: Path) -> None:
    """The message names the file and what to do."""
    edited = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, edited)
    first = edited / read_migrations()[0].name
    first.write_text(first.read_text(encoding="utf-8") + "\n-- changed\n", encoding="utf-8")
    with pytest.raises(SchemaError, match=r"0001_ledger\.sql was edited after it was applied: restore"):
        await migrate(database_url, edited)


def _with(directory: Path, *files: str) -> Path:
    """Return this version's migrations in *directory*, and the next ones."""
    shutil.copytree(MIGRATIONS, directory)
    for number, sql in enumerate(files, len(read_migrations()) + 1):
        (directory / f"{number:04d}_next.sql").write_text(sql, encoding="utf-8")
    return directory


async def test_a_newer_database_is_worked_beside_until_it_says_otherwise(database_url: str, tmp_path: Path) -> None:
    """What expands leaves room for the last version; what contracts names the one that it needs."""
    known = len(read_migrations())
    expanded = _with(tmp_path / "expanded", "CREATE TABLE more (a int);")
    contracted = _with(
        tmp_path / "contracted",
        "CREATE TABLE more (a int);",
        f"-- Nobody writes it any more.\n-- needs: {known + 1:04d}\nDROP TABLE retention;",
    )
    assert await migrate(database_url, expanded) == [f"{known + 1:04d}_next.sql"]
    assert await migrate(database_url) == []
    assert await migrate(database_url, contracted) == [f"{known + 2:04d}_next.sql"]
    assert await migrate(database_url, expanded) == []
    with pytest.raises(SchemaError, match=rf"{known + 2:04d}_next\.sql, which .* newer Outrider"):
        await migrate(database_url)


async def test_a_database_of_before_that_was_written_down(database_url: str) -> None:
    """The first databases do not say what a migration needs: none of theirs needs anything."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("ALTER TABLE migration DROP COLUMN needs")
    finally:
        await connection.close()
    assert await migrate(database_url) == []


async def test_a_locked_table_holds_nobody_up(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that waits steps back, so that others read on; at the end it says what stands in its way."""
    monkeypatch.setattr(schema, "_PATIENCE", 0.05)
    monkeypatch.setattr(schema, "_PAUSE", 0.01)
    number = f"{len(read_migrations()) + 1:04d}"
    wider = _with(tmp_path / "wider", "ALTER TABLE message ADD COLUMN more integer;")
    holder, reader = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE message IN ACCESS SHARE MODE")
            waiting = asyncio.create_task(migrate(database_url, wider))
            while not waiting.done():
                assert await reader.fetchval("SELECT count(*) FROM message", timeout=10) == 0
            with pytest.raises(SchemaError, match=rf"{number}_next\.sql changes a table that somebody keeps locked"):
                await waiting
        assert await migrate(database_url, wider) == [f"{number}_next.sql"]
    finally:
        await holder.close()
        await reader.close()


async def test_a_failing_migration_leaves_nothing_behind(database_url: str, tmp_path: Path) -> None:
    """Each file is one transaction."""
    broken = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, broken)
    number = len(read_migrations()) + 1
    (broken / f"{number:04d}_broken.sql").write_text("CREATE TABLE half (a int); SELECT 1/0;", encoding="utf-8")
    before = await _shape(database_url)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database_url, broken)
    assert await _shape(database_url) == before


@pytest.mark.parametrize("name", ["notes.sql", "0001_again.sql", "0099_gap.sql", "1_short.sql"])
def test_a_wrong_name_is_refused(name: str, tmp_path: Path) -> None:
    """Numbers run without gap or twin."""
    shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (tmp_path / "migrations" / name).write_text("SELECT 1;", encoding="utf-8")
    with pytest.raises(SchemaError, match="migrations/"):
        read_migrations(tmp_path / "migrations")


async def test_every_statement_is_understood(database_url: str) -> None:
    """PostgreSQL can prepare all of queries.sql on this shape."""
    from ledger.statements import statements

    connection = await asyncpg.connect(database_url)
    try:
        for statement in statements().values():
            await connection.prepare(statement)
    finally:
        await connection.close()
