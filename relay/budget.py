"""Bound what large messages take of a process: octets that are worked on at a time, and turns on its event loop.

Who comes later waits. Small mail asks for neither, and finds room between them.
"""

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# malloc.h: blocks of at least this many octets are the system's own, and go back to it when they are freed.
_M_MMAP_THRESHOLD = -3
_OWN_BLOCK_OCTETS = 1024 * 1024


def give_large_blocks_back() -> None:
    """Have the C library return the memory of large contents as soon as they are gone; where it can, for this process.

    glibc raises that threshold by itself to the largest block it has seen freed, up to 32 MiB: after a few large
    messages it keeps room for several of them in every thread's heap.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK_OCTETS)


class Budget:
    """So many octets for all at once; one that alone is more gets its turn when nobody else has any."""

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._taken = 0
        # The first in the queue waits for room, the others for the first: nobody overtakes a large one.
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def of(self, octets: int) -> AsyncIterator[None]:
        """Hold *octets* for the time of the block, once there is room for them."""
        async with self._turn:
            while self._taken and self._taken + octets > self._octets:
                self._freed.clear()
                await self._freed.wait()
            self._taken += octets
        try:
            yield
        finally:
            self._taken -= octets
            self._freed.set()


class Turns:
    """One block of a large content at a time, in turn.

    Hundreds of senders whose blocks are all there would else be read one after another before anybody else is looked
    at, and a small submission needs some fifty looks.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def end(self) -> None:
        """End a turn: come back when the others had theirs, and the event loop went round after each."""
        async with self._lock:
            await asyncio.sleep(0)
