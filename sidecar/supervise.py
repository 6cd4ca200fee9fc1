"""Keep one server process running: start it, wait until it answers, start it again when it dies, stop it.

Only one supervisor may be at work on a server's directory; whoever calls this holds the lock that makes it so.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Protocol

import msgspec
import structlog

from sidecar.child import Account, EmbeddedError, is_alive, read_pid, runs_with, spawn, tail

log = structlog.get_logger()

#: Replaying the log after a crash takes PostgreSQL seconds, on a slow disk minutes.
_READY_SECONDS = 300.0
_POLL_SECONDS = 0.01
#: A stop writes what is in memory to disk first; after this it is cut short, and the next start recovers.
_STOP_SECONDS = 60.0
_ABORT_SECONDS = 10.0

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 30.0
#: A log of this size is put aside at the next start; the one before it goes.
_LOG_BYTES = 10_000_000

#: A server that was up this long earned a quick restart again.
_STEADY_SECONDS = 60.0


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """How one server is started, recognised and stopped."""

    #: As messages and logs call it.
    name: str
    argv: tuple[str, ...]
    #: The one argument that no other process on the machine has: a path in its own directory.
    mark: str
    pid_file: Path
    #: Removed before a start: what a killed server leaves and a new one would stumble over.
    leftovers: tuple[Path, ...]
    log: Path
    account: Account | None
    #: The graceful stop, and what follows when it takes too long.
    stop: Signals
    abort: Signals


class Probe(Protocol):
    """Ask a server whether it serves."""

    async def __call__(self) -> bool:
        """Return False while it is starting; raise `EmbeddedError` when it never will."""
        ...


class _Keeper:
    """The process of one program, replaced whenever it dies."""

    def __init__(self, program: Program, probe: Probe) -> None:
        self._program = program
        self._probe = probe
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = self._program
        await _stop_orphan(program)
        for path in program.leftovers:
            path.unlink(missing_ok=True)
        _turn_over(program.log)
        self._process = await spawn(program.argv, account=program.account, dies_with=program.stop, output=program.log)
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            await self.stop()
            raise

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        name = self._program.name
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._probe():
                    if process.returncode is not None:
                        raise EmbeddedError(
                            f"{name} ended with status {process.returncode} while starting; "
                            f"the end of {self._program.log}:\n{tail(self._program.log)}"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise EmbeddedError(
                f"{name} did not answer within {_READY_SECONDS:.0f} s; see {self._program.log}"
            ) from None

    async def keep(self) -> None:
        """Restart the server for as long as nobody cancels this."""
        delay = _FIRST_DELAY_SECONDS
        while self._process is not None:
            since = time.monotonic()
            status = await self._process.wait()
            if time.monotonic() - since > _STEADY_SECONDS:
                delay = _FIRST_DELAY_SECONDS
            log.error("embedded_server_died", server=self._program.name, status=status)
            delay = await self._restart(delay)

    async def _restart(self, delay: float) -> float:
        while True:
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
            try:
                await self.start()
            except (EmbeddedError, OSError) as error:
                log.error(  # noqa: TRY400 - our own text says it all; a traceback adds nothing
                    "embedded_server_restart_failed",
                    server=self._program.name,
                    error=str(error),
                    next_in_seconds=delay,
                )
            else:
                log.info("embedded_server_restarted", server=self._program.name)
                return delay

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        program = self._program
        for signal, seconds in (
            (program.stop, _STOP_SECONDS),
            (program.abort, _ABORT_SECONDS),
            (SIGKILL, _ABORT_SECONDS),
        ):
            if process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await process.wait()


def _turn_over(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > _LOG_BYTES:
        log_file.replace(log_file.with_name(f"{log_file.name}.1"))


@asynccontextmanager
async def kept_running(program: Program, probe: Probe) -> AsyncIterator[None]:
    """Run *program* for the time of the block: it serves when the block begins and is stopped when it ends."""
    keeper = _Keeper(program, probe)
    await keeper.start()
    log.info("embedded_server_started", server=program.name)
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await keeper.stop()
        log.info("embedded_server_stopped", server=program.name)


async def _stop_orphan(program: Program) -> None:
    # The lock was free, so a server that still runs here belongs to a supervisor that was killed.
    pid = read_pid(program.pid_file)
    if pid is None or not is_alive(pid):
        return
    if not await runs_with(pid, program.mark):
        # The number went to somebody else (a container counts from 1 again): PostgreSQL would take them for its own.
        program.pid_file.unlink(missing_ok=True)
        return
    log.warning("orphan_server_found", server=program.name, pid=pid)
    for signal, seconds in ((program.stop, _STOP_SECONDS), (program.abort, _ABORT_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _ended(pid, program.mark)
                return
    raise EmbeddedError(f"{program.name} (pid {pid}) of an earlier Outrider runs here and does not stop")


async def _ended(pid: int, mark: str) -> None:
    # It is nobody's child any more, so there is no event to wait for.
    while await runs_with(pid, mark):  # noqa: ASYNC110 - as said above
        await asyncio.sleep(_POLL_SECONDS)
