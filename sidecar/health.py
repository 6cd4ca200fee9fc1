"""Answer whether this process is alive and can do its duty, and what it has counted.

A role reports into its `Readiness`; the answers are made from that alone, so that asking costs nothing and cannot
fail because something else did.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from sidecar.addresses import Listen
from sidecar.metrics import CONTENT_TYPE, exposition
from sidecar.readiness import Readiness

# Seconds for requests under way when the listener closes.
_DRAIN_SECONDS = 2.0


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
