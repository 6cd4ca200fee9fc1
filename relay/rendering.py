"""Render large letters off the event loop, no more of them at once than memory has room for.

A small letter is rendered where it is wanted. A large one first takes its octets from one budget of the process, and
gives them back once its content has left.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

#: Letters up to this many octets are rendered and written in one go.
SMALL = 256 * 1024

# Octets of large letters that are rendered and not yet written, in this process.
_IN_FLIGHT = 128 * 1024 * 1024

# Python runs one thread at a time: a second one would only keep the event loop waiting longer for its turn.
_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render")

# Octets written between two looks at the event loop.
_PIECE = 64 * 1024


class Share:
    """What one letter has taken of a budget."""

    def __init__(self, budget: "Budget", octets: int) -> None:
        self._budget = budget
        self._octets = octets

    def give_back(self) -> None:
        """Let others have it; twice is once."""
        octets, self._octets = self._octets, 0
        self._budget.put(octets)

    async def render(self, render: Callable[[], bytes]) -> bytes:
        """Return what *render* gives: from a thread when the letter is large."""
        if not self._octets:
            return render()
        job = _THREAD.submit(render)
        work = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if not job.cancel():
                # Nobody can stop the thread: what it makes takes room until it is done.
                octets, self._octets = self._octets, 0
                work.add_done_callback(lambda _: self._budget.put(octets))
            raise


class Budget:
    """So many octets for all, first come, first served. Who wants more than there is gets all: one always runs."""

    def __init__(self, octets: int) -> None:
        self._whole = octets
        self._free = octets
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def share(self, octets: int) -> AsyncIterator[Share]:
        """Wait for *octets*, and hold them until they are given back or the block ends; small letters take none."""
        wanted = min(octets, self._whole) if octets > SMALL else 0
        await self._take(wanted)
        share = Share(self, wanted)
        try:
            yield share
        finally:
            share.give_back()

    def put(self, octets: int) -> None:
        """Take *octets* back and let the next ones go on."""
        self._free += octets
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)

    async def _take(self, wanted: int) -> None:
        if not wanted or (not self._waiting and wanted <= self._free):
            self._free -= wanted
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # Granted and cancelled in one breath: it goes to the next. Else the next need not wait behind us.
            self.put(wanted if turn.done() and not turn.cancelled() else 0)
            raise


#: What all upstreams of this process share.
BUDGET = Budget(_IN_FLIGHT)


def pieces(content: bytes) -> Iterator[bytes]:
    """Yield *content* bit by bit as it follows a 354: dot-stuffed (RFC 5321 4.5.2), ended by CRLF.CRLF."""
    start = 0
    while start < len(content):
        end = start + _PIECE
        # A CR and its LF stay together, so that a dot needs no more than the two octets before it.
        while content[end - 1 : end] == b"\r":
            end += 1
        piece = content[start:end]
        if b"." in piece:
            # An octet is found far faster than a string, and base64 has no dots.
            piece = piece.replace(b"\r\n.", b"\r\n..")
        if piece.startswith(b".") and (start == 0 or content[start - 2 : start] == b"\r\n"):
            piece = b"." + piece
        yield piece
        start = end
    yield b".\r\n" if not content or content.endswith(b"\r\n") else b"\r\n.\r\n"
