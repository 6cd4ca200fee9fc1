"""Places for servers that a test starts, and stops, itself."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.rows import Pool
from tests.supervisors import processes_of
from tests.webhooking import World, world


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a short folder that every account may pass, and see that nothing runs in it afterwards."""
    path = Path(tempfile.mkdtemp(prefix="outrider-embedded-"))
    path.chmod(0o755)
    yield path
    left = processes_of(path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path)
    assert left == []


@pytest.fixture
def here(folder: Path) -> Path:
    """Return the data directory to be: nobody made it yet, and its path is no easy one."""
    return folder / "the data"


@pytest_asyncio.fixture
async def endpoint(redis_url: str, database_url: str, pool: Pool, tmp_path: Path) -> AsyncIterator[World]:
    """Return the webhooks with what stands behind them, and no message yet."""
    async with world(redis_url, database_url, pool, tmp_path / "journal") as made:
        yield made
