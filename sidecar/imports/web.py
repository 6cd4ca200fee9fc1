"""Ask an API over HTTP as its limits allow: slowly enough, and again when it says later or nothing at all.

A request may carry a key in its header or its address: neither is ever logged or put into an error, no redirect is
followed, and TLS is verified.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import SystemRandom

import aiohttp
import msgspec
import structlog

from sidecar.imports.origin import OriginError

log = structlog.get_logger()

#: More than any page of an API; the rest of a longer one is not read.
_ANSWER_LIMIT = 8 * 1024 * 1024

_TRIES = 10
# While it has never answered at all: nobody waits minutes to hear of a wrong address.
_FIRST_TRIES = 3
# Seconds: of the second try, and at most between two.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 120.0
# A number of seconds that can only be a time since the epoch.
_EPOCH_FROM = 1_000_000_000.0

#: How APIs say when to come again: the standard's header, and what EmailOctopus documents.
_LATER = ("Retry-After", "X-RateLimit-Retry-After")

_random = SystemRandom()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    body: bytes


class Pace:
    """Lets so many requests a second start, after a *burst* of as many as like."""

    def __init__(self, per_second: float, *, burst: int = 1) -> None:
        self._interval = 1 / per_second
        self._lead = self._interval * (burst - 1)
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a turn."""
        now = time.monotonic()
        self._next = max(self._next, now - self._lead)
        wait = self._next - now
        self._next += self._interval
        if wait > 0:
            await asyncio.sleep(wait)


class Web:
    """An API on the web. *name* is what an operator knows it by."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        name: str,
        pace: Pace,
        *,
        first_wait: float = _FIRST_WAIT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session = session
        self._name = name
        self._pace = pace
        self._first_wait = first_wait
        self._now = now
        self._answered = False

    async def get(self, path: str, *, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Return the answer, the last one where it kept saying later; raise `OriginError` where there was none."""
        tries = 0
        while True:
            tries += 1
            await self._pace.turn()
            wait = min(self._first_wait * 2 ** (tries - 1), _LONGEST_WAIT) * _random.uniform(0.5, 1.0)
            try:
                async with self._session.get(path, params=query, headers=headers, allow_redirects=False) as response:
                    answer = Answer(status=response.status, body=await _read(response))
                    asked = next((value for name in _LATER if (value := response.headers.get(name))), None)
            except (OSError, TimeoutError, aiohttp.ClientError) as error:
                # Its text may hold the address, and that the key.
                trouble = type(error).__name__
                if tries >= (_TRIES if self._answered else _FIRST_TRIES):
                    raise OriginError(
                        f"{self._name} did not answer in {tries} tries ({trouble}); "
                        "what came before is kept: run the command again to go on"
                    ) from None
            else:
                self._answered = True
                if not (answer.status == 429 or answer.status >= 500) or tries == _TRIES:
                    return answer
                trouble = str(answer.status)
                wait = max(wait, seconds_until(asked, self._now()) if asked is not None else 0.0)
            wait = min(wait, _LONGEST_WAIT)
            log.warning("api_to_be_asked_again", api=self._name, trouble=trouble, seconds=round(wait, 1))
            await asyncio.sleep(wait)


def seconds_until(text: str, now: datetime) -> float:
    """Return how long a header asks to wait: in seconds, since the epoch, or as an HTTP date; 0 for anything else."""
    try:
        number = float(text)
    except ValueError:
        try:
            found = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        return max((found - now).total_seconds(), 0.0) if found.tzinfo is not None else 0.0
    wait = number - now.timestamp() if number > _EPOCH_FROM else number
    # Neither infinity nor what is no number at all.
    return wait if 0.0 <= wait < _EPOCH_FROM else 0.0


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        body += piece
        if len(body) > _ANSWER_LIMIT:
            break
    return bytes(body)
