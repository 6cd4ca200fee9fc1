"""Hold one pair of embedded servers for a test session, until standard input closes.

A process of its own, because the servers die with the thread that started them and pytest's loops come and go. It
prints their URLs as one line of JSON. Whatever ends the tests closes the pipe, so nothing is ever left behind.
"""

import asyncio
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import structlog

from sidecar.embedded import embedded

# Each test has a database of its own, of hundreds of files: in memory that takes a quarter of the time. They are
# not synced anywhere else either, and what holds when the power goes is proved with servers of their own.
_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory made in it has a name of its own
_ENOUGH = 4 * 1024**3


def place() -> Path | None:
    """Return where the servers keep their files: in memory if there is room, or where whoever runs the tests says."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ENOUGH:
        return None
    return _MEMORY


async def main() -> None:
    """Start the servers, say where they are, wait for the end of the input, stop them."""
    with tempfile.TemporaryDirectory(prefix="outrider-test-", dir=place(), ignore_cleanup_errors=True) as directory:
        # The append-only file stays on: the tracker refuses to trust a Redis that cannot prove it.
        async with embedded(Path(directory), durable=False, aof=True) as servers:
            print(  # noqa: T201 - the line that the fixture reads
                json.dumps({"database_url": servers.database_url, "redis_url": servers.redis_url}), flush=True
            )
            await _input_closed()


async def _input_closed() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    await reader.read()


if __name__ == "__main__":
    # Standard output is the fixture's; only trouble is worth a line of the test report.
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    asyncio.run(main())
