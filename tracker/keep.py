"""Keep one hit: make it from the request, hand it to the buffer, and count what became of it.

The three tracked routes share this step; whether a hit that could be kept nowhere is an error is theirs to say.
"""

import os
import time
from typing import Protocol

from aiohttp import web
from prometheus_client import Counter

from injector.tokens import Claim, Keyring, Purpose, TokenError
from ledger.events import EventType, Hit
from tracker.hit import Facts, Proxies, make_hit

UNRECORDED = Counter("outrider_hits_unrecorded", "Hits that were answered but could be kept nowhere.", ["type"])
REFUSED = Counter("outrider_tokens_refused", "Requests whose token is not one of ours.", ["purpose"])

PURPOSE_HEADERS = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")


class BufferUnavailableError(Exception):
    """The hit or the notices could not be written durably: Redis and the journal's disk are both away, slow or full."""


class HitBuffer(Protocol):
    """Where hits wait for the courier."""

    async def append(self, hit: Hit) -> None:
        """Return once *hit* is durable; raise `BufferUnavailableError` when it could be kept nowhere."""
        ...


class Keeper:
    """Reads tokens and keeps hits for the routes."""

    def __init__(self, *, keyring: Keyring, buffer: HitBuffer, proxies: Proxies) -> None:
        self._keyring = keyring
        self._buffer = buffer
        self._proxies = proxies

    def known(self, purpose: Purpose, token: str) -> Claim | None:
        """Return what *token* says; None for any that is not ours."""
        try:
            return self._keyring.verify(purpose, token)
        except TokenError:
            return None

    def claim(self, purpose: Purpose, token: str) -> Claim | None:
        """Return what *token* says; None, counted, for any that is not ours."""
        claim = self.known(purpose, token)
        if claim is None:
            REFUSED.labels(purpose).inc()
        return claim

    async def keep(self, event: EventType, claim: Claim, request: web.Request, *, url: str = "") -> bool:
        """Have the hit of *request* kept; false, counted, when it could be kept nowhere."""
        return await self.keep_facts(event, claim, facts_of(request), url=url)

    async def keep_facts(self, event: EventType, claim: Claim, facts: Facts, *, url: str) -> bool:
        """Have a hit kept; false, counted, when it could be kept nowhere."""
        hit = make_hit(
            event,
            claim,
            facts,
            proxies=self._proxies,
            hit_id=os.urandom(16),
            at_ms=time.time_ns() // 1_000_000,
            url=url,
        )
        try:
            await self._buffer.append(hit)
        except BufferUnavailableError:
            UNRECORDED.labels(event).inc()
            return False
        return True


def facts_of(request: web.Request) -> Facts:
    """Return what *request* says of itself."""
    headers = request.headers
    return Facts(
        method=request.method,
        peer=request.remote or "",
        forwarded=tuple(headers.getall("X-Forwarded-For", ())),
        user_agent=headers.get("User-Agent", ""),
        purpose=next((headers[name] for name in PURPOSE_HEADERS if name in headers), ""),
    )


def token_of(request: web.Request, marker: str) -> str:
    """Return what stands behind *marker* in the path as it was sent: a token has one spelling."""
    return request.rel_url.raw_path.partition(marker)[2]
