"""Run the embedded PostgreSQL: make its cluster once, start it with the flags that an accepted message needs.

It listens on a unix socket alone and asks for a password: every service that runs as `nobody` shares its uid.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from urllib.parse import quote

import asyncpg

from sidecar.binaries import Binary, find_postgres
from sidecar.child import EmbeddedError, give, spawn, tail
from sidecar.place import Place
from sidecar.supervise import Program, kept_running

_USER = "outrider"
_DATABASE = "outrider"
_ANSWER_SECONDS = 5.0

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    # What a statement held stays out of the log: values are people's addresses.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@asynccontextmanager
async def postgres_running(place: Place, *, durable: bool) -> AsyncIterator[str]:
    """Run PostgreSQL for the time of the block and yield its URL."""
    cluster = place.home / "postgres"
    secret = place.secret("postgres", fresh=not cluster.exists())
    binary = await find_postgres(place.store, major=_written_by(cluster), account=place.account)
    if not cluster.exists():
        await _initialise(place, cluster, binary, secret=secret, durable=durable)

    async def answers() -> bool:
        return await _answers(_url(place, "postgres", secret))

    async with kept_running(_program(place, cluster, binary, durable=durable), answers):
        await _create_database(_url(place, "postgres", secret))
        yield _url(place, _DATABASE, secret)


def _url(place: Place, database: str, secret: str) -> str:
    # The port is named because PGPORT would be used otherwise.
    return f"postgresql://{_USER}:{secret}@/{database}?host={quote(str(place.run), safe='/')}&port=5432"


def _written_by(cluster: Path) -> int | None:
    try:
        return int((cluster / "PG_VERSION").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        if cluster.exists():
            raise EmbeddedError(f"{cluster} is no PostgreSQL data directory: restore it, or move it away") from None
        return None


def _program(place: Place, cluster: Path, binary: Binary, *, durable: bool) -> Program:
    settings = _SETTINGS | (_DURABLE if durable else _FLEETING)
    if binary.major >= 18:
        # Its io workers are three processes that a database of this size does not need.
        settings = settings | {"io_method": "sync"}
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Program(
        name="PostgreSQL",
        argv=(str(binary.path), "-D", str(cluster), "-k", str(place.run), "-p", "5432", *flags),
        mark=str(cluster),
        pid_file=cluster / "postmaster.pid",
        leftovers=(place.run / ".s.PGSQL.5432", place.run / ".s.PGSQL.5432.lock"),
        log=place.logs / "postgres.log",
        account=place.account,
        stop=SIGINT,
        abort=SIGQUIT,
    )


async def _initialise(place: Place, cluster: Path, binary: Binary, *, secret: str, durable: bool) -> None:
    """Make the cluster under another name first: one that was interrupted never looks like a whole one."""
    partial = cluster.with_name("postgres.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(mode=0o700)
    give(place.account, partial)
    password = place.home / "postgres.password"
    place.write(password, secret)
    try:
        status = await _initdb(place, partial, binary, password=password, durable=durable)
    finally:
        password.unlink()
    if status != 0:
        raise EmbeddedError(
            f"PostgreSQL's initdb failed with status {status}; the end of {_initdb_log(place)}:\n"
            f"{tail(_initdb_log(place))}"
        )
    partial.rename(cluster)


def _initdb_log(place: Place) -> Path:
    return place.logs / "initdb.log"


async def _initdb(place: Place, directory: Path, binary: Binary, *, password: Path, durable: bool) -> int:
    argv = [str(binary.path.with_name("initdb")), "-D", str(directory), "-U", _USER, "-E", "UTF8"]
    argv += ["--locale=C", "-k", "--auth=scram-sha-256", f"--pwfile={password}"]
    if not durable:
        argv.append("--no-sync")
    process = await spawn(argv, account=place.account, dies_with=SIGINT, output=_initdb_log(place))
    try:
        return await process.wait()
    except asyncio.CancelledError:
        # A server of its own runs below it, and would go on writing into what the next start takes away.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, SIGKILL)
        await process.wait()
        raise


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=_ANSWER_SECONDS)
    except asyncpg.TooManyConnectionsError:
        return True
    except asyncpg.InvalidPasswordError:
        raise EmbeddedError(
            "the embedded PostgreSQL refuses its own password: postgres.secret does not belong to this data directory"
        ) from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


async def _create_database(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=_ANSWER_SECONDS)
    try:
        with contextlib.suppress(asyncpg.DuplicateDatabaseError):
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
    finally:
        await connection.close()
