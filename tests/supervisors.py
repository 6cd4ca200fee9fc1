"""A supervisor in a process of its own, and what tests of the embedded servers ask about theirs."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import redis.asyncio

from sidecar.embedded import Servers

ROOT = Path(__file__).resolve().parents[1]

#: A supervisor of its own: it prints its servers' URLs and stops when its input closes.
HOLDER = """
import asyncio, json, os, sys
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
os.umask(0o077)
uid, watched, loop = int(sys.argv[2]), sys.argv[3] == "watched", sys.argv[4]
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
from sidecar import child
from sidecar.embedded import EmbeddedError, embedded
if not watched:
    child._libc = None
async def main():
    try:
        async with embedded(Path(sys.argv[1]), durable=False, aof=True) as servers:
            print(json.dumps([servers.database_url, servers.redis_url]), flush=True)
            await asyncio.to_thread(sys.stdin.read)
    except EmbeddedError as error:
        print(json.dumps(str(error)), flush=True)
if loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def processes_of(folder: Path) -> list[int]:
    """Return the processes that were started with a path below *folder*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if int(entry.name) != os.getpid() and any(
                word.startswith(os.fsencode(folder) + b"/") for word in words[1:]
            ):
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> bytes:
    """Return what everybody on the machine can read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def owner(path: Path) -> int:
    """Return the account that a file or, below /proc, a process belongs to."""
    return path.stat().st_uid


class Holder:
    """A supervisor in a process of its own."""

    def __init__(
        self, here: Path, *, uid: int = 0, watched: bool = True, loop: str = "asyncio", path: Path = ROOT
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(here), str(uid), "watched" if watched else "free", loop],
            env=os.environ | {"PYTHONPATH": f"{path}:{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = json.loads(self.process.stdout.readline())

    @property
    def servers(self) -> Servers:
        """What it announced; fails with its message when it could not start."""
        assert isinstance(self.said, list), self.said
        return Servers(database_url=self.said[0], redis_url=self.said[1])

    def close(self) -> None:
        """Close its input and wait until it has stopped its servers and ended."""
        with self.process:
            pass

    def kill(self) -> None:
        """End it as nobody can prevent."""
        self.process.kill()
        self.close()


@asynccontextmanager
async def database(servers: Servers) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect to the servers' PostgreSQL for the time of the block."""
    connection = await asyncpg.connect(servers.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def buffer(servers: Servers) -> AsyncIterator["redis.asyncio.Redis"]:
    """Connect to the servers' Valkey for the time of the block."""
    client = redis.asyncio.Redis.from_url(servers.redis_url, protocol=3, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


async def remember(servers: Servers, word: str) -> None:
    """Write *word* to both servers."""
    async with database(servers) as connection, buffer(servers) as client:
        await connection.execute("CREATE TABLE IF NOT EXISTS memory (word text)")
        await connection.execute("INSERT INTO memory VALUES ($1)", word)
        await client.rpush("memory", word)


async def remembered(servers: Servers) -> tuple[list[str], list[str]]:
    """Return what PostgreSQL and Valkey remember, each sorted."""
    async with database(servers) as connection, buffer(servers) as client:
        rows = await connection.fetch("SELECT word FROM memory")
        words = [str(word) for word in await client.lrange("memory", 0, -1)]
        return sorted(row["word"] for row in rows), sorted(words)


def socket_folder(servers: Servers) -> Path:
    """Return the directory of the sockets."""
    return Path(parse_qs(urlsplit(servers.database_url).query)["host"][0])
