"""Remember the documents that prove requests, and confirm subscriptions; what was asked for is not asked for again.

Anybody may send a request that names a document, so whatever comes in there is one question at a time for an address,
a pause after one that failed, and a bound on all of them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog

from tracker.fetch import DocumentError, Fetcher

log = structlog.get_logger()

#: Seconds for which a document is fresh, and for which an old one serves while no new one can be had.
FRESH_SECONDS = 600.0
STALE_SECONDS = 86_400.0
#: Seconds until a document that failed, or that proved nothing, is asked for again.
AGAIN_SECONDS = 60.0

_MAX_DOCUMENTS = 32
_MAX_FAILURES = 256
# Of one process: questions at once, and visits that wait. The next one is told to come back.
_MAX_AT_ONCE = 4
_MAX_VISITS = 16
#: Seconds before each attempt of a visit; the first lets the answer go out before it.
VISIT_PAUSES = (0.5, 5.0, 30.0)


Value = TypeVar("Value")


class _Document(msgspec.Struct, frozen=True):
    content: bytes
    at: float


class Documents:
    """The documents of one process; `close` it at the end. *clock* counts seconds and never goes back."""

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        clock: Callable[[], float] = time.monotonic,
        visit_pauses: Sequence[float] = VISIT_PAUSES,
    ) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._visit_pauses = visit_pauses
        self._known: OrderedDict[str, _Document] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[bytes]] = {}
        self._visiting: dict[str, asyncio.Task[None]] = {}

    async def get(self, url: str, *, older_than: float = FRESH_SECONDS) -> bytes:
        """Return the document at *url*, asked for again if it is *older_than* so many seconds; raise `DocumentError`.

        One that cannot be had again serves for `STALE_SECONDS`.
        """
        now = self._clock()
        known = self._known.get(url)
        if known is not None and now - known.at < older_than:
            self._known.move_to_end(url)
            return known.content
        try:
            return await self._ask(url, now)
        except DocumentError:
            if known is None or now - known.at > STALE_SECONDS:
                raise
            return known.content

    def visit(self, url: str, provider: str) -> None:
        """Ask for *url* once in the background, a few times if it must be: it confirms a subscription."""
        if url in self._visiting:
            return
        if len(self._visiting) >= _MAX_VISITS:
            log.warning("subscription_not_confirmed", provider=provider, reason="too many at once")
            return
        task = self._visiting[url] = asyncio.create_task(self._visit(url, provider))
        task.add_done_callback(lambda _: self._visiting.pop(url, None))

    async def close(self) -> None:
        """Give up what is being asked for."""
        tasks = [*self._asking.values(), *self._visiting.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _ask(self, url: str, now: float) -> bytes:
        failed_at, reason = self._failed.get(url, (-AGAIN_SECONDS, ""))
        if now - failed_at < AGAIN_SECONDS:
            raise DocumentError(reason)
        asking = self._asking.get(url)
        if asking is None:
            if len(self._asking) >= _MAX_AT_ONCE:
                raise DocumentError("too many are asked for")
            asking = self._asking[url] = asyncio.create_task(self._fetch(url))
            asking.add_done_callback(lambda task: self._answered(url, task))
        # Shielded: whoever asked first may hang up, and the others still wait.
        return await asyncio.shield(asking)

    def _answered(self, url: str, task: asyncio.Task[bytes]) -> None:
        self._asking.pop(url, None)
        # Looked at, in case that everybody who waited hung up.
        if not task.cancelled():
            task.exception()

    async def _fetch(self, url: str) -> bytes:
        try:
            content = await self._fetcher.fetch(url)
        except DocumentError as error:
            _bound(self._failed, url, (self._clock(), str(error)), _MAX_FAILURES)
            log.warning("document_not_had", host=urlsplit(url).hostname, reason=str(error))
            raise
        self._failed.pop(url, None)
        _bound(self._known, url, _Document(content, self._clock()), _MAX_DOCUMENTS)
        return content

    async def _visit(self, url: str, provider: str) -> None:
        reason = ""
        for pause in self._visit_pauses:
            await asyncio.sleep(pause)
            try:
                await self._fetcher.fetch(url)
            except DocumentError as error:
                reason = str(error)
            else:
                log.info("subscription_confirmed", provider=provider)
                return
        log.error("subscription_not_confirmed", provider=provider, reason=reason)


def _bound(kept: OrderedDict[str, Value], url: str, value: Value, most: int) -> None:
    kept[url] = value
    kept.move_to_end(url)
    if len(kept) > most:
        kept.popitem(last=False)
