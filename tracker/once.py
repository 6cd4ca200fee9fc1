"""Know the words that a provider uses once, so that a request which was recorded is not recorded again.

Mailgun's signature covers its word and not the body: a word that came before proves nothing. It is held while its
request is in hand, burnt when what came with it is durable, and free again when that failed. All workers share the
words while Redis answers; without it each has its own.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Protocol

#: Seconds for which a burnt word is known: longer than any provider's rule lets it prove something (Mailgun: 9 hours).
WORD_SECONDS = 36_000
#: Seconds after which a word is free again whose worker died with it in hand; before them its request has ended.
HELD_SECONDS = 60

_MAX_WORDS = 100_000


class Word(StrEnum):
    """What is known of a word."""

    #: Nobody used it; it is ours now.
    FREE = "free"
    #: A request with it is in hand.
    HELD = "held"
    #: A request with it was recorded.
    BURNT = "burnt"


class SharedWords(Protocol):
    """Words that all workers know; where they cannot be asked in time, every word is free and nothing is changed."""

    async def hold(self, word: bytes, seconds: int) -> Word:
        """Hold *word* for so many *seconds* if it is free, and return what it was."""
        ...

    async def burn(self, word: bytes, seconds: int) -> None:
        """Burn *word* for so many *seconds*."""
        ...

    async def free(self, word: bytes) -> None:
        """Let go of *word*, which we hold."""
        ...


class Once:
    """The words of one worker, and all workers' while Redis *answers*.

    *clock* counts seconds and never goes back; *most* bounds the memory, in words.
    """

    def __init__(
        self,
        shared: SharedWords,
        *,
        answers: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        most: int = _MAX_WORDS,
    ) -> None:
        self._shared = shared
        self._answers = answers
        self._clock = clock
        self._most = most
        self._held: set[bytes] = set()
        self._burnt: OrderedDict[bytes, float] = OrderedDict()

    @asynccontextmanager
    async def spend(self, provider: str, word: str) -> AsyncIterator[Word]:
        """Yield what is known of *provider*'s *word*; one that was free is burnt when the block ends without error."""
        name = _name(provider, word)
        known = await self._hold(name)
        if known is not Word.FREE:
            yield known
            return
        try:
            yield known
        except BaseException:
            self._held.discard(name)
            if self._answers():
                await self._shared.free(name)
            raise
        self._burn(name)
        if self._answers():
            await self._shared.burn(name, WORD_SECONDS)

    async def _hold(self, name: bytes) -> Word:
        if name in self._held:
            return Word.HELD
        if self._burnt.get(name, 0.0) > self._clock():
            return Word.BURNT
        self._held.add(name)
        known = Word.FREE
        try:
            if self._answers():
                known = await self._shared.hold(name, HELD_SECONDS)
        except BaseException:
            self._held.discard(name)
            raise
        if known is not Word.FREE:
            self._held.discard(name)
        return known

    def _burn(self, name: bytes) -> None:
        now = self._clock()
        self._held.discard(name)
        self._burnt[name] = now + WORD_SECONDS
        self._burnt.move_to_end(name)
        while self._burnt and (len(self._burnt) > self._most or next(iter(self._burnt.values())) <= now):
            self._burnt.popitem(last=False)


def _name(provider: str, word: str) -> bytes:
    """Return what stands for *word*: as short however long it is, and of no use to who reads it."""
    return hashlib.sha256(f"{provider}\n{word}".encode("utf-8", "surrogateescape")).digest()[:16]
