"""What the tracker is measured against: an aiohttp handler that answers a constant, on the same loop, and nothing else.

A process of its own, told its port on its command line; it prints a line when it listens, and ends with its input.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from tracker.open import GIF

_ROOT: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 20.0


@asynccontextmanager
async def bare_handler(port: int) -> AsyncIterator[int]:
    """Run it for the time of the block, and yield its pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.bare",
        str(port),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it was started so
        async with asyncio.timeout(_START_SECONDS):
            await process.stdout.readline()
        yield process.pid
    finally:
        assert process.stdin is not None  # noqa: S101 - it was started so
        process.stdin.close()
        await process.wait()


async def _answer(request: web.Request) -> web.Response:  # noqa: ARG001 - a handler's signature
    return web.Response(body=GIF, content_type="image/gif")


async def _main() -> None:
    app = web.Application()
    app.router.add_get("/pixel.gif", _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=1024).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    end = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(end), sys.stdin.buffer)
    await end.read()
    await runner.cleanup()


if __name__ == "__main__":
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_main())
