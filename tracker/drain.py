"""Move the journal into the stream, and forget a file only when nothing can be lost by it.

At least once: a file that was interrupted is moved again from its start, and the ledger knows a hit by its id. Where
Redis cannot prove that it keeps what it has, a file stays until a courier has acknowledged its last entry.
"""

from collections.abc import Sequence
from typing import Protocol

import structlog

from tracker.segment import Segment

log = structlog.get_logger()

_BATCH = 500


class Source(Protocol):
    """The journal, as seen from here."""

    async def seal(self) -> Sequence[Segment]:
        """Return every file that may be drained, oldest first."""
        ...

    async def read(self, segment: Segment) -> list[bytes]:
        """Return the encoded hits of a file."""
        ...

    async def remove(self, segment: Segment) -> None:
        """Delete a file."""
        ...


class Sink(Protocol):
    """The stream, as seen from here."""

    async def move(self, hits: Sequence[bytes]) -> str:
        """Append encoded hits and return the last one's id."""
        ...

    async def recorded(self, last: str) -> bool:
        """Say whether a courier has acknowledged every entry up to *last*."""
        ...


class Drain:
    """Empties one worker's journal, and what dead workers left, into the stream."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._moved: dict[Segment, str] = {}
        self._run = ""

    async def sweep(self, *, run: str, safe: bool) -> None:
        """Move what the journal holds; *run* names the Redis process, *safe* says that it keeps what it has.

        Raises `BufferUnavailableError` when Redis goes away; nothing is lost by that.
        """
        if run != self._run:
            # Another process may have lost what the last one held: everything is moved again.
            self._moved.clear()
            self._run = run
        for segment in await self._source.seal():
            last = self._moved.get(segment) or await self._move(segment)
            if last is None or safe or await self._sink.recorded(last):
                await self._source.remove(segment)
                self._moved.pop(segment, None)

    async def _move(self, segment: Segment) -> str | None:
        hits = await self._source.read(segment)
        last = None
        for start in range(0, len(hits), _BATCH):
            last = await self._sink.move(hits[start : start + _BATCH])
        if last is not None:
            self._moved[segment] = last
            log.info("journal_drained", hits=len(hits))
        return last
