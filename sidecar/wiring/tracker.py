"""The tracker's process: hits in. It needs Redis or its own disk, and nothing else."""

from contextlib import AsyncExitStack

import structlog

from injector.tokens import Keyring
from sidecar.addresses import parse_listen
from sidecar.settings import JOURNAL_DIRECTORY, public_url
from sidecar.wiring.presence import Context, alone
from tracker.app import drain, make_app
from tracker.buffer import open_buffer
from tracker.listener import serve

log = structlog.get_logger()


async def tracker(context: Context) -> None:
    """Answer hits until told to stop, and keep each before its answer."""
    settings = context.settings
    listen = parse_listen(settings.tracker.listen)
    async with AsyncExitStack() as stack:
        journal = settings.data_dir / JOURNAL_DIRECTORY
        buffer = await stack.enter_async_context(open_buffer(settings.redis_url, journal, settings.tracker))
        app = make_app(
            keyring=Keyring(context.keys.signing),
            buffer=buffer,
            settings=settings.tracker,
            public_url=public_url(settings),
            health=buffer.health,
        )
        readiness = await stack.enter_async_context(alone(context, settings.tracker.admin_listen))
        runner = await serve(app, listen.host, listen.port, reuse_port=True)
        stack.push_async_callback(runner.cleanup)
        log.info("tracker_listening", listen=settings.tracker.listen)
        context.ready()
        await context.stopping.wait()
        readiness.drain()
        drain(app)
