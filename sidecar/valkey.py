"""Run the embedded Valkey: the hit buffer, so durable means every answered append is on disk.

Its settings go through a file: on the command line everybody could read the password.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL, SIGTERM
from urllib.parse import quote

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar.binaries import find_valkey
from sidecar.child import give
from sidecar.place import Place
from sidecar.supervise import Program, kept_running

_ANSWER_SECONDS = 5.0


@asynccontextmanager
async def valkey_running(place: Place, *, aof: bool) -> AsyncIterator[str]:
    """Run Valkey for the time of the block and yield its URL; without *aof* it forgets everything when it stops."""
    directory = place.home / "valkey"
    if not directory.exists():
        directory.mkdir(mode=0o700)
        give(place.account, directory)
    secret = place.secret("valkey", fresh=True)
    binary = await find_valkey(place.store, account=place.account)
    config = place.home / "valkey.conf"
    socket = place.run / "valkey.sock"
    pid_file = directory / "valkey.pid"
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "requirepass": secret,
        "dir": str(directory),
        "pidfile": str(pid_file),
        # The title would hide the arguments by which a later start knows an orphan.
        "set-proc-title": "no",
        "save": "",
        "appendonly": "yes" if aof else "no",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }
    place.write(config, "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()))
    program = Program(
        name="Valkey",
        argv=(str(binary.path), str(config)),
        mark=str(config),
        pid_file=pid_file,
        leftovers=(socket,),
        log=place.logs / "valkey.log",
        account=place.account,
        stop=SIGTERM,
        abort=SIGKILL,
    )

    async def answers() -> bool:
        return await _answers(socket, secret)

    async with kept_running(program, answers):
        yield f"unix://:{secret}@{quote(str(socket))}?db=0"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


async def _answers(socket: Path, secret: str) -> bool:
    client = redis.asyncio.Redis(
        unix_socket_path=str(socket),
        password=secret,
        # With a deadline of its own it may swallow a cancellation: see `ledger.stream.connect`.
        socket_timeout=None,
        protocol=3,
        # Its own patience would hide for seconds that the server has ended.
        retry=Retry(NoBackoff(), 0),
    )
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return bool(await client.ping())
    except (OSError, TimeoutError, RedisError):
        return False
    finally:
        await client.aclose()
