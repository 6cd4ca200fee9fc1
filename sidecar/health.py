"""Answer whether this process is alive and can do its duty, and what it has counted.

A role reports into its `Readiness`; the answers are made from that alone, so that asking costs nothing and cannot
fail because something else did.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from sidecar.addresses import Listen
from sidecar.metrics import CONTENT_TYPE, exposition

# Seconds for requests under way when the listener closes.
_DRAIN_SECONDS = 2.0


class Readiness:
    """What a role needs, and what of it is missing now.

    Every name in *needs* counts as missing until it is reported present.
    """

    def __init__(self, *needs: str) -> None:
        self._missing = dict.fromkeys(needs, "not reached yet")
        self._degraded: dict[str, str] = {}
        self._draining = False

    def miss(self, name: str, reason: str) -> None:
        """Report that the role cannot do its duty, because *name* is missing."""
        self._degraded.pop(name, None)
        self._missing[name] = reason

    def degrade(self, name: str, reason: str) -> None:
        """Report that the role still does its duty, without *name*."""
        self._missing.pop(name, None)
        self._degraded[name] = reason

    def have(self, name: str) -> None:
        """Report that *name* is present."""
        self._missing.pop(name, None)
        self._degraded.pop(name, None)

    def drain(self) -> None:
        """Report that the process finishes what it has and takes nothing more; there is no way back."""
        self._draining = True

    @property
    def ready(self) -> bool:
        """Whether new work may be sent here."""
        return not self._missing and not self._draining

    def describe(self) -> dict[str, Any]:
        """Return the body of /readyz: `status`, and the reasons by name for what is missing or degraded."""
        status = "draining" if self._draining else "missing" if self._missing else "ready"
        body: dict[str, Any] = {"status": status}
        if self._missing:
            body["missing"] = dict(sorted(self._missing.items()))
        if self._degraded:
            body["degraded"] = sorted(self._degraded)
            body["reasons"] = dict(sorted(self._degraded.items()))
        return body


def health_routes(readiness: Readiness) -> list[web.RouteDef]:
    """Return /healthz, /readyz and /metrics, for an application of any role."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        return web.json_response(readiness.describe(), status=200 if readiness.ready else 503)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]


@asynccontextmanager
async def serving_health(listen: Listen, readiness: Readiness) -> AsyncIterator[None]:
    """Serve a role's health and metrics on *listen* for the time of the block."""
    app = web.Application(client_max_size=0)
    app.add_routes(health_routes(readiness))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_DRAIN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port).start()
        yield
    finally:
        await runner.cleanup()
