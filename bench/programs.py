"""Other people's programs: whether they are here, which version they are, and how they run beside a bench.

A program that is not here is a line in the report, never a failure.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from bench.servers import BenchError
from sidecar.child import spawn, tail

# Where administration programs stand, which an ordinary PATH leaves out.
_MORE_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_VERSION: Final = re.compile(rb"[0-9]+\.[0-9]+(?:\.[0-9]+)*")
_ASK_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.02


def find(name: str) -> str | None:
    """Return the path of a program; None when it is not here."""
    return shutil.which(name, path=os.pathsep.join([*os.get_exec_path(), *_MORE_PLACES]))


async def said(*argv: str) -> bytes:
    """Run a program to its end and return what it printed, on both outputs."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_ASK_SECONDS):
        printed, _ = await process.communicate()
    return printed


async def version(*argv: str) -> str:
    """Return the first version number that a program prints when it is run so."""
    found = _VERSION.search(await said(*argv))
    return found[0].decode("ascii") if found is not None else "unknown"


async def finished(argv: Sequence[str], *, seconds: float) -> str | None:
    """Run a program to its end; return what it complained of when it failed, None when it did not."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A group of its own: what it started ends with it, and lets go of its output.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        return f"{Path(argv[0]).name} did not end within {seconds:g} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == 0:
        return None
    lines = printed.decode("utf-8", "replace").strip().splitlines()
    return f"{Path(argv[0]).name}: {lines[-1] if lines else f'status {process.returncode}'}"


@asynccontextmanager
async def server(argv: Sequence[str], *, port: int, log: Path, seconds: float = 30.0) -> AsyncIterator[int]:
    """Run a server for the time of the block and yield its pid; it accepts connections on *port* when it begins.

    It ends with this process, whatever ends that.
    """
    process = await spawn(argv, account=None, dies_with=signal.SIGTERM, output=log)
    try:
        await _listens(process, port, log, seconds)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path, seconds: float) -> None:
    until = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process.returncode is not None or asyncio.get_running_loop().time() > until:
                raise BenchError(f"a server did not start: {tail(log)}") from None
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            return
