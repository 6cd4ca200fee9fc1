"""Append hits and notices to the Redis stream in groups, without a timer: what comes during one write is in the next.

The commands are spelled by hand and their replies read one by one: a client library's command objects would cost more
than everything else that a hit does. One refused entry never fails its neighbours.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from prometheus_client import Histogram
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from ledger.events import Hit, encode_hit
from ledger.group import GroupCommit
from ledger.stream import FIELD, GROUP, STREAM, connect
from tracker.keep import BufferUnavailableError
from tracker.packs import packs
from tracker.pipe import Pipe

SECONDS = Histogram(
    "outrider_stream_append_seconds",
    "Time to append one group of hits to the Redis stream.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)

#: Seconds that the notices of one request may wait for Redis. No person waits for them, but Postal only five seconds.
NOTICE_SECONDS = 2.0

_GROUP = 500
# Packs of notices in one write.
_NOTICE_GROUP = 16
_PROOF_SECONDS = 1.0
_DRAIN_SECONDS = 10.0

_REDIS_TROUBLE = (RedisError, OSError)  # OSError: TimeoutError too


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis says of itself."""

    #: Changes with every start: what a Redis without a durable file held before is gone.
    run: str
    #: Why hits may not rest there alone; None when they may.
    doubt: str | None


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    command: bytes
    deadline: float


class _Pack(msgspec.Struct, frozen=True):
    commands: list[bytes]
    deadline: float


