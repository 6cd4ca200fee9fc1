"""The short way of a pixel or a link: a plain request that is read and answered without aiohttp, and told the same.

To read a request, find its route and make up its answer costs several times what it costs to verify a token and keep a
hit. Only what is beyond doubt goes this way: one whole GET in one piece, its path a token, its headers from a list and
each there once. Whatever else comes, also what is almost that, is aiohttp's.
"""

import re
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from aiohttp import web

from injector.links import location
from injector.tokens import Claim, Purpose
from ledger.events import EventType
from tracker.hit import Facts
from tracker.keep import PURPOSE_HEADERS, Keeper

log = structlog.get_logger()

#: A browser's request has some 600 octets; one that is longer goes the other way.
_MOST_OCTETS: Final = 4096

#: What a browser, a mail program or a proxy in front of us sends, and what asks for nothing but an answer.
_ORDINARY: Final = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "cookie",
        "dnt",
        "from",
        "host",
        "if-modified-since",
        "if-none-match",
        "origin",
        "pragma",
        "priority",
        "purpose",
        "range",
        "referer",
        "save-data",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "sec-gpc",
        "sec-purpose",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-moz",
        "x-purpose",
        "x-real-ip",
    }
)
# A campaign has few links, and each is followed by many.
_location = lru_cache(maxsize=2048)(location)

# By names of this module: a look at an enum's class takes longer than what it is for.
_OPENED, _CLICKED, _OPEN, _CLICK = EventType.OPENED, EventType.CLICKED, Purpose.OPEN, Purpose.CLICK
_PURPOSES: Final = tuple(name.lower() for name in PURPOSE_HEADERS)


class Form:
    """What the answers of one route have in common."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        given = {**headers, "Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {text}" for name, text in given.items())]
        self._head = "\r\n".join(lines).encode("ascii") + b"\r\n"
        self._body = body
        self._second = -1
        self._dated = b""

    def filled(self, further: bytes = b"") -> bytes:
        """Return the answer of now, whole; *further* are header lines that end with CRLF."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._dated = b"%bDate: %b\r\n" % (self._head, formatdate(second, usegmt=True).encode("ascii"))
        return b"%b%b\r\n%b" % (self._dated, further, self._body)


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request asks for."""

    event: EventType
    claim: Claim
    facts: Facts
    #: Where a click leads.
    url: str


class Lane:
    """Reads plain requests and answers them. *bases* is what may stand before a path of ours."""

    def __init__(self, keeper: Keeper, *, bases: Sequence[str], pixel: Form, click: Form, failed: Form) -> None:
        self._keeper = keeper
        self._failed = failed
        self._pixel = pixel
        self._click = click
        before = b"|".join(re.escape(base.encode("ascii")) for base in bases)
        # Every piece excludes what ends it, so that nothing is read twice.
        self._request = re.compile(
            rb"GET (?:%b)/track/([oc])/([A-Za-z0-9_.-]+) HTTP/1\.1\r\n"
            rb"((?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n){1,40})\r\n" % before
        )

    def read(self, octets: bytes, peer: str) -> Asked | None:
        """Return what *octets* from the address *peer* ask for; none where that is not beyond doubt."""
        if len(octets) > _MOST_OCTETS or (found := self._request.fullmatch(octets)) is None:
            return None
        facts = _facts(found[3].decode("ascii"), peer)
        if facts is None:
            return None
        opened = found[1] == b"o"
        claim = self._keeper.known(_OPEN if opened else _CLICK, found[2].decode("ascii"))
        if claim is None:
            return None
        if opened:
            return Asked(event=_OPENED, claim=claim, facts=facts, url="")
        url = _location(claim.url)
        return Asked(event=_CLICKED, claim=claim, facts=facts, url=url) if url else None

    async def answer(self, asked: Asked) -> bytes:
        """Keep the hit, or lose it, and return the answer; what nobody foresaw is a short 500. Raises nothing."""
        try:
            await self._keeper.keep_facts(asked.event, asked.claim, asked.facts, url=asked.url)
        # Its words could hold a token.
        except Exception as error:  # noqa: BLE001
            log.error("request_failed", error=type(error).__name__)  # noqa: TRY400
            return self._failed.filled()
        if asked.event is _OPENED:
            return self._pixel.filled()
        # `location` gives no control character, so that no header can end in it.
        return self._click.filled(b"Location: %b\r\n" % asked.url.encode("ascii"))


#: The lane of an application; the listener looks there first.
LANE: Final = web.AppKey("lane", Lane)


def _facts(lines: str, peer: str) -> Facts | None:
    """Return what the header *lines*, each ending with CRLF, say; none for a header that is not ordinary."""
    told: dict[str, str] = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, text = line.partition(":")
        name = name.lower()
        if name not in _ORDINARY or name in told:
            return None
        told[name] = text.strip(" \t")
    if "host" not in told or told.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    forwarded = told.get("x-forwarded-for")
    return Facts(
        method="GET",
        peer=peer,
        forwarded=() if forwarded is None else (forwarded,),
        user_agent=told.get("user-agent", ""),
        purpose=next((told[name] for name in _PURPOSES if name in told), ""),
    )
