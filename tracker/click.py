"""The redirect: from a valid token to exactly where the mailer's link went, and from nothing else to anywhere.

The destination is in the token, so that a click needs no database. Location is set by hand: aiohttp's own redirects
normalise a URL, and a pre-signed one then no longer works.
"""

from aiohttp import web

from injector.links import location
from injector.tokens import Purpose
from ledger.events import EventType
from tracker.keep import Keeper, token_of
from tracker.pages import BASE_HEADERS, Page, page

_HEADERS = {**BASE_HEADERS, "Content-Length": "0"}


class Click:
    """`/track/c/{token}`."""

    PATH = "/track/c/"

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def __call__(self, request: web.Request) -> web.Response:
        """Redirect once the hit is kept, and also when it could be kept nowhere: the person has a link to follow."""
        claim = self._keeper.claim(Purpose.CLICK, token_of(request, self.PATH))
        destination = location(claim.url) if claim is not None else None
        # One answer for every cause: nobody learns how close a guess was.
        if claim is None or not destination:
            return page(request, Page.UNKNOWN, 404)
        await self._keeper.keep(EventType.CLICKED, claim, request, url=destination)
        return web.Response(status=302, headers={**_HEADERS, "Location": destination})
