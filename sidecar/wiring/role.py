"""One role's process as its parent sees it: started, told its settings, started again when it dies, and stopped."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog

from sidecar.catalogue import BARE_NAMES, PREFIX
from sidecar.settings import LAUNCHER_DIRECTORY, Settings

log = structlog.get_logger()

#: Seconds in which a process must say that it is ready, and in which it must have stopped.
START_SECONDS, STOP_SECONDS = 60.0, 40.0

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0

#: A process that was up this long earned a quick restart again.
_STEADY_SECONDS = 60.0


class RoleError(Exception):
    """A part of the fleet did not start; `code` is the command's exit code: 2 for a setting, 1 for the rest."""

    def __init__(self, text: str, *, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Role:
    """One role's process. `load` it and `start` it with the settings, or let it `join`; `stop` it."""

    def __init__(self, role: str, metrics: Path, *, quiet: bool) -> None:
        self.role = role
        self._metrics = metrics
        self._quiet = quiet
        self._settings = b""
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process as it runs now; another one after it died."""
        return None if self._process is None else self._process.pid

    async def load(self) -> None:
        """Start the process: it loads its libraries, and waits for the settings."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sidecar.wiring.member",
            self.role,
            *(["quiet"] if self._quiet else []),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C reaches the parent alone, which stops the others in order.
            start_new_session=True,
            env=_environment(self._metrics),
        )

    async def start(self, settings: Settings) -> None:
        """Tell the settings, wait until the process is ready, and keep it; raise `RoleError` when it ends instead."""
        self._settings = encode_settings(settings)
        if not await self._settle():
            raise RoleError(f"the {self.role} could not start; its reason stands above")
        self._keeper = asyncio.create_task(self._keep())

    def join(self, settings: Settings) -> None:
        """Start the process while nobody waits for it, and keep it; a start that fails is tried again."""
        self._settings = encode_settings(settings)
        self._keeper = asyncio.create_task(self._keep())

    def reload(self) -> None:
        """Ask the process to read its files again."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Ask the process to finish and wait for it; past the time it is killed."""
        if self._keeper is not None:
            # First: it would start the process again.
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
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

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        if self._process is None:
            await self._restart(0.0)
        while self._process is not None:
            since = time.monotonic()
            status = await self._process.wait()
            if time.monotonic() - since > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            log.error("role_died", role=self.role, status=status, again_in_seconds=pause)
            self._close_gauges(self._process.pid)
            pause = await self._restart(pause)

    async def _restart(self, pause: float) -> float:
        """Start the process until it is ready, each time after a longer pause; return the next one."""
        while True:
            await asyncio.sleep(pause)
            pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            try:
                await self.load()
            except OSError as error:
                # No memory or no descriptors for another process: that passes.
                log.error("role_restart_failed", role=self.role, error=type(error).__name__, again_in_seconds=pause)  # noqa: TRY400 - nothing to trace
            else:
                if await self._settle():
                    return pause
                log.error("role_restart_failed", role=self.role, error="it ended", again_in_seconds=pause)

    def _close_gauges(self, pid: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        # What it had open is open no more; what it had counted stays counted.
        with contextlib.suppress(OSError):
            mark_process_dead(pid, str(self._metrics))  # type: ignore[no-untyped-call]  # it has no types

    async def _settle(self) -> bool:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return False
        with contextlib.suppress(OSError):
            process.stdin.write(self._settings + b"\n")
            await process.stdin.drain()
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                said = await process.stdout.readline()
        if said.strip() == b"ready":
            return True
        if process.returncode is None:
            process.kill()
        await process.wait()
        return False


def _environment(metrics: Path) -> dict[str, str]:
    # Settings reach a member on its stdin, where no other process can read them.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(PREFIX) and name not in BARE_NAMES
    }
    environment["PYTHONPATH"] = str(LAUNCHER_DIRECTORY)
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    return environment


def encode_settings(settings: Settings) -> bytes:
    """Return the settings as one line for a member of the fleet."""
    return msgspec.json.encode(settings, enc_hook=str)


def decode_settings(line: bytes) -> Settings:
    """Return the settings that `encode_settings` wrote."""
    return msgspec.json.decode(line, type=Settings, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    return kind(value)
