"""Move hits from the stream into the ledger until told to stop.

An entry is acknowledged after its transaction is committed and never before. Redis and PostgreSQL may each go and come
back: the loop waits with a bounded backoff and goes on where it was, without a hand.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from courier.outbox import backoff
from courier.pause import pause
from courier.record import Recorder
from courier.settings import AmsSettings, CourierSettings
from courier.sighting import Reader
from courier.sinks import Rule
from courier.stream import HitStream, StreamUnavailableError, open_stream
from ledger.store import UNAVAILABLE, Ledger

log = structlog.get_logger()

#: Called with the names of what is missing (`redis`, `postgresql`) whenever that changes; with none when ready.
Ready = Callable[[tuple[str, ...]], None]

#: Seconds between two rounds of claiming and trimming.
_TIDY_SECONDS = 5.0

#: Seconds between two looks for the messages of events that were parked a moment ago, and of all that are.
_MATCH_SECONDS, _MATCH_ALL_SECONDS = 0.5, 60.0
_A_MOMENT = timedelta(minutes=10)

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
        await _Loop(stream, recorder, stopping=stopping, ready=ready).run()


class _Loop:
    """One process's rounds over the stream."""

    def __init__(self, stream: HitStream, recorder: Recorder, *, stopping: asyncio.Event, ready: Ready) -> None:
        self._stream = stream
        self._recorder = recorder
        self._stopping = stopping
        self._ready = ready
        self._missing: tuple[str, ...] | None = None
        self._failures = 0
        self._tidy_at = self._match_at = self._match_all_at = 0.0

    async def run(self) -> None:
        prepared = False
        while not self._stopping.is_set():
            try:
                if not prepared:
                    await self._stream.prepare()
                    prepared = True
                await self._match()
                if time.monotonic() >= self._tidy_at:
                    await self._tidy()
                entries = await self._stream.read()
                if entries:
                    await self._recorder.record(entries)
                    await self._stream.acknowledge(entries)
            except StreamUnavailableError as error:
                prepared = False
                await self._wait("redis", error)
            except UNAVAILABLE as error:
                await self._wait("postgresql", error)
            # A loop must outlive what nobody foresaw, a deadlock for example: the entries are still ours.
            except Exception as error:  # noqa: BLE001
                await self._wait("postgresql", error)
            else:
                self._failures = 0
                self._tell(())

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
        # What was read and not acknowledged is read again.
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
