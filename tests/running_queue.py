"""Run a relay's queue for the time of a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.relaying import Relay


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[None]:
    """Make everything due and work on the queue until the block ends."""
    stopping = asyncio.Event()
    work = asyncio.create_task(relay.run_queue(stopping))
    try:
        yield
    finally:
        stopping.set()
        await work
