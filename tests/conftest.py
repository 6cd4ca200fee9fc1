"""Real servers and small conveniences for every test.

Each xdist worker has a PostgreSQL and a Valkey of its own, each test a database of its own. Set
OUTRIDER_TEST_DATABASE_URL and OUTRIDER_TEST_REDIS_URL to run the suite against servers you started yourself.
"""

import asyncio
import inspect
import logging
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
import pytest_asyncio
import redis.asyncio
import structlog
from hypothesis import settings as hypothesis_settings

from ledger.store import Ledger, open_ledger
from ledger.stream import connect
from sidecar.logs import LIBRARIES
from tests.mailings import Connection, connected

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is no failed property; each test has its own time limit. Every run draws other examples.
hypothesis_settings.register_profile("outrider", deadline=None, max_examples=50)
hypothesis_settings.load_profile("outrider")

ROOT = Path(__file__).resolve().parent.parent

_DATABASE_URL = os.environ.get("OUTRIDER_TEST_DATABASE_URL", "")
_REDIS_URL = os.environ.get("OUTRIDER_TEST_REDIS_URL", "")
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

# Below the range from which the kernel takes the ports of outgoing connections, a slice per worker.
_FIRST_PORT = 12_000
_PORTS_PER_WORKER = 1_000
_PORT_SLICES = 20


# The long ones first, so that no worker is left alone with one at the end.
_ORDER = ("acceptance", "integration", "contract", "unit", "fuzz")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run directory by directory; within one the order stays the random one."""
    items.sort(key=lambda item: _ORDER.index(item.path.relative_to(ROOT / "tests").parts[0]))


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of this test session."""

    database_url: str
    redis_url: str


class Eventually(Protocol):
    """Wait for a condition: `await eventually(lambda: len(seen) == 3)`; what the lambda returns may be awaitable."""

    async def __call__(self, condition: Callable[[], object], timeout: float = 10.0) -> Any:  # noqa: ASYNC109 - the wait's own deadline
        """Return the first truthy result; fail the test after *timeout* seconds."""
        ...


@pytest.fixture(scope="session")
def servers() -> Iterator[Pair]:
    """Start this worker's PostgreSQL and Valkey, unless both were given."""
    if _DATABASE_URL and _REDIS_URL:
        yield Pair(database_url=_DATABASE_URL, redis_url=_REDIS_URL)
        return
    holder = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "servers.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A Ctrl-C ends the tests; the servers end when the tests have put everything away.
        start_new_session=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        line = holder.stdout.readline()
        assert line, "the test servers did not start; their reason stands above"
        own = msgspec.json.decode(line, type=Pair)
        yield Pair(database_url=_DATABASE_URL or own.database_url, redis_url=_REDIS_URL or own.redis_url)
        holder.stdin.close()
        assert holder.wait(timeout=60) == 0


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(_database(url, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(servers: Pair) -> AsyncIterator[str]:
    """Migrate one database; every test's own is a copy of its files."""
    from ledger.schema import migrate

    name = f"template_{secrets.token_hex(6)}"
    await _administer(servers.database_url, f"CREATE DATABASE {name}")
    await migrate(_database(servers.database_url, name))
    yield name
    await _administer(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def database_url(servers: Pair, template: str) -> AsyncIterator[str]:
    """Return the URL of a fresh, migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    await _administer(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield _database(servers.database_url, name)
    await _administer(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """Return an asyncpg pool on `database_url`."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=10) as made:
        yield made


@pytest_asyncio.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """Return the ledger on a fresh database."""
    async with open_ledger(database_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def look(database_url: str) -> AsyncIterator[Connection]:
    """Return a connection of the test's own."""
    async with connected(database_url) as connection:
        yield connection


@pytest_asyncio.fixture(name="redis")
async def redis_client(redis_url: str) -> AsyncIterator["redis.asyncio.Redis"]:
    """Return a client on an empty server."""
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def redis_url(servers: Pair) -> str:
    """Return the URL of an empty, durable database of Valkey or Redis; a test may change its settings."""
    url = servers.redis_url
    if _REDIS_URL:
        assert _WORKER < 16, "a shared Redis has 16 databases: run fewer workers"
        parts = urlsplit(url)
        own = {"query": f"db={_WORKER}"} if parts.scheme == "unix" else {"path": f"/{_WORKER}"}
        url = urlunsplit(parts._replace(**own))
    client = redis.asyncio.Redis.from_url(url, protocol=3)
    try:
        if not _REDIS_URL:
            await client.client_unpause()
            for name, value in _VALKEY_DEFAULTS.items():
                await client.config_set(name, value)
        await client.flushdb()
    finally:
        await client.aclose()
    return url


_VALKEY_DEFAULTS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    """Put everything back that a test configures about logging in this process."""
    root = logging.getLogger()
    config, level, handlers, hook = structlog.get_config(), root.level, list(root.handlers), sys.excepthook
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    structlog.configure(**config)
    logging.captureWarnings(capture=False)
    root.setLevel(level)
    root.handlers[:] = handlers
    sys.excepthook = hook
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that names a TCP port of 127.0.0.1 which nobody else takes: `free_port()`."""
    return next_port


def next_port() -> int:
    """Return a TCP port of 127.0.0.1 which nobody else takes, nor who asks next in this process."""
    return next(_ports)


def _free_ports() -> Iterator[int]:
    first = _FIRST_PORT + (_WORKER % _PORT_SLICES) * _PORTS_PER_WORKER
    for step in count(random.SystemRandom().randrange(_PORTS_PER_WORKER)):
        port = first + step % _PORTS_PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


# One for the whole process: two that begin anywhere may name a port twice before anybody listens there.
_ports: Final = _free_ports()


@pytest.fixture
def eventually() -> Eventually:
    """Return the function that waits for a condition with a deadline."""

    async def wait(condition: Callable[[], object], timeout: float = 10.0) -> Any:  # noqa: ASYNC109 - the wait's own deadline
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            value = await result if inspect.isawaitable(result) else result
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"the condition did not come true within {timeout} s; it last returned {value!r}")
            await asyncio.sleep(0.01)

    return wait
