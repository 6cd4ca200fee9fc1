"""Run a command of the product to its end, as an operator types it."""

import asyncio
import signal
import sys
from collections.abc import Mapping

import msgspec
import pytest

from tests.running import ENVIRONMENT, START_SECONDS


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended."""

    code: int
    out: str
    err: str


async def command(*words: str, environment: Mapping[str, str] | None = None) -> Ended:
    """Run `outrider WORDS` to its end; one that does not end is asked to stop, and fails the test by its code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sidecar",
        *words,
        cwd="/",
        env=ENVIRONMENT | dict(environment or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        pytest.fail(f"outrider {' '.join(words)} ran on instead of naming what is wrong")
    assert process.returncode is not None
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())
