"""Read hits from the stream as one of a group of couriers, so that each hit reaches somebody until it is committed.

Nothing leaves the stream by being read: an entry stays with its reader until it is acknowledged, and is trimmed only
behind what the whole group has acknowledged. What a dead courier held is claimed by the living.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import Gauge
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ledger.stream import ANSWER_SECONDS, FIELD, GROUP, STREAM, connect

WAITING = Gauge(
    "outrider_stream_waiting_hits", "Hits in the stream that are not recorded yet.", multiprocess_mode="livemostrecent"
)

OLDEST = Gauge(
    "outrider_stream_oldest_age_seconds",
    "For how long the oldest hit that is not recorded yet has been in the stream.",
    multiprocess_mode="livemostrecent",
)

#: An entry's id in the stream, and the bytes of its hit.
Entry = tuple[bytes, bytes]

#: Milliseconds that a read waits for a first entry; a stop is noticed this late at most.
_BLOCK_MS = 500

# Seconds between two looks at how far the group has come.
_LOOK_SECONDS = 0.1

#: Milliseconds after which an entry that nobody acknowledged is taken over. PostgreSQL may have been away as long:
#: two couriers that record the same hit leave one event.
CLAIM_IDLE_MS = 20_000

# So many batches are taken over at once: a reader that dies holds two, what is recorded and what was read meanwhile.
_CLAIMED_BATCHES = 4

#: Milliseconds without a sign of life after which a reader's name is forgotten, once it holds nothing.
FORGET_IDLE_MS = 3_600_000

# In one step, so that no entry reaches the reader between the look and the removal.
_FORGET = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
    return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 0
"""

_FIELD = FIELD.encode()


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the stream and not recorded yet."""

    hits: int
    #: Seconds since the oldest of them came; 0 when there is none.
    oldest_seconds: float


class StreamUnavailableError(Exception):
    """Redis does not answer, or not as it should: wait and try again."""


class HitStream:
    """The stream, as one reader of the group sees it. Open it with `open_stream`."""

    def __init__(self, client: Redis, reader: str, *, batch: int, claim_idle_ms: int = CLAIM_IDLE_MS) -> None:
        self._client = client
        # An answer of lists in lists, as the server gives it: `connect` pins the protocol that does.
        client.set_response_callback("XREADGROUP", _as_it_is)
        self._reader = reader
        self._batch = batch
        self._claim_idle_ms = claim_idle_ms
        self._forget_idle_ms = FORGET_IDLE_MS
        # Entries may be ours already: read before a failure, or claimed.
        self._own_first = True

    async def prepare(self) -> None:
        """Make the stream and the group where they are missing; a new group starts at the oldest entry."""
        try:
            async with _asking():
                await self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except StreamUnavailableError as error:
            if not str(error.__cause__).startswith("BUSYGROUP"):
                raise

    async def read(self) -> list[Entry]:
        """Return the next entries: those that are ours already, then new ones; empty after a short wait for none."""
        if self._own_first:
            if entries := await self._fetch("0", wait=None):
                return entries
            self._own_first = False
        return await self._fetch(">", wait=_BLOCK_MS)

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Let go of entries that are committed."""
        try:
            async with _asking():
                await self._client.xack(STREAM, GROUP, *(entry_id for entry_id, _ in entries))
        except StreamUnavailableError:
            self._own_first = True
            raise

    @property
    def owes(self) -> bool:
        """Whether the next read gives what is ours already: also what is being recorded, so nothing should be."""
        return self._own_first

    def read_again(self) -> None:
        """Begin with our own entries again, because something went wrong with them."""
        self._own_first = True

    async def claim(self) -> None:
        """Take over entries that another reader has held too long; `read` gives them next."""
        async with _asking():
            claimed = await self._client.xautoclaim(
                STREAM,
                GROUP,
                self._reader,
                min_idle_time=self._claim_idle_ms,
                count=_CLAIMED_BATCHES * self._batch,
                justid=True,
            )
        self._own_first = self._own_first or bool(claimed)

    async def trim(self) -> None:
        """Remove what the group has acknowledged, and measure what it has not."""
        async with _asking():
            # In this order: what is delivered between the two answers lies behind `delivered` and is left alone.
            group = await self._group()
            pending = await self._client.xpending(STREAM, GROUP)
            delivered = group["last-delivered-id"]
            oldest = min(delivered, pending["min"] or delivered, key=_position)
            await self._client.xtrim(STREAM, minid=oldest, approximate=False)
            backlog = await _backlog(self._client, group, pending)
            WAITING.set(backlog.hits)
            OLDEST.set(backlog.oldest_seconds)

    async def forget_readers(self) -> None:
        """Forget the names of readers that are long gone and hold nothing."""
        async with _asking():
            for reader in await self._client.xinfo_consumers(STREAM, GROUP):
                if reader["idle"] > self._forget_idle_ms and reader["name"] != self._reader.encode():
                    await self._client.eval(_FORGET, 1, STREAM, GROUP, reader["name"])

    async def _group(self) -> dict[str, Any]:
        group = await _find_group(self._client)
        if group is None:
            raise StreamUnavailableError("NOGROUP")
        return group

    async def _fetch(self, start: str, *, wait: int | None) -> list[Entry]:
        async with _asking():
            blocking = () if wait is None else ("BLOCK", wait)
            # The library's own method makes a dict of every entry, which takes as long as to read its hit.
            reply: Any = await self._client.execute_command(  # type: ignore[no-untyped-call]  # redis-py leaves it so
                "XREADGROUP", "GROUP", GROUP, self._reader, "COUNT", self._batch, *blocking, "STREAMS", STREAM, start
            )
            if not reply:
                return []
            found = reply[0][1]
            # Deleted from the stream by hand while they were ours: there is nothing left to record.
            gone = [entry_id for entry_id, fields in found if not fields]
            if gone:
                await self._client.xack(STREAM, GROUP, *gone)
        return [(entry_id, _hit(fields)) for entry_id, fields in found if fields]


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        # "NOGROUP": the stream was flushed while we ran; the caller prepares it again like after any other outage.
        raise StreamUnavailableError(type(error).__name__) from error


