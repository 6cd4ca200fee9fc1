"""Keep the words that are used once in Redis, where every worker finds them; they go by themselves.

Redis away or slow is no error here: a worker then knows its own words. A word takes some 120 octets.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from redis.exceptions import RedisError

from ledger.stream import connect
from tracker.once import Word

_PREFIX = b"outrider:once:"
_HELD, _BURNT = b"?", b"!"
#: Seconds for one question: the most impatient provider waits five for its answer.
_PATIENCE_SECONDS = 0.25


class RedisWords:
    """The words in Redis; `close` it at the end."""

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)

    async def hold(self, word: bytes, seconds: int) -> Word:
        """Hold *word* if it is free, and return what it was; free when Redis does not answer in time."""
        before = await _answer(self._client.set(_PREFIX + word, _HELD, nx=True, get=True, ex=seconds))
        if before is None:
            return Word.FREE
        return Word.BURNT if before == _BURNT else Word.HELD

    async def burn(self, word: bytes, seconds: int) -> None:
        """Burn *word* for so many *seconds*, if Redis answers in time."""
        await _answer(self._client.set(_PREFIX + word, _BURNT, ex=seconds))

    async def free(self, word: bytes) -> None:
        """Let go of *word*, if Redis answers in time; else it is free when its hold ends."""
        await _answer(self._client.delete(_PREFIX + word))

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()


async def _answer(asked: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asked
    except (RedisError, OSError):  # OSError: TimeoutError too
        return None
