"""Move the journal into the stream, and forget a file only when nothing can be lost by it.

At least once: a file that was interrupted is moved again from its start, and the ledger knows a hit by its id. Where
Redis cannot prove that it keeps what it has, a file stays until a courier has acknowledged its last entry.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import structlog

from tracker.packs import packs
from tracker.segment import Segment

log = structlog.get_logger()

# Files that wait for a courier are open: while so many do, the current one goes on and no new ones are begun.
_MAX_WAITING = 64


class Source(Protocol):
    """The journal, as seen from here."""

    async def seal(self) -> Sequence[Segment]:
        """Return every file that may be drained, oldest first."""
        ...

    async def read(self, segment: Segment) -> list[bytes]:
        """Return the encoded hits and notices of a file."""
        ...

    async def remove(self, segment: Segment) -> None:
        """Delete a file."""
        ...


class Sink(Protocol):
    """The stream, as seen from here."""

    async def move(self, payloads: Sequence[bytes]) -> str:
        """Append encoded hits and notices, and return the last one's id."""
        ...

    async def added(self) -> int:
        """Return how many entries the stream ever took; less than before means that it is another one."""
        ...

    async def recorded(self, last: str) -> bool:
        """Say whether a courier has acknowledged every entry up to *last*."""
        ...


class _Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file that the stream has taken."""

    last: str
    #: How many entries the stream had ever taken by then.
    added: int


class Drain:
    """Empties one worker's journal, and what dead workers left, into the stream."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._moved: dict[Segment, _Moved] = {}
        self._run = ""

    async def sweep(self, *, run: str, safe: bool) -> None:
        """Move what the journal holds; *run* names the Redis process, *safe* says that it keeps what it has.

        Raises `BufferUnavailableError` when Redis goes away; nothing is lost by that.
        """
        if self._moved:
            await self._doubt(run)
        self._run = run
        crowded = len(self._moved) >= _MAX_WAITING
        for segment in list(self._moved) if crowded else await self._source.seal():
            moved = self._moved.get(segment) or await self._move(segment)
            if moved is None or safe or await self._sink.recorded(moved.last):
                await self._source.remove(segment)
                self._moved.pop(segment, None)

    async def _doubt(self, run: str) -> None:
        """Forget that files were moved if the stream is not the one that they were moved into.

        Another process may have lost it, and one that evicts may have dropped it and begun another.
        """
        added = await self._sink.added()
        if run != self._run or any(added < moved.added for moved in self._moved.values()):
            log.warning("stream_lost", files=len(self._moved))
            self._moved.clear()

    async def _move(self, segment: Segment) -> _Moved | None:
        entries = await self._source.read(segment)
        if not entries:
            return None
        for pack in packs(entries):
            last = await self._sink.move(pack)
        moved = self._moved[segment] = _Moved(last=last, added=await self._sink.added())
        log.info("journal_drained", entries=len(entries))
        return moved
