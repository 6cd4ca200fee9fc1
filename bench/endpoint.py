"""The tracker as its role runs it, with one part of its own: it knows the document that proves what SNS signed.

A process of its own: SNS's certificates are fetched from the world, and a bench has none. It is told its settings on
its standard input, prints a line when it listens, and ends with its input.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from injector.tokens import Keyring
from providers.registry import PROVIDERS
from providers.webhook import Trust
from tracker.app import make_app
from tracker.buffer import open_buffer
from tracker.documents import Documents
from tracker.fetch import DocumentError
from tracker.listener import serve
from tracker.once import Once
from tracker.settings import TrackerSettings
from tracker.shared_words import RedisWords
from tracker.webhook import make_webhooks

_ROOT: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 20.0
_ERROR: Final = 40


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What it is told."""

    redis_url: str
    journal: str
    port: int
    trusts: Mapping[str, Trust]
    #: Documents of the world by their URLs.
    documents: Mapping[str, bytes]


class _Shelf:
    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self._documents = documents

    async def fetch(self, url: str) -> bytes:
        if url not in self._documents:
            raise DocumentError("no such document")
        return self._documents[url]


@asynccontextmanager
async def endpoint(orders: Orders) -> AsyncIterator[int]:
    """Run it for the time of the block, and yield its pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.endpoint",
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - it was started so
    assert process.stdout is not None  # noqa: S101 - the same
    try:
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        async with asyncio.timeout(_START_SECONDS):
            await process.stdout.readline()
        yield process.pid
    finally:
        process.stdin.close()
        await process.wait()


async def _serve(orders: Orders) -> None:
    async with AsyncExitStack() as stack:
        settings = TrackerSettings(listen=f"127.0.0.1:{orders.port}")
        buffer = await stack.enter_async_context(open_buffer(orders.redis_url, Path(orders.journal), settings))
        words = RedisWords(orders.redis_url)
        documents = Documents(_Shelf(orders.documents))
        webhooks = make_webhooks(
            providers=PROVIDERS,
            trust=lambda name: orders.trusts.get(name, Trust()),
            buffer=buffer,
            once=Once(words, answers=buffer.answers),
            documents=documents,
        )
        for close in (words.close, documents.close, webhooks.close):
            stack.push_async_callback(close)
        app = make_app(
            # No hit comes here.
            keyring=Keyring([b"no token is signed with this key"]),
            buffer=buffer,
            settings=settings,
            public_url="https://track.example.com",
            health=buffer.health,
            routes=webhooks.routes,
        )
        runner = await serve(app, "127.0.0.1", orders.port)
        stack.push_async_callback(runner.cleanup)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        end = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(end), sys.stdin.buffer)
        await end.read()


def _main() -> None:
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(_ERROR),
    )
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(orders))


if __name__ == "__main__":
    _main()
