"""The embedded default: real PostgreSQL and Valkey servers from wheels, run as children of this process.

It is a first look's and a test's convenience that keeps every promise all the same: what was accepted is on disk, and
a server that dies comes back. Nothing here may need a hand, a privilege, or a port.
"""

import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from sidecar.child import EmbeddedError
from sidecar.place import announced, occupied
from sidecar.postgres import postgres_running
from sidecar.valkey import valkey_running

__all__ = ["EmbeddedError", "Servers", "embedded", "running"]


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """The URLs of the running servers, with their passwords; empty for a server that was not asked for."""

    database_url: str
    redis_url: str


@asynccontextmanager
async def embedded(
    data_dir: Path, *, postgres: bool = True, valkey: bool = True, durable: bool = True, aof: bool | None = None
) -> AsyncIterator[Servers]:
    """Run the servers on *data_dir* for the time of the block; they serve when it begins.

    *durable* is what accepted mail needs; without it nothing survives a crash of the machine, for tests. *aof* says
    whether Valkey writes its append-only file, and follows *durable* when it is None. Raises `EmbeddedError`.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the servers die with the thread that started them: start them from the main thread")
    async with AsyncExitStack() as stack:
        try:
            place = stack.enter_context(occupied(data_dir, servers=postgres or valkey))
            database_url = redis_url = ""
            if postgres:
                database_url = await stack.enter_async_context(postgres_running(place, durable=durable))
            if valkey:
                keeps = durable if aof is None else aof
                redis_url = await stack.enter_async_context(valkey_running(place, aof=keeps))
        except OSError as error:
            raise EmbeddedError(f"the embedded servers cannot use {data_dir}: {error}") from error
        place.announce(f"{database_url}\n{redis_url}\n")
        yield Servers(database_url=database_url, redis_url=redis_url)


def running(data_dir: Path) -> Servers | None:
    """Return the servers that another process runs on *data_dir*, for a command beside a running Outrider."""
    try:
        text = announced(data_dir)
    except OSError as error:
        raise EmbeddedError(f"{data_dir} belongs to another account: {error}") from error
    if not text:
        return None
    database_url, redis_url, *_ = text.split("\n")
    return Servers(database_url=database_url, redis_url=redis_url)
