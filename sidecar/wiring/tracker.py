"""The tracker's process: hits and providers' events in. It needs Redis or its own disk, and nothing else."""

from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from injector.tokens import Keyring
from providers.registry import PROVIDERS
from sidecar.addresses import parse_listen
from sidecar.settings import JOURNAL_DIRECTORY, Settings, public_url
from sidecar.wiring.presence import Context, alone
from tracker.app import drain, make_app
from tracker.buffer import SafeBuffer, open_buffer
from tracker.documents import Documents
from tracker.fetch import HttpsFetcher
from tracker.listener import serve
from tracker.once import Once
from tracker.pages import OURS, Pages
from tracker.shared_words import RedisWords
from tracker.webhook import Webhooks, make_webhooks

log = structlog.get_logger()


async def tracker(context: Context) -> None:
    """Answer hits and webhooks until told to stop, and keep each before its answer."""
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
            routes=_webhooks(stack, settings, buffer).routes,
            pages=_pages(settings.tracker.page_template),
        )
        readiness = await stack.enter_async_context(alone(context, settings.tracker.admin_listen))
        runner = await serve(app, listen.host, listen.port, reuse_port=True)
        stack.push_async_callback(runner.cleanup)
        log.info("tracker_listening", listen=settings.tracker.listen)
        context.ready()
        await context.stopping.wait()
        readiness.drain()
        drain(app)


def _pages(template: str) -> Pages:
    """Return the pages of the file *template*, ours where none is named."""
    return Pages(Path(template).read_text(encoding="utf-8")) if template else OURS


def _webhooks(stack: AsyncExitStack, settings: Settings, buffer: SafeBuffer) -> Webhooks:
    """Return the webhooks; *stack* closes what they use, after the listener."""
    fetcher = HttpsFetcher()
    words = RedisWords(settings.redis_url)
    documents = Documents(fetcher)
    webhooks = make_webhooks(
        providers=PROVIDERS,
        trust=settings.webhooks.trust,
        buffer=buffer,
        once=Once(words, answers=buffer.answers),
        documents=documents,
        public_url=public_url(settings),
    )
    for close in (fetcher.close, words.close, documents.close, webhooks.close):
        stack.push_async_callback(close)
    return webhooks
