"""Run the whole of Outrider from one command: the servers where none are named, and a process for each role.

The command is the parent of everything: it starts, restarts and stops, and when it dies nothing of it stays behind.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import structlog

from ledger.processes import UnknownKeyError
from ledger.schema import SchemaError
from ledger.store import UNAVAILABLE
from sidecar.embedded import EmbeddedError, embedded
from sidecar.keys import KeyFileError, load_keys
from sidecar.logs import configure
from sidecar.settings import LAUNCHER_DIRECTORY, Settings, relay_workers
from sidecar.wiring.process import prepare_ledger

log = structlog.get_logger()

#: Seconds in which every process must say that it is ready, and in which it must have stopped.
START_SECONDS, STOP_SECONDS = 60.0, 40.0

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0

#: Where the processes of one machine share their metrics, below the data directory.
METRICS_DIRECTORY = "metrics"


class RoleError(Exception):
    """A part of the fleet did not start."""


class Role:
    """One role's process: started, started again when it dies, and stopped."""

    def __init__(self, role: str, settings: Settings, *, quiet: bool) -> None:
        self.role = role
        self._quiet = quiet
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start the process and wait until it is ready; raise `RoleError` when it ends instead."""
        process = await self._launch()
        if process is None:
            raise RoleError(f"the {self.role} could not start; its reason stands above")
        self._keeper = asyncio.create_task(self._keep(process))

    async def stop(self) -> None:
        """Ask the process to finish and wait for it; past the time it is killed."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                log.error("role_killed", role=self.role)  # noqa: TRY400 - nothing to trace
                process.kill()
                await process.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        pause = _FIRST_PAUSE
        while True:
            status = await process.wait()
            if self._stopping:
                return
            log.error("role_died", role=self.role, status=status, again_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            started = await self._launch()
            if started is not None:
                process, pause = started, _FIRST_PAUSE

    async def _launch(self) -> asyncio.subprocess.Process | None:
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sidecar.wiring.member",
            self.role,
            *(["quiet"] if self._quiet else []),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C reaches the parent alone, which stops the others in order.
            start_new_session=True,
            env=_environment(self._settings.data_dir),
        )
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise RoleError("a process without its pipes")
        with contextlib.suppress(OSError):
            stdin.write(encode_settings(self._settings) + b"\n")
            await stdin.drain()
        try:
            async with asyncio.timeout(START_SECONDS):
                said = await stdout.readline()
        except TimeoutError:
            said = b""
        if said.strip() == b"ready":
            return process
        if process.returncode is None:
            process.kill()
        await process.wait()
        return None


def _environment(data_dir: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTRIDER_")}
    environment["PYTHONPATH"] = str(LAUNCHER_DIRECTORY)
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(data_dir / METRICS_DIRECTORY)
    return environment


def encode_settings(settings: Settings) -> bytes:
    """Return the settings as one line for a member of the fleet."""
    return msgspec.json.encode(settings, enc_hook=str)


def decode_settings(line: bytes) -> Settings:
    """Return the settings that `encode_settings` wrote."""
    return msgspec.json.decode(line, type=Settings, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    return kind(value)


@asynccontextmanager
async def fleet(
    settings: Settings, *, roles: Sequence[str] | None = None, quiet: bool = False
) -> AsyncIterator[Settings]:
    """Run servers and roles for the time of the block, and yield the settings they run with.

    *quiet* members log warnings and worse only.
    """
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(
            embedded(settings.data_dir, postgres=not settings.database_url, valkey=not settings.redis_url)
        )
        full = msgspec.structs.replace(
            settings,
            database_url=settings.database_url or servers.database_url,
            redis_url=settings.redis_url or servers.redis_url,
        )
        await _prepare(full)
        metrics = full.data_dir / METRICS_DIRECTORY
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(mode=0o700)
        if roles is None:
            roles = ["courier", "console", "tracker", *(["relay"] * relay_workers(full))]
        members = [Role(role, full, quiet=quiet) for role in roles]
        try:
            await _all(*(member.start() for member in members))
            yield full
        finally:
            # The doors first: what comes in last must still find the courier.
            for member in reversed(members):
                if member.role != "relay":
                    await member.stop()
                    continue
                if member is members[-1]:
                    await asyncio.gather(*(relay.stop() for relay in members if relay.role == "relay"))


async def _prepare(settings: Settings) -> None:
    try:
        await prepare_ledger(settings.database_url, load_keys(settings))
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        raise RoleError(f"PostgreSQL at DATABASE_URL cannot be used: {type(error).__name__}") from error


async def _all(*starts: Any) -> None:
    results = await asyncio.gather(*starts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def main(settings: Settings) -> int:
    """Run everything until SIGTERM or SIGINT, finish what was accepted, and return the exit code."""
    configure("run")
    try:
        asyncio.run(_run(settings))
    except (RoleError, EmbeddedError, KeyFileError, SchemaError, UnknownKeyError, OSError) as error:
        print(f"outrider: {error}", file=sys.stderr)  # noqa: T201 - the operator is looking
        return 1
    return 0


async def _run(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with fleet(settings) as full:
        log.info(
            "outrider_is_up",
            smtp=full.relay.listen,
            http=full.tracker.listen,
            console=f"http://{full.console.listen}/",
            data_dir=str(full.data_dir),
        )
        await stopping.wait()
        log.info("outrider_is_stopping")
