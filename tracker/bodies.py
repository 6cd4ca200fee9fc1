"""Read the bodies of webhooks: whole, as they were sent, bounded in time, in size, and in what all of them take.

Anybody may send one before anything is proved, so a large one is read only while there is room for it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tracker.outcome import Outcome, RefusedError

#: Octets of one body: Event Grid's largest batch has some five million.
MAX_BODY = 8 * 1024 * 1024
#: Seconds until a body must be here.
BODY_SECONDS = 15.0
#: Octets of all large bodies that are in hand at once.
ROOM = 64 * 1024 * 1024
#: Octets up to which a body is none of the large ones.
SMALL = 65_536


class Bodies:
    """Reads the bodies of one process."""

    def __init__(self, *, seconds: float = BODY_SECONDS, room: int = ROOM) -> None:
        self._seconds = seconds
        self._room = room

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """Yield the whole body, and keep its room until the block ends; raise `RefusedError`."""
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            # What is signed is what was sent, and what is unpacked may be a thousand times as long.
            raise RefusedError(Outcome.PACKED)
        if (request.content_length or 0) > MAX_BODY:
            raise RefusedError(Outcome.TOO_LARGE)
        body = bytearray()
        try:
            await self._collect(request, body)
            yield bytes(body)
        finally:
            self._room += _weight(len(body))

    async def _collect(self, request: web.Request, body: bytearray) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.content.iter_any():
                    self._make_room(len(body), len(body) + len(chunk))
                    body += chunk
        except TimeoutError:
            raise RefusedError(Outcome.TOO_SLOW) from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, web.RequestPayloadError, OSError):
            raise RefusedError(Outcome.MALFORMED) from None

    def _make_room(self, before: int, after: int) -> None:
        if after > MAX_BODY:
            raise RefusedError(Outcome.TOO_LARGE)
        more = _weight(after) - _weight(before)
        if more > self._room:
            raise RefusedError(Outcome.BUSY)
        self._room -= more


def _weight(octets: int) -> int:
    """Return what a body of so many *octets* takes of the room: a small one nothing."""
    return octets if octets > SMALL else 0
