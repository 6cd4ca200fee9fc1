"""The pixel: the same image for any token, whole and fresh, and a hit for a valid one.

A mail reader that shows a broken image betrays the pixel; so nothing about the token shows in the answer.
"""

from aiohttp import web

from injector.tokens import Purpose
from ledger.events import EventType
from tracker.keep import Keeper, token_of
from tracker.pages import BASE_HEADERS

#: One transparent pixel: the 43 octets that every mail reader knows.
GIF = bytes.fromhex(
    "474946383961 0100 0100 80 00 00 000000 ffffff"  # GIF89a, 1x1, two colours
    "21f904 01 0000 00 00"  # transparent
    "2c 0000 0000 0100 0100 00"
    "02 02 44 01 00 3b"
)

HEADERS = {
    **BASE_HEADERS,
    "Content-Type": "image/gif",
    "Pragma": "no-cache",
    "Expires": "0",
    # A web mailer that isolates its pages may still show the image.
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class Open:
    """`/track/o/{token}`."""

    PATH = "/track/o/"

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def __call__(self, request: web.Request) -> web.Response:
        """Answer with the pixel, once the hit of a valid token is kept or lost: an image is never an error."""
        claim = self._keeper.claim(Purpose.OPEN, token_of(request, self.PATH))
        if claim is not None:
            await self._keeper.keep(EventType.OPENED, claim, request)
        return web.Response(body=GIF, headers=HEADERS)
