"""Keep every hit and notice somewhere: in the stream while Redis can be trusted with it, else in the local journal.

Redis is trusted while it proves, every second, that it writes what it has to disk and evicts nothing, and until one
hit could not be appended in time. A visitor therefore waits for a bad Redis once a second at most, and never longer
than `OUTRIDER_TRACKER__APPEND_WAIT`; the journal moves into the stream as soon as Redis is back.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from prometheus_client import Counter

from ledger.events import EventType, Hit
from tracker.drain import Drain
from tracker.health import Health
from tracker.journal import Journal
from tracker.keep import BufferUnavailableError
from tracker.numbers import Numbers
from tracker.settings import TrackerSettings
from tracker.stream import StreamBuffer, Trust

log = structlog.get_logger()

HITS = Counter("outrider_hits", "Hits that were kept, by where.", ["type", "kept"])

_TICK_SECONDS = 1.0
_LAST_SWEEP_SECONDS = 5.0
_NOTHING_SEEN = -1


class SafeBuffer:
    """The stream first, the journal when it must be; open it with `open_buffer`."""

    def __init__(self, stream: StreamBuffer, journal: Journal) -> None:
        self._stream = stream
        self._journal = journal
        self._drain = Drain(journal, stream)
        self._numbers = Numbers(os.urandom(8))
        self._trust: Trust | None = None
        self._trusted = False
        self._doubt = "not asked yet"
        self._lost = False
        self._refusing = False
        self._journal_bytes = 0
        # How often something was journaled, and how much of that a whole look has seen: until then it waits.
        self._journaled = 0
        self._seen = 0
        # Hits that the metric does not know yet. It is kept for other processes to see, which costs more than a hit.
        self._uncounted: dict[EventType, int] = {}
        self._in_stream = {event: HITS.labels(event, "stream") for event in EventType}
        self._in_journal = {event: HITS.labels(event, "journal") for event in EventType}

    async def append(self, hit: Hit) -> None:
        """Return once *hit* is durable; raise `BufferUnavailableError` when it could be kept nowhere."""
        hit = self._numbers.numbered(hit)
        try:
            await self._keep(hit)
        except BaseException:
            self._numbers.lost(hit)
            raise

    async def _keep(self, hit: Hit) -> None:
        if self._trusted:
            try:
                await self._stream.append(hit)
            except BufferUnavailableError as error:
                self._distrust(str(error))
            else:
                self._numbers.streamed(hit)
                self._count(hit.type)
                return
        try:
            await self._journal.append(hit)
        except BufferUnavailableError as error:
            if not self._lost:
                log.error("hits_kept_nowhere", redis=self._doubt, journal=str(error))  # noqa: TRY400 - the text is ours
            self._lost = True
            raise
        self._journaled += 1
        self._numbers.journaled(hit)
        self._in_journal[hit.type].inc()

    def _count(self, event: EventType) -> None:
        """Count a hit that is in the stream: those of a group, which go on together, at once when all of them have."""
        if not self._uncounted:
            asyncio.get_running_loop().call_soon(self._tell)
        self._uncounted[event] = self._uncounted.get(event, 0) + 1

    def _tell(self) -> None:
        for event, amount in self._uncounted.items():
            self._in_stream[event].inc(amount)
        self._uncounted.clear()

    async def append_notices(self, notices: Sequence[bytes]) -> None:
        """Return once all of *notices*, encoded, are durable; raise `BufferUnavailableError` when they are not.

        Then their provider sends them again: nothing is lost by it, so the tracker stays ready for visitors.
        """
        if self._trusted:
            try:
                await self._stream.append_notices(notices)
            except BufferUnavailableError as error:
                self._distrust(str(error))
            else:
                return
        try:
            await self._journal.append_notices(notices)
        except BufferUnavailableError as error:
            if not self._refusing:
                log.error("notices_kept_nowhere", redis=self._doubt, journal=str(error))  # noqa: TRY400 - the text is ours
            self._refusing = True
            raise
        self._journaled += 1
        self._refusing = False

    def answers(self) -> bool:
        """Say whether Redis answered when it was last asked, whatever it can be trusted with."""
        return self._trust is not None

    def health(self) -> Health:
        """Say whether hits can be kept, and what is not as it should be."""
        degraded: list[str] = []
        if not self._trusted:
            degraded.append(f"redis: {self._doubt}")
        if self._journal_bytes or self._seen != self._journaled:
            degraded.append(f"journal: {self._journal_bytes or 'some'} octets wait for the stream")
        if self._lost:
            degraded.append("journal: a hit could not be kept")
        return Health(ready=not self._lost, degraded=tuple(degraded))

    async def judge(self) -> None:
        """Ask Redis for its proof, and after a loss find out whether hits can be kept again."""
        try:
            self._trust = await self._stream.prove()
        except BufferUnavailableError as error:
            self._trust = None
            self._distrust(str(error))
        else:
            if self._trust.doubt is not None:
                self._distrust(self._trust.doubt)
            elif not self._trusted:
                self._trusted = True
                log.info("redis_trusted")
        if self._lost:
            with contextlib.suppress(BufferUnavailableError):
                if not self._trusted:
                    await self._journal.check()
                self._lost = False

    async def sweep(self) -> None:
        """Move the journal into the stream if Redis answers, and measure it."""
        journaled = self._journaled
        try:
            if self._trust is not None:
                await self._drain.sweep(run=self._trust.run, safe=self._trusted)
            self._journal_bytes = await self._journal.measure()
            self._seen = journaled
            if not self._journal_bytes and journaled == self._journaled:
                self._numbers.drained()
        except BufferUnavailableError as error:
            self._seen = _NOTHING_SEEN
            self._distrust(str(error))
        except OSError as error:
            self._seen = _NOTHING_SEEN
            log.error("journal_unreadable", error=type(error).__name__)  # noqa: TRY400 - the text may hold a path

    def _distrust(self, doubt: str) -> None:
        self._doubt = doubt
        if self._trusted:
            self._trusted = False
            log.warning("redis_distrusted", doubt=doubt)


@asynccontextmanager
async def open_buffer(
    redis_url: str, directory: Path, settings: TrackerSettings, *, tick: float = _TICK_SECONDS
) -> AsyncIterator[SafeBuffer]:
    """Open the stream and the journal in *directory*, tend both every *tick* seconds, and close them at the end.

    It opens also while Redis is away. Leaving it, the journal is moved once more, and what stays is for the next one.
    """
    stream = StreamBuffer(redis_url, wait=settings.append_wait)
    journal = Journal(directory, max_bytes=settings.journal_max_bytes)
    buffer = SafeBuffer(stream, journal)
    # Two tasks: a disk that hangs must not keep Redis from being trusted again.
    await buffer.judge()
    stop = asyncio.Event()
    tending = [asyncio.create_task(_every(tick, work, stop)) for work in (buffer.judge, buffer.sweep)]
    try:
        yield buffer
    finally:
        stop.set()
        for task in tending:
            task.cancel()
        await asyncio.wait(tending)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SWEEP_SECONDS):
                await buffer.judge()
                await buffer.sweep()
        await journal.close()
        await stream.close()


async def _every(seconds: float, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    # Not by cancellation alone: before Python 3.12 the `wait_for` inside redis-py may swallow one.
    while not stop.is_set():
        try:
            await work()
        # Whatever went wrong, hits still come in and this must go on.
        except Exception as error:  # noqa: BLE001
            log.error("buffer_not_tended", error=type(error).__name__)  # noqa: TRY400 - the text may hold a hit
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()
