"""The parent of the fleet: its ports are its own, what dies comes back, and it stops whenever it is told to."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiosmtplib
import pytest
import structlog

from relay.settings import RelaySettings
from sidecar.settings import ConsoleSettings, KeysSettings, Settings
from sidecar.wiring import fleet, role
from sidecar.wiring.ports import claimed
from sidecar.wiring.role import Role, RoleError
from tests.commands import command
from tests.conftest import Eventually
from tests.running import ENVIRONMENT, Outrider, arguments, descendants, is_running, outrider, short_directory
from tracker.settings import TrackerSettings

pytestmark = pytest.mark.timeout(180)

SETTINGS = ("relay.listen", "tracker.listen", "console.listen")

#: What an operator with a database of his own must name.
KEYS = {f"keys.{name}": f"a key that is long enough to be one, {name}" for name in ("identity", "signing")}


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Listen as a process of the fleet does."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(100)
        listener.setblocking(False)
        yield listener


class TestPorts:
    """A port belongs to one fleet, from before its processes listen until it has ended."""

    async def test_a_claimed_port_is_refused_to_another_fleet(self, free_port: Callable[[], int]) -> None:
        """By the setting's name, under any address that means it, and until the first one ends."""
        port = free_port()
        async with claimed({"relay.listen": f"127.0.0.1:{port}"}):
            for address in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"localhost:{port}"):
                with pytest.raises(RoleError, match=rf"^tracker\.listen: {address} is in use"):
                    async with claimed({"tracker.listen": address}):
                        pass
        async with claimed({"tracker.listen": f"127.0.0.1:{port}"}):
            pass

    @pytest.mark.parametrize("setting", SETTINGS)
    async def test_a_port_that_processes_share_is_taken_too(self, free_port: Callable[[], int], setting: str) -> None:
        """The kernel would let us in beside them."""
        port = free_port()
        with listening(port), pytest.raises(RoleError, match=rf"^{setting}: 127\.0\.0\.1:{port} is in use"):
            async with claimed({setting: f"127.0.0.1:{port}"}):
                pass

    async def test_an_address_of_another_machine_is_named(self, free_port: Callable[[], int]) -> None:
        """What cannot be bound at all is said with the kernel's reason."""
        address = f"192.0.2.1:{free_port()}"
        with pytest.raises(RoleError, match=rf"^relay\.listen: nobody can listen on {address}: Cannot assign"):
            async with claimed({"relay.listen": address}):
                pass

    async def test_who_listens_on_a_claimed_port_gets_every_connection(self, free_port: Callable[[], int]) -> None:
        """The socket that keeps the port takes nobody's calls; a restart finds the port free at once."""
        port = free_port()
        for _ in range(2):
            async with claimed({"relay.listen": f"127.0.0.1:{port}"}):
                with listening(port) as one, listening(port) as other:
                    for _ in range(40):
                        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                            accepted = await asyncio.wait_for(_accept(one, other), 5)
                            # Ours is closed first, so that it is ours that stays in TIME_WAIT.
                            accepted.close()
                            assert client.recv(1) == b""


async def _accept(*listeners: socket.socket) -> socket.socket:
    while True:
        for listener in listeners:
            with contextlib.suppress(BlockingIOError):
                return listener.accept()[0]
        await asyncio.sleep(0)


class TestTwoInstances:
    """The second one on somebody's port ends with an error, and the first one keeps all of its mail."""

    async def test_the_second_is_refused(self, free_port: Callable[[], int]) -> None:
        """Each door by itself, with the setting and the address."""
        with short_directory() as data_dir, short_directory() as other:
            async with outrider(data_dir, free_port) as first:
                for setting, port in zip(SETTINGS, (first.smtp, first.http, first.console), strict=True):
                    listens = {name: f"127.0.0.1:{free_port()}" for name in SETTINGS} | {setting: f"127.0.0.1:{port}"}
                    words = [word for name, value in listens.items() for word in ("--set", f"{name}={value}")]
                    ended = await command("run", "--data-dir", str(other), "--set", "relay.upstream=capture", *words)
                    assert ended.code == 1
                    assert f"outrider: {setting}: 127.0.0.1:{port} is in use" in ended.err
                    assert list(other.iterdir()) == [], "it began to work before it looked"


# What stands in for Python in the tests below: a process that is ready at once, and does as it is told.
MEMBER = """#!/bin/sh
read -r settings
echo $$ >> {folder}/started
echo ready
{then}
"""