@asynccontextmanager
async def open_stream(
    redis_url: str, reader: str, *, batch: int, claim_idle_ms: int = CLAIM_IDLE_MS
) -> AsyncIterator[HitStream]:
    """Make a client for the stream; it connects when it is first used."""
    client = connect(redis_url)
    try:
        yield HitStream(client, reader, batch=batch, claim_idle_ms=claim_idle_ms)
    finally:
        await client.aclose()


async def backlog(redis_url: str) -> Backlog:
    """Return what waits to be recorded, for somebody who looks from outside; raises `StreamUnavailableError`."""
    client = connect(redis_url)
    try:
        async with _asking():
            if not await client.exists(STREAM):
                return Backlog(hits=0, oldest_seconds=0.0)
            group = await _find_group(client)
            if group is None:
                # No courier has ever run: all of it waits.
                return await _backlog(client, {"last-delivered-id": b"0-0", "lag": None}, {"pending": 0, "min": None})
            return await _backlog(client, group, await client.xpending(STREAM, GROUP))
    finally:
        await client.aclose()


async def _find_group(client: Redis) -> dict[str, Any] | None:
    groups: list[dict[str, Any]] = await client.xinfo_groups(STREAM)
    return next((group for group in groups if group["name"] == GROUP.encode()), None)


async def _backlog(client: Redis, group: Mapping[str, Any], pending: Mapping[str, Any]) -> Backlog:
    # The server does not know the lag of a group whose stream was edited; the length is then close enough.
    hits = await client.xlen(STREAM) if group["lag"] is None else group["lag"] + pending["pending"]
    first = pending["min"]
    if first is None:
        following: Any = await client.xrange(STREAM, min=b"(" + group["last-delivered-id"], count=1)
        first = following[0][0] if following else None
    if first is None:
        return Backlog(hits=0, oldest_seconds=0.0)
    seconds, microseconds = await client.time()
    return Backlog(hits=hits, oldest_seconds=max(0.0, seconds + microseconds / 1e6 - _position(first)[0] / 1e3))


async def emptied(redis_url: str, *, patience: float) -> bool:
    """Wait until all that the stream holds now is recorded, and remove it; false when *patience* seconds were too few.

    Raises `StreamUnavailableError`.
    """
    client = connect(redis_url)
    try:
        async with _asking():
            if not await client.exists(STREAM):
                return True
            stream = await client.xinfo_stream(STREAM)
            last = _position(stream["last-generated-id"])
            if not stream["length"]:
                return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not await _is_recorded(client, last):  # noqa: ASYNC110 - another process does it: nobody tells us
                    await asyncio.sleep(_LOOK_SECONDS)
                async with _asking():
                    # `trim` leaves the newest entry where it is, for as long as nobody comes after it.
                    await client.xtrim(STREAM, minid=f"{last[0]}-{last[1] + 1}", approximate=False)
                return True
        return False
    finally:
        await client.aclose()


async def _is_recorded(client: Redis, last: tuple[int, int]) -> bool:
    async with _asking():
        group = await _find_group(client)
        if group is None or _position(group["last-delivered-id"]) < last:
            return False
        pending = await client.xpending(STREAM, GROUP)
    return not pending["pending"] or _position(pending["min"]) > last


def _hit(fields: Sequence[bytes]) -> bytes:
    """Return the hit of an entry, whose names and values are given in turn."""
    if len(fields) == 2 and fields[0] == _FIELD:
        return fields[1]
    told = dict(zip(fields[::2], fields[1::2], strict=True))
    # An entry that is not ours cannot be read as a hit; it is kept as it came.
    return told[_FIELD] if _FIELD in told else msgspec.msgpack.encode(list(told.items()))


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


def _position(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
