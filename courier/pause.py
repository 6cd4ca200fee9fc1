"""Wait in a way that a stop ends at once."""

import asyncio


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Return after *seconds*, or as soon as *stopping* is set."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
