"""A whole Outrider as an operator starts it: `run` in a process of its own, with everything below it."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp

from ledger.store import Ledger, open_ledger
from sidecar.embedded import running as running_servers

ROOT = Path(__file__).resolve().parents[1]
#: The environment of a command: an operator's settings in the tests' own are none of its business.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}

START_SECONDS = 60.0

#: What the programs of the embedded servers are called.
_SERVERS = {"postgresql": "postgres", "redis": "valkey-server"}


@contextmanager
def short_directory() -> Iterator[Path]:
    """Yield a new directory with a short path that the servers' account may pass through."""
    path = Path(tempfile.mkdtemp(prefix="outrider-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def descendants(pid: int) -> set[int]:
    """Return every process below *pid*."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            # The command's name is in brackets and may hold anything; what follows is plain.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        below = [child for child in parents.get(waiting.pop(), []) if child not in found]
        found.update(below)
        waiting += below
    return found


def is_running(pid: int) -> bool:
    """Tell whether *pid* runs: a zombie does not, unless one of its threads still holds what it had open."""
    try:
        states = [
            (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except OSError:
        # It, or a thread of it, went away while we looked.
        return Path(f"/proc/{pid}/task").is_dir() and is_running(pid)
    return not {"Z", "X"}.issuperset(states)


def arguments(pid: int) -> list[str]:
    """Return the command line of *pid*; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


class Outrider:
    """One `./outrider run` on *data_dir*, started as often as a test likes on the same ports."""

    def __init__(self, data_dir: Path, free_port: Callable[[], int], **settings: str) -> None:
        self.data_dir = data_dir
        #: What all its processes said on standard error, over every start.
        self.log = data_dir / "stderr.log"
        self.smtp, self.http, self.console = free_port(), free_port(), free_port()
        self.token = secrets.token_urlsafe(16)
        self._settings = {
            "data_dir": str(data_dir),
            "relay.listen": f"127.0.0.1:{self.smtp}",
            "relay.upstream": "capture",
            "relay.workers": "1",
            "tracker.listen": f"127.0.0.1:{self.http}",
            "console.listen": f"127.0.0.1:{self.console}",
            "console.token": self.token,
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The command's process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start and wait until every door is open."""
        words = [word for name, value in self._settings.items() for word in ("--set", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar", "run", *words, cwd="/", env=ENVIRONMENT, stderr=log
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_ready():
                assert self._process.returncode is None, f"the command ended instead of starting:\n{self._last_words()}"
                await asyncio.sleep(0.05)

    async def kill(self) -> set[int]:
        """Kill the command alone, as kill -9 does; return every process that was below it."""
        below = descendants(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()
        return below

    def processes(self, name: str) -> list[int]:
        """Return the processes of a role (`relay`, `tracker`…), or of `postgresql` or `redis` with all below it."""
        found: list[int] = []
        for pid in sorted(descendants(self.pid)):
            words = arguments(pid)
            if name in _SERVERS and Path(words[0] if words else "").name == _SERVERS[name]:
                return [pid, *sorted(descendants(pid))]
            if "sidecar.wiring.member" in words and name in words:
                found.append(pid)
        assert found, f"no process of {name} runs"
        return found

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Kill a server or a role, and keep it from coming back for the time of the block."""
        # Who would start it again at once is asleep meanwhile.
        os.kill(self.pid, signal.SIGSTOP)
        try:
            pids = self.processes(name)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(START_SECONDS):
                while any(map(is_running, pids)):  # noqa: ASYNC110 - not our children: nobody tells us
                    await asyncio.sleep(0.01)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Let a server or a role hang for the time of the block: what is asked of it stays without an answer."""
        pids = self.processes(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def stop(self) -> int:
        """Ask the command to stop, and return its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        async with asyncio.timeout(START_SECONDS):
            return await self._process.wait()

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        """Open the ledger of the running command."""
        servers = running_servers(self.data_dir)
        assert servers is not None
        async with open_ledger(servers.database_url) as ledger:
            yield ledger

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.smtp)
            async with asyncio.timeout(5):
                banner = await reader.readline()
            writer.close()
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
                for port in (self.http, self.console):
                    async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        if answer.status != 200:
                            return False
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False
        return banner.startswith(b"220")


@asynccontextmanager
async def outrider(data_dir: Path, free_port: Callable[[], int], **settings: str) -> AsyncIterator[Outrider]:
    """Run an Outrider for the time of the block."""
    one = Outrider(data_dir, free_port, **settings)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
