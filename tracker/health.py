"""Say whether the process lives, and whether it can do its duty: answer, and keep what it answered.

A tracker stays ready while it can keep hits anywhere; only a drain or a hit kept nowhere makes it step aside.
"""

from collections.abc import Callable

import msgspec
from aiohttp import web

from tracker.pages import plain


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What `/readyz` answers."""

    ready: bool
    #: What is not as it should be, for a person; empty when all is well.
    degraded: tuple[str, ...] = ()


class HealthRoutes:
    """`/healthz` and `/readyz`."""

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health
        self._draining = False

    def drain(self) -> None:
        """Step aside: from now on `/readyz` answers 503, everything else as before."""
        self._draining = True

    async def healthz(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        """Answer 200: the process and its loop are alive."""
        return plain(200, "ok")

    async def readyz(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        """Answer 200 with what is degraded, or 503."""
        health = self._health()
        if self._draining:
            health = Health(ready=False, degraded=("draining", *health.degraded))
        response = plain(200 if health.ready else 503, "")
        response.body = msgspec.json.encode(health) + b"\n"
        response.content_type = "application/json"
        return response
