"""How a command reaches the ledger: the one that is named, the one that runs, the one that lies there."""

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from ledger.schema import migrate
from sidecar.embedded import embedded
from sidecar.reach import NoLedgerError, joined, reachable
from sidecar.settings import Settings, SettingsError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return a directory that the embedded servers' account can enter."""
    with tempfile.TemporaryDirectory(prefix="outrider-reach-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def inside(directory: Path) -> list[str]:
    """Return the names in *directory*."""
    return [path.name for path in directory.iterdir()]


async def migrations(database_url: str) -> int:
    """Count the migrations that were applied."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM migration"))
    finally:
        await connection.close()


async def test_the_ledger_that_is_named() -> None:
    """A given URL is used as it is, and nothing is started."""
    settings = Settings(database_url="postgresql://db.example.com/x", data_dir=Path("/nowhere"))
    async with reachable(settings) as reached:
        assert reached == settings
    assert joined(settings) == settings


async def test_nothing_has_run_here(data_dir: Path) -> None:
    """A command that looks makes no ledger."""
    with pytest.raises(NoLedgerError, match="nothing has run"):
        async with reachable(Settings(data_dir=data_dir)):
            pytest.fail("there is nothing to reach")
    with pytest.raises(SettingsError, match="DATABASE_URL and REDIS_URL: expected both"):
        joined(Settings(data_dir=data_dir))
    assert inside(data_dir) == []


async def test_the_ledger_that_runs_and_the_one_that_lies_there(data_dir: Path) -> None:
    """While an Outrider runs its servers are used; afterwards they are started for as long as a command needs them."""
    settings = Settings(data_dir=data_dir)
    async with embedded(data_dir, valkey=False, durable=False) as servers:
        await migrate(servers.database_url)
        applied = await migrations(servers.database_url)
        async with reachable(settings) as reached:
            assert reached.database_url == servers.database_url
        assert joined(settings).database_url == servers.database_url
    async with reachable(settings) as reached:
        assert await migrations(reached.database_url) == applied
    with pytest.raises(OSError, match=r"\.s\.PGSQL|No such file"):
        await asyncpg.connect(reached.database_url)


async def test_standard_output_is_the_answers(data_dir: Path) -> None:
    """A listing that has to start the servers prints nothing but itself: a pipe reads it."""
    async with embedded(data_dir, valkey=False, durable=False) as servers:
        await migrate(servers.database_url)
    code = "import sys; from sidecar.cli import main; sys.exit(main(['messages', '--json', *sys.argv[1:]]))"
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "--data-dir", str(data_dir), cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    answer, said = await asyncio.wait_for(command.communicate(), 50)
    assert (command.returncode, said) == (0, b"")
    assert json.loads(answer) == {"messages": [], "next": None}
