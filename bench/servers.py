"""The ground that a bench stands on: stores that keep what they are told, and roles of Outrider as real processes.

PostgreSQL runs with fsync on and Valkey with its append-only file always synced, as the product's own embedded servers
do; a bench that measured less would measure another product.
"""

import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import redis.asyncio

from sidecar.embedded import Servers, embedded
from sidecar.keys import load_keys
from sidecar.settings import KeysSettings, Settings
from sidecar.wiring.process import prepare_ledger
from sidecar.wiring.role import Role

# Below the range from which the kernel takes the ports of outgoing connections.
_FIRST_PORT, _PORTS = 20_000, 10_000


class BenchError(Exception):
    """A part of a bench could not be started; the text says which and why."""


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """PostgreSQL and Valkey, and a directory for what else is written."""

    database_url: str
    redis_url: str
    directory: Path


@asynccontextmanager
async def stores(given: Servers | None = None) -> AsyncIterator[Stores]:
    """Run PostgreSQL and Valkey in a temporary directory for the time of the block, or use those that are *given*."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(_directory())
        servers = given
        if servers is None:
            servers = await stack.enter_async_context(embedded(directory / "servers"))
        yield Stores(database_url=servers.database_url, redis_url=servers.redis_url, directory=directory)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="outrider-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        # The servers' account passes through, and can list nothing.
        directory.chmod(0o711)
        yield directory


@asynccontextmanager
async def outrider(place: Stores) -> AsyncIterator[Settings]:
    """Make a ledger of its own and empty Valkey; yield settings with both, keys and a data directory.

    The ledger is dropped after the block. A bench adds its own sections with `msgspec.structs.replace`.
    """
    name = f"bench_{secrets.token_hex(6)}"
    await _administer(place.database_url, f"CREATE DATABASE {name}")
    data_dir = place.directory / name
    data_dir.mkdir(mode=0o700)
    settings = Settings(
        data_dir=data_dir,
        database_url=_database(place.database_url, name),
        redis_url=place.redis_url,
        keys=KeysSettings(signing=(secrets.token_hex(32),), identity=secrets.token_hex(32)),
    )
    client = redis.asyncio.Redis.from_url(place.redis_url, protocol=3)
    try:
        await client.flushdb()
    finally:
        await client.aclose()
    await prepare_ledger(settings.database_url, load_keys(settings))
    try:
        yield settings
    finally:
        await _administer(place.database_url, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def role(settings: Settings, name: str, *, processes: int = 1) -> AsyncIterator[tuple[int, ...]]:
    """Run a role (`relay`, `tracker`, `courier`, `console`) for the time of the block, as `run` does; yield its pids.

    Several *processes* share one port. All of them are ready when the block begins.
    """
    metrics = settings.data_dir / f"metrics-{secrets.token_hex(4)}"
    metrics.mkdir(mode=0o700)
    members = [Role(name, metrics, quiet=True) for _ in range(processes)]
    try:
        for member in members:
            await member.load()
        for member in members:
            await member.start(settings)
        pids = tuple(member.pid for member in members if member.pid is not None)
        yield pids
        if tuple(member.pid for member in members) != pids:
            raise BenchError(f"a process of the {name} died while it was measured; its reason stands above")
    finally:
        for member in members:
            await member.stop()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    start = secrets.randbelow(_PORTS)
    for step in range(_PORTS):
        port = _FIRST_PORT + (start + step) % _PORTS
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise BenchError("no port of 127.0.0.1 is free")


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(_database(url, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
