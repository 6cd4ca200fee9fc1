"""Keep the words that are used once in Redis, where every worker finds them; they go by themselves.

Redis away or slow is no error here: a worker then knows its own words. A word takes some 120 octets.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from ledger.group import GroupCommit
from ledger.stream import connect
from tracker.once import Word
from tracker.pipe import Pipe, packed

_PREFIX = b"outrider:once:"
_HELD, _BURNT = b"?", b"!"
#: Seconds for one question: the most impatient provider waits five for its answer.
_PATIENCE_SECONDS = 0.25
_GROUP = 500


class RedisWords:
    """The words in Redis; `close` it at the end. What is asked while a question is under way goes into the next."""

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)
        connect_one: Callable[[], AbstractConnection] = self._client.connection_pool.make_connection
        self._pipe = Pipe(connect_one())
        self._group: GroupCommit[bytes, Any] = GroupCommit(self._ask, limit=_GROUP)

    async def hold(self, word: bytes, seconds: int) -> Word:
        """Hold *word* if it is free, and return what it was; free when Redis does not answer in time."""
        before = await self._answer(b"SET", _PREFIX + word, _HELD, b"NX", b"GET", b"EX", b"%d" % seconds)
        if before is None:
            return Word.FREE
        return Word.BURNT if before == _BURNT else Word.HELD

    async def burn(self, word: bytes, seconds: int) -> None:
        """Burn *word* for so many *seconds*, if Redis answers in time."""
        await self._answer(b"SET", _PREFIX + word, _BURNT, b"EX", b"%d" % seconds)

    async def free(self, word: bytes) -> None:
        """Let go of *word*, if Redis answers in time; else it is free when its hold ends."""
        await self._answer(b"DEL", _PREFIX + word)

    async def close(self) -> None:
        """Disconnect."""
        await self._group.close()
        await self._pipe.close()
        await self._client.aclose()

    async def _answer(self, *command: bytes) -> Any:
        try:
            reply = await self._group.add(packed(*command))
        except (RedisError, OSError):  # OSError: TimeoutError too
            return None
        return None if isinstance(reply, ResponseError) else reply

    async def _ask(self, commands: Sequence[bytes]) -> Sequence[Any]:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self._pipe.exchange(commands)
