"""The console's process: the operator's API and pages."""

import asyncio
from contextlib import AsyncExitStack

import structlog
from aiohttp import web

from ledger.store import UNAVAILABLE, Ledger, open_ledger
from ledger.waiting import within
from ledger.windows import parse_windows
from sidecar.addresses import parse_listen
from sidecar.console.app import make_console
from sidecar.keys import console_token
from sidecar.readiness import Readiness
from sidecar.settings import CAPTURE, CAPTURE_DIRECTORY, public_url
from sidecar.wiring.presence import Context, background

log = structlog.get_logger()

_LOOK_SECONDS = 2.0


async def console(context: Context) -> None:
    """Serve the console until told to stop."""
    settings = context.settings
    listen = parse_listen(settings.console.listen)
    readiness = Readiness("postgresql")
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(settings.database_url, sealer=context.keys.sealer))
        app = make_console(
            ledger=ledger,
            identity_key=context.keys.identity,
            token=console_token(settings),
            capture_dir=settings.data_dir / CAPTURE_DIRECTORY if CAPTURE in settings.relay.upstream else None,
            public_url=public_url(settings),
            readiness=readiness,
            windows=parse_windows(settings.relay.send_window),
            hosts=(listen.host, *settings.console.hosts),
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, listen.host, listen.port).start()
        log.info("console_listening", listen=settings.console.listen)
        context.ready()
        async with background(lambda: _look(ledger, readiness)):
            await context.stopping.wait()
        readiness.drain()


async def _look(ledger: Ledger, readiness: Readiness) -> None:
    """Report whether PostgreSQL answers, for ever."""
    while True:
        try:
            await within(_LOOK_SECONDS, lambda: ledger.fetchrow("keyring_fingerprints", "identity"))
        except UNAVAILABLE:
            readiness.miss("postgresql", "does not answer")
        else:
            readiness.have("postgresql")
        await asyncio.sleep(_LOOK_SECONDS)
