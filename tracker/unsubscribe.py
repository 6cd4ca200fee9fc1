"""Unsubscribe: a page with one button for people, RFC 8058 for mail programs; only a POST that means it acts.

Scanners fetch every link in a mail, so GET changes nothing. A POST never redirects, needs no cookie and may come
again. What could not be stored is an error: whoever asked must not believe that it was done.
"""

import asyncio

import aiohttp
from aiohttp import web

from injector.tokens import Purpose
from ledger.events import EventType
from tracker.forms import fields
from tracker.keep import Keeper, token_of
from tracker.pages import BUTTON_FIELD, BUTTON_VALUE, Page, page

#: Octets of a form, and seconds until it must be here.
MAX_BODY = 16384
BODY_SECONDS = 10.0

#: RFC 8058 3.1, and the page's own button.
_MEANT = ((b"List-Unsubscribe", b"One-Click"), (BUTTON_FIELD.encode(), BUTTON_VALUE.encode()))


class Unsubscribe:
    """`/unsubscribe/{token}`."""

    PATH = "/unsubscribe/"

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def ask(self, request: web.Request) -> web.Response:
        """Show the page with the button."""
        if self._keeper.claim(Purpose.UNSUBSCRIBE, token_of(request, self.PATH)) is None:
            return page(request, Page.UNKNOWN, 404)
        return page(request, Page.ASK)

    async def act(self, request: web.Request) -> web.Response:
        """Unsubscribe if the body says so."""
        body = await _body(request)
        claim = self._keeper.claim(Purpose.UNSUBSCRIBE, token_of(request, self.PATH))
        if claim is None:
            # 200: a mail provider that sees errors here would distrust the sender, and nothing is told to a guesser.
            return page(request, Page.UNKNOWN)
        sent = fields(request.headers.get("Content-Type", ""), body)
        if not any(field in sent for field in _MEANT):
            return page(request, Page.ASK)
        if not await self._keeper.keep(EventType.UNSUBSCRIBED, claim, request):
            failed = page(request, Page.FAILED, 503)
            failed.headers["Retry-After"] = "60"
            return failed
        return page(request, Page.DONE)


async def _body(request: web.Request) -> bytes:
    """Return the whole body; raise 400, 408 or 413 for one that is broken, too slow or too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, web.RequestPayloadError):
        raise web.HTTPBadRequest from None
    return bytes(body)