class StreamBuffer:
    """The stream, as one tracker process sees it; `close` it at the end.

    *wait* is the longest that a hit waits for it, in seconds, *notice_wait* that a request's notices do.
    """

    def __init__(self, redis_url: str, *, wait: float, notice_wait: float = NOTICE_SECONDS) -> None:
        self._wait = wait
        self._notice_wait = notice_wait
        self._client = connect(redis_url)
        connect_one: Callable[[], AbstractConnection] = self._client.connection_pool.make_connection
        # Connections of their own: neither a drain nor a provider's thousands must stand in a visitor's way.
        self._hits = Pipe(connect_one())
        self._notices = Pipe(connect_one())
        self._drain = Pipe(connect_one())
        self._group: GroupCommit[_Waiting, bool] = GroupCommit(self._write, limit=_GROUP)
        self._notice_group: GroupCommit[_Pack, bool] = GroupCommit(self._write_notices, limit=_NOTICE_GROUP)

    async def append(self, hit: Hit) -> None:
        """Return once Redis has *hit*; raise `BufferUnavailableError` when it refuses or takes longer than *wait*."""
        deadline = asyncio.get_running_loop().time() + self._wait
        try:
            accepted = await self._group.add(_Waiting(_command(encode_hit(hit)), deadline))
        except _REDIS_TROUBLE as error:
            raise BufferUnavailableError("Redis is away or slow") from error
        if not accepted:
            raise BufferUnavailableError("Redis refused the entry")

    async def append_notices(self, notices: Sequence[bytes]) -> None:
        """Return once Redis has all of *notices*, encoded; raise `BufferUnavailableError` when it does not in time."""
        deadline = asyncio.get_running_loop().time() + self._notice_wait
        accepted = True
        try:
            async with asyncio.timeout_at(deadline):
                for pack in packs(notices):
                    commands = [_command(notice) for notice in pack]
                    accepted = accepted and await self._notice_group.add(_Pack(commands, deadline))
        except _REDIS_TROUBLE as error:
            raise BufferUnavailableError("Redis is away or slow") from error
        if not accepted:
            raise BufferUnavailableError("Redis refused an entry")

    async def move(self, payloads: Sequence[bytes]) -> str:
        """Append *payloads* from the journal and return the last one's id; raise `BufferUnavailableError`."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                replies = await self._drain.exchange([_command(payload) for payload in payloads])
        except _REDIS_TROUBLE as error:
            raise BufferUnavailableError("Redis is away") from error
        if any(isinstance(reply, ResponseError) for reply in replies):
            raise BufferUnavailableError("Redis refused an entry")
        return str(replies[-1], "ascii")

    async def prove(self) -> Trust:
        """Ask Redis whether hits are safe with it; raise `BufferUnavailableError` when it does not answer in time."""
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                said: dict[str, Any] = await self._client.info("server", "persistence", "memory", "replication")
                # The budget of a hit: a Redis that answers more slowly would be distrusted again at once.
                async with asyncio.timeout(self._wait):
                    await self._client.ping()
        except _REDIS_TROUBLE as error:
            raise BufferUnavailableError("Redis is away or slow") from error
        return Trust(run=str(said.get("run_id", "")), doubt=_doubt(said))

    async def added(self) -> int:
        """Return how many entries the stream ever took; raise `BufferUnavailableError`."""
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                stream = await self._client.xinfo_stream(STREAM)
        except ResponseError:  # no such key
            return 0
        except _REDIS_TROUBLE as error:
            raise BufferUnavailableError("Redis is away") from error
        return int(stream["entries-added"])

    async def recorded(self, last: str) -> bool:
        """Say whether a courier has acknowledged every entry up to *last*; raise `BufferUnavailableError`."""
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                groups = await self._client.xinfo_groups(STREAM)
                group = next((group for group in groups if group["name"] == GROUP.encode()), None)
                if group is None or _order(group["last-delivered-id"]) < _order(last):
                    return False
                pending = await self._client.xpending(STREAM, GROUP)
        except ResponseError:  # no such key, or the group went meanwhile
            return False
        except _REDIS_TROUBLE as error:
            raise BufferUnavailableError("Redis is away") from error
        return not pending["pending"] or _order(pending["min"]) > _order(last)

    async def close(self) -> None:
        """Finish the group in flight and disconnect."""
        await self._group.close()
        await self._notice_group.close()
        await self._hits.close()
        await self._notices.close()
        await self._drain.close()
        await self._client.aclose()

    async def _write(self, group: Sequence[_Waiting]) -> Sequence[bool]:
        # The first came first, so its deadline is every other's too, and nobody waits longer than *wait*.
        with SECONDS.time():
            async with asyncio.timeout_at(group[0].deadline):
                replies = await self._hits.exchange([waiting.command for waiting in group])
        return [not isinstance(reply, ResponseError) for reply in replies]

    async def _write_notices(self, group: Sequence[_Pack]) -> Sequence[bool]:
        # A pack whose own deadline comes sooner is given up by who waits for it.
        async with asyncio.timeout_at(max(pack.deadline for pack in group)):
            replies = await self._notices.exchange([command for pack in group for command in pack.commands])
        left = iter(replies)
        refused = [[isinstance(reply, ResponseError) for _, reply in zip(pack.commands, left)] for pack in group]  # noqa: B905 - the packs share the replies
        return [not any(one) for one in refused]


_HEAD = b"*5\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$%d\r\n%s\r\n$" % (
    len(STREAM),
    STREAM.encode(),
    len(FIELD),
    FIELD.encode(),
)


def _command(payload: bytes) -> bytes:
    """Return `XADD outrider:hits * h payload` as Redis reads it."""
    return b"%s%d\r\n%s\r\n" % (_HEAD, len(payload), payload)


def _doubt(said: dict[str, Any]) -> str | None:
    if said.get("role", "master") != "master":
        return "it is a replica"
    if said.get("aof_enabled") != 1:
        return "appendonly is not on"
    if said.get("aof_last_write_status") != "ok":
        return "its last write to the append-only file failed"
    if said.get("maxmemory_policy") != "noeviction":
        return "maxmemory-policy is not noeviction"
    return None


def _order(entry: str | bytes) -> tuple[int, int]:
    text = entry.decode("ascii") if isinstance(entry, bytes) else entry
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)