class Stand:
    """Where a role's process is a script: told what to do, put away and put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "member"

    def does(self, then: str) -> None:
        """Let the processes that start from here on do *then*."""
        fresh = self.program.with_name("fresh")
        fresh.write_text(MEMBER.format(folder=self.folder, then=then))
        fresh.chmod(0o755)
        fresh.replace(self.program)

    def started(self) -> list[int]:
        """Return every process that was ready, in order."""
        path = self.folder / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @contextlib.asynccontextmanager
    async def running(self, name: str = "relay") -> AsyncIterator[Role]:
        """Run a role for the time of the block."""
        one = Role(name, self.folder, quiet=True)
        await one.load()
        await one.start(Settings(data_dir=self.folder))
        try:
            yield one
        finally:
            await one.stop()


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Let the members of a fleet be scripts."""
    made = Stand(tmp_path)
    made.does("exec sleep 1000")
    monkeypatch.setattr(sys, "executable", str(made.program))
    return made


class TestKeeping:
    """A role's process that dies is started again, for as long as the fleet runs."""

    async def test_nothing_to_start_is_no_end_of_trying(
        self, stand: Stand, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fork that fails, as without memory, is tried again."""
        monkeypatch.setattr(role, "_FIRST_PAUSE_SECONDS", 0.01)
        async with stand.running():
            stand.program.rename(stand.program.with_name("away"))
            os.kill(stand.started()[0], signal.SIGKILL)
            with structlog.testing.capture_logs() as said:
                await eventually(lambda: [one["event"] for one in said].count("role_restart_failed") >= 3)
            stand.program.with_name("away").rename(stand.program)
            await eventually(lambda: len(stand.started()) == 2)

    async def test_the_pause_grows_while_nothing_lasts(
        self, stand: Stand, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that is ready and dies at once earns no quick restart; one that lasted does."""
        monkeypatch.setattr(role, "_FIRST_PAUSE_SECONDS", 0.02)
        async with stand.running():
            stand.does("exit 1")
            began = time.monotonic()
            os.kill(stand.started()[0], signal.SIGKILL)
            await eventually(lambda: len(stand.started()) == 6)
            # 20, 40, 80, 160 and 320 ms.
            assert time.monotonic() - began > 0.62
            stand.does("exec sleep 1000")
            await eventually(lambda: is_running(stand.started()[-1]) and len(stand.started()) == 7)
            monkeypatch.setattr(role, "_STEADY_SECONDS", 0.0)
            began = time.monotonic()
            os.kill(stand.started()[-1], signal.SIGKILL)
            await eventually(lambda: len(stand.started()) == 8)
            assert time.monotonic() - began < 0.6, "the next pause would have been 1.28 s"

    async def test_stopping_ends_the_trying(self, stand: Stand, eventually: Eventually) -> None:
        """Between two tries too."""
        async with stand.running():
            stand.does("exit 1")
            os.kill(stand.started()[0], signal.SIGKILL)
            await eventually(lambda: not is_running(stand.started()[0]))
        started = stand.started()
        assert not any(map(is_running, started))
        await asyncio.sleep(2 * role._FIRST_PAUSE_SECONDS)
        assert stand.started() == started

    async def test_the_doors_close_before_the_courier(self, stand: Stand, eventually: Eventually) -> None:
        """What comes in last must still find who carries it on."""
        names = ("courier", "console", "relay", "tracker", "relay")
        stand.does(
            f'trap "echo $$ >> {stand.folder}/ended; exit 0" TERM\ntouch {stand.folder}/armed-$$\n'
            "while :; do sleep 0.01; done"
        )
        members = [Role(name, stand.folder, quiet=True) for name in names]
        for member in members:
            await member.load()
            await member.start(Settings(data_dir=stand.folder))
        pids = dict(zip(stand.started(), names, strict=True))
        await eventually(lambda: len(list(stand.folder.glob("armed-*"))) == len(names))
        await fleet._stop(members)
        order = [pids[int(line)] for line in (stand.folder / "ended").read_text().split()]
        assert order == ["relay", "relay", "tracker", "console", "courier"]


class TestWorkers:
    """Doors that several processes share."""

    async def test_as_many_processes_as_are_set(
        self,
        stand: Stand,
        database_url: str,
        redis_url: str,
        free_port: Callable[[], int],
        eventually: Eventually,
    ) -> None:
        """Relays and trackers: the first of each opens the door, the others join."""
        stand.does(f"echo $3 >> {stand.folder}/roles\nexec sleep 1000")
        settings = Settings(
            data_dir=stand.folder / "data",
            database_url=database_url,
            redis_url=redis_url,
            keys=KeysSettings(identity="an identity key of sixteen", signing=("a signing key of sixteen",)),
            relay=RelaySettings(upstream=("capture",), listen=f"127.0.0.1:{free_port()}", workers=3),
            tracker=TrackerSettings(listen=f"127.0.0.1:{free_port()}", workers=2),
            console=ConsoleSettings(listen=f"127.0.0.1:{free_port()}"),
        )
        roles = stand.folder / "roles"
        async with fleet.fleet(settings, quiet=True):
            await eventually(lambda: roles.exists() and len(roles.read_text().split()) == 7)
            assert sorted(roles.read_text().split()) == ["console", "courier", *["relay"] * 3, *["tracker"] * 2]
        assert not any(map(is_running, stand.started()))


class TestStopping:
    """SIGTERM and Ctrl-C end it at any moment, and twice is as good as once."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("moment", ["sidecar.wiring.member", "initdb", "postgres", "valkey-server"])
    async def test_a_start_is_cut_short(
        self, free_port: Callable[[], int], eventually: Eventually, moment: str, number: signal.Signals
    ) -> None:
        """The servers and the processes that it had started are gone, and nothing is said to be wrong."""
        with short_directory() as data_dir, listening(port := free_port()):
            # Valkey is the last to start, and everything would be up before we look: here the ledger never answers.
            silent = moment == "valkey-server"
            ledger = {"DATABASE_URL": f"postgresql://one@127.0.0.1:{port}/one"} if silent else {}
            one = Outrider(data_dir, free_port, **(KEYS if silent else {}))
            words = [word for name, value in one._settings.items() for word in ("--set", f"{name}={value}")]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sidecar", "run", *words),
                env=ENVIRONMENT | ledger,
                stderr=asyncio.subprocess.PIPE,
            )

            def reached() -> bool:
                return any(
                    moment in words or Path(words[0] if words else "").name == moment
                    for words in map(arguments, descendants(process.pid))
                )

            await eventually(reached, timeout=30)
            below = descendants(process.pid)
            process.send_signal(number)
            began = time.monotonic()
            _, err = await process.communicate()
            assert process.returncode == 0, err
            assert time.monotonic() - began < 15
            assert b"Traceback" not in err
            assert b"outrider_is_up" not in err
            await eventually(lambda: not any(map(is_running, below)))

    async def test_a_role_that_waits_for_its_ledger_stops_at_once(self, free_port: Callable[[], int]) -> None:
        """Also in the middle of a connection that nobody answers."""
        with short_directory() as data_dir, listening(port := free_port()) as silent:
            doors = {"relay.listen": f"127.0.0.1:{free_port()}", "relay.upstream": "capture"}
            words = [word for name, value in (KEYS | doors).items() for word in ("--set", f"{name}={value}")]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sidecar", "relay", "--data-dir", str(data_dir), *words),
                env=ENVIRONMENT
                | {"DATABASE_URL": f"postgresql://one@127.0.0.1:{port}/one", "REDIS_URL": "redis://127.0.0.1:1"},
                stderr=asyncio.subprocess.PIPE,
            )
            with await asyncio.wait_for(_accept(silent), 30):
                process.terminate()
                async with asyncio.timeout(10):
                    _, err = await process.communicate()
            assert process.returncode == 0, err

    async def test_being_told_again_and_again_changes_nothing(self, free_port: Callable[[], int]) -> None:
        """The stop in order goes on, and nobody is killed."""
        with short_directory() as data_dir:
            async with outrider(data_dir, free_port) as one:
                below = descendants(one.pid)
                stopping = asyncio.create_task(one.stop())
                for _ in range(10):
                    for number in (signal.SIGTERM, signal.SIGINT):
                        await asyncio.sleep(0.02)
                        if not stopping.done():
                            os.kill(one.pid, number)
                assert await stopping == 0
                said = one.log.read_text()
                assert "outrider_is_stopping" in said
                assert "role_killed" not in said
                assert "Traceback" not in said
                assert not any(map(is_running, below))


async def test_a_hangup_reads_the_users_again(free_port: Callable[[], int], eventually: Eventually) -> None:
    """`kill -HUP` of the command reaches every relay, and stops nobody."""
    with short_directory() as data_dir:
        users = data_dir / "users"
        await _set_password(users, "ann", "first")
        async with outrider(data_dir, free_port, relay__users=str(users)) as target:
            assert await _logs_in(target, "ann", "first")
            below = descendants(target.pid)
            await _set_password(users, "ben", "second")
            os.kill(target.pid, signal.SIGHUP)
            await eventually(lambda: _logs_in(target, "ben", "second"))
            assert await _logs_in(target, "ann", "first")
            assert descendants(target.pid) >= below


async def _set_password(users: Path, name: str, password: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "passwd", str(users), name, env=ENVIRONMENT, stdin=asyncio.subprocess.PIPE
    )
    await process.communicate(f"{password}\n".encode())
    assert process.returncode == 0


async def _logs_in(target: Outrider, name: str, password: str) -> bool:
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=target.smtp, start_tls=False)
    async with client:
        try:
            await client.login(name, password)
        except aiosmtplib.SMTPAuthenticationError:
            return False
    return True
