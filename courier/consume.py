"""Move hits from the stream into the ledger until told to stop.

An entry is acknowledged after its transaction is committed and never before. Redis and PostgreSQL may each go and come
back: the loop waits with a bounded backoff and goes on where it was, without a hand. While much waits, the next
entries are read and judged as those before them are written.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from courier.outbox import backoff
from courier.pause import pause
from courier.record import Recorder
from courier.settings import AmsSettings, CourierSettings
from courier.sighting import Reader
from courier.sinks import Rule
from courier.stream import Entry, HitStream, StreamUnavailableError, open_stream
from ledger.store import UNAVAILABLE, Ledger

log = structlog.get_logger()

#: Called with the names of what is missing (`redis`, `postgresql`) whenever that changes; with none when ready.
Ready = Callable[[tuple[str, ...]], None]

#: Seconds between two rounds of claiming and trimming.
_TIDY_SECONDS = 5.0

#: Seconds between two looks for the messages of events that were parked a moment ago, and of all that are.
_MATCH_SECONDS, _MATCH_ALL_SECONDS = 0.5, 60.0
_A_MOMENT = timedelta(minutes=10)

#: Batches that are being recorded while the next is read: what it takes to keep PostgreSQL busy.
_AHEAD = 1

#: Seconds between two tries at most while something is away.
_WAIT_MOST = 5.0


async def run_recorder(
    redis_url: str,
    ledger: Ledger,
    reader: Reader,
    settings: CourierSettings,
    ams: AmsSettings,
    *,
    process: int,
    stopping: asyncio.Event,
    ready: Ready,
    rules: Sequence[Rule] = (),
) -> None:
    """Record hits until *stopping* is set; a batch that was begun is finished first, while PostgreSQL is there.

    *rules* are those of the sinks that are configured.
    """
    recorder = Recorder(ledger, reader, ams=ams, settings=settings, rules=rules)
    async with open_stream(redis_url, f"courier-{process}", batch=settings.batch) as stream:
        await _Loop(stream, recorder, batch=settings.batch, stopping=stopping, ready=ready).run()


class _Loop:
    """One process's rounds over the stream."""

    def __init__(
        self, stream: HitStream, recorder: Recorder, *, batch: int, stopping: asyncio.Event, ready: Ready
    ) -> None:
        self._stream = stream
        self._recorder = recorder
        self._batch = batch
        # The batches that are being recorded, the oldest first.
        self._flying: deque[asyncio.Task[None]] = deque()
        self._prepared = False
        self._stopping = stopping
        self._ready = ready
        self._missing: tuple[str, ...] | None = None
        self._failures = 0
        self._tidy_at = self._match_at = self._match_all_at = 0.0

    async def run(self) -> None:
        try:
            while self._flying or not self._stopping.is_set():
                try:
                    landed = await self._turn()
                except StreamUnavailableError as error:
                    self._prepared = False
                    await self._wait("redis", error)
                except UNAVAILABLE as error:
                    await self._wait("postgresql", error)
                # A loop must outlive what nobody foresaw, a deadlock for example: the entries are still ours.
                except Exception as error:  # noqa: BLE001
                    await self._wait("postgresql", error)
                else:
                    # What is merely on its way proves nothing.
                    if landed or not self._flying:
                        self._failures = 0
                        self._tell(())
        finally:
            for task in self._flying:
                task.cancel()
            await self._ended()

    async def _turn(self) -> bool:
        """Read a batch and have it recorded; return whether one was recorded to its end meanwhile."""
        if self._stopping.is_set():
            return await self._land(0)
        if not self._prepared:
            await self._stream.prepare()
            self._prepared = True
        await self._match()
        tidies = time.monotonic() >= self._tidy_at
        landed = await self._land(0) if tidies or self._stream.owes else False
        if tidies:
            await self._tidy()
        entries = await self._stream.read()
        if entries:
            self._flying.append(asyncio.create_task(self._record(entries)))
        # Where the batch is not full nothing waits, and what comes meanwhile had better be one batch.
        full = len(entries) >= self._batch
        return await self._land(_AHEAD if full else 0) or landed

    async def _record(self, entries: Sequence[Entry]) -> None:
        await self._recorder.record(entries)
        await self._stream.acknowledge(entries)

    async def _land(self, most: int) -> bool:
        """Wait until no more than *most* batches are being recorded; return whether there was one to wait for."""
        landed = False
        while len(self._flying) > most:
            # Not awaited itself: should we be cancelled here, it still ends among the others.
            await asyncio.wait([self._flying[0]])
            self._flying.popleft().result()
            landed = True
        return landed

    async def _ended(self) -> None:
        """Wait for the end of what is being recorded, whatever it is."""
        await asyncio.gather(*self._flying, return_exceptions=True)
        self._flying.clear()

    async def _match(self) -> None:
        now = time.monotonic()
        if now < self._match_at:
            return
        everything = now >= self._match_all_at
        await self._recorder.match_parked(since=None if everything else datetime.now(UTC) - _A_MOMENT)
        self._match_at = time.monotonic() + _MATCH_SECONDS
        if everything:
            self._match_all_at = time.monotonic() + _MATCH_ALL_SECONDS

    async def _tidy(self) -> None:
        await self._stream.claim()
        await self._stream.trim()
        await self._stream.forget_readers()
        self._tidy_at = time.monotonic() + _TIDY_SECONDS

    async def _wait(self, missing: str, error: Exception) -> None:
        # What was read and not acknowledged is read again: nothing of it may be on its way any more.
        await self._ended()
        self._stream.read_again()
        self._failures += 1
        log.warning("recording_interrupted", missing=missing, error=type(error).__name__, failures=self._failures)
        self._tell((missing,))
        jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
        await pause(self._stopping, min(_WAIT_MOST, backoff(self._failures, jitter)))

    def _tell(self, missing: tuple[str, ...]) -> None:
        if self._missing != missing:
            self._missing = missing
            self._ready(missing)
