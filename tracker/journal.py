"""The local journal: hits and notices on this machine's disk for as long as Redis cannot be trusted with them.

Group commit with one fsync per group, in one thread. Every worker appends to a file of its own; files of workers
that died are adopted. A record leaves only with its whole file, after the stream has taken everything in it. Notices
get no more than a share of the room: their provider sends them again, a visitor comes once.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram

from ledger.events import Hit, encode_hit
from ledger.group import GroupCommit
from tracker.keep import BufferUnavailableError
from tracker.packs import packs
from tracker.segment import SUFFIX, Segment, frame, records, sync_directory, used

log = structlog.get_logger()

JOURNAL_BYTES = Gauge(
    "outrider_journal_bytes",
    "Octets in the local journal, all workers of this machine.",
    multiprocess_mode="livemostrecent",
)
TORN = Counter("outrider_journal_torn_bytes", "Octets of journal files that were no whole record when they were read.")
SECONDS = Histogram(
    "outrider_journal_append_seconds",
    "Time to write and fsync one group of hits.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)

#: Seconds that a hit may wait for the disk; a visitor is answered after this whatever the disk does.
DISK_SECONDS = 2.0

_GROUP = 1000
# A disk that hangs must not fill the memory with hits that wait for it.
_MAX_WAITING_BYTES = 16 * 1024 * 1024
_NOTICES_SHARE = 0.5
_SEGMENT_BYTES = 8 * 1024 * 1024
# Less room than this is full: the next group of hits would not fit.
_ROOM_BYTES = 65536

Result = TypeVar("Result")


class JournalFullError(Exception):
    """The journal holds what `OUTRIDER_TRACKER__JOURNAL_MAX_BYTES` allows; it drains as soon as Redis is back."""


class Journal:
    """The journal of one worker in *directory*, which all workers of a machine share; `close` it at the end.

    *max_bytes* bounds the directory, *segment_bytes* one file.
    """

    def __init__(self, directory: Path, *, max_bytes: int, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._current: Segment | None = None
        self._sealed: list[Segment] = []
        self._waiting_bytes = 0
        self._group: GroupCommit[bytes, None] = GroupCommit(self._write, limit=_GROUP)
        # One thread: writing, sealing and reading never overlap, so that none of them needs a lock.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    async def append(self, hit: Hit) -> None:
        """Return once the disk has *hit*; raise `BufferUnavailableError` when it refuses, is full or too slow."""
        try:
            async with asyncio.timeout(DISK_SECONDS):
                await self._add(frame(encode_hit(hit)), _MAX_WAITING_BYTES)
        except (OSError, JournalFullError) as error:  # OSError: TimeoutError too
            raise BufferUnavailableError("the journal could not be written") from error

    async def append_notices(self, notices: Sequence[bytes]) -> None:
        """Return once the disk has all of *notices*, encoded; raise `BufferUnavailableError` as `append` does.

        None is longer than `tracker.segment.MAX_PAYLOAD`.
        """
        try:
            async with asyncio.timeout(DISK_SECONDS):
                octets = sum(len(frame(b"")) + len(notice) for notice in notices)
                if await self._run(self._used) + self._waiting_bytes + octets > self._max_bytes * _NOTICES_SHARE:
                    raise BufferUnavailableError("the journal keeps what is left for hits")
                for pack in packs(notices):
                    await self._add(b"".join(map(frame, pack)), _MAX_WAITING_BYTES * _NOTICES_SHARE)
        except (OSError, JournalFullError) as error:
            raise BufferUnavailableError("the journal could not be written") from error

    async def _add(self, blob: bytes, most_waiting: float) -> None:
        if self._waiting_bytes + len(blob) > most_waiting:
            raise BufferUnavailableError("the disk of the journal is too slow")
        self._waiting_bytes += len(blob)
        await self._group.add(blob)

    async def check(self) -> None:
        """Find out whether a hit could be appended now; raise `BufferUnavailableError` when not."""
        try:
            async with asyncio.timeout(DISK_SECONDS):
                await self._run(self._check)
        except (OSError, JournalFullError) as error:
            raise BufferUnavailableError("the journal cannot be written") from error

    async def seal(self) -> Sequence[Segment]:
        """End the current file, adopt orphans, and return every file that may be drained, oldest first."""
        return await self._run(self._seal)

    async def read(self, segment: Segment) -> list[bytes]:
        """Return the encoded hits and notices of *segment*."""
        found, torn = await self._run(lambda: records(segment.read()))
        if torn:
            TORN.inc(torn)
            log.warning("journal_tail_torn", octets=torn, entries=len(found))
        return found

    async def remove(self, segment: Segment) -> None:
        """Delete *segment*: the stream has all of it."""
        self._sealed.remove(segment)
        await self._run(segment.remove)
        await self.measure()

    async def measure(self) -> int:
        """Return the octets of the journal in all, and tell the metric."""
        octets = await self._run(self._used)
        JOURNAL_BYTES.set(octets)
        return octets

    async def close(self) -> None:
        """Finish what is being written; what is left belongs to the next worker that looks."""
        await self._group.close()
        await self._run(self._let_go)
        self._thread.shutdown()

    async def _write(self, group: Sequence[bytes]) -> Sequence[None]:
        blob = b"".join(group)
        try:
            with SECONDS.time():
                await self._run(self._append, blob)
        finally:
            self._waiting_bytes -= len(blob)
        return [None] * len(group)

    async def _run(self, work: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # What follows runs in the thread.

    def _check(self) -> None:
        if self._used() + _ROOM_BYTES > self._max_bytes:
            raise JournalFullError("the journal is full")
        self._append(b"")

    def _append(self, blob: bytes) -> None:
        total = self._used() + len(blob)
        if total > self._max_bytes:
            raise JournalFullError(f"the journal is full: {total} octets")
        if self._current is None:
            self._current = Segment.create(self._directory)
        try:
            self._current.append(blob)
        except OSError:
            self._end_current()
            raise
        JOURNAL_BYTES.set(total)
        if self._current.size >= self._segment_bytes:
            self._end_current()

    def _used(self) -> int:
        try:
            return used(self._directory)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(self._directory.parent)
            return 0

    def _end_current(self) -> None:
        if self._current is not None:
            self._sealed.append(self._current)
            self._current = None

    def _seal(self) -> list[Segment]:
        if self._current is not None and self._current.size:
            self._end_current()
        held = {segment.path for segment in (*self._sealed, self._current) if segment is not None}
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path not in held and (orphan := Segment.adopt(path)) is not None:
                log.info("journal_orphan_adopted", octets=orphan.size)
                self._sealed.append(orphan)
        return list(self._sealed)

    def _let_go(self) -> None:
        for segment in (*self._sealed, self._current):
            if segment is not None:
                segment.close()
        self._sealed, self._current = [], None
