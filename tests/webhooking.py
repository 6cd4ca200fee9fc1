"""The real webhooks on a real socket, the stream behind them and the courier's recorder, as one test drives them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from courier.record import Recorder
from courier.sighting import Reader
from ledger.ids import alias_digest
from ledger.store import open_ledger
from ledger.stream import FIELD, STREAM, connect
from providers.registry import PROVIDERS
from providers.webhook import Trust
from tests.mailings import READER, ams_settings
from tests.rows import Pool, Row, Rows
from tests.tracker_support import Answer, Tracker, tracking
from tracker.buffer import SafeBuffer, open_buffer
from tracker.documents import Documents
from tracker.fetch import DocumentError
from tracker.once import Once
from tracker.settings import TrackerSettings
from tracker.shared_words import RedisWords
from tracker.webhook import make_webhooks

ANN, BOB = "ann@example.net", "bob@example.net"

_TABLES = ("event", "event_seen", "parked_event", "engagement", "suppression", "alias", "campaign_delta", "outbox")


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider sends."""

    body: bytes
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}


class Shelf:
    """The documents of the world, and who asked for which."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        """Give a document that is there."""
        self.asked.append(url)
        if url not in self.documents:
            raise DocumentError("it answered 404")
        return self.documents[url]


class Door(msgspec.Struct, frozen=True):
    """A listener with webhooks."""

    tracker: Tracker
    documents: Documents

    async def settled(self) -> None:
        """Return when every visit that was promised has been made, or given up."""
        while visits := list(self.documents._visiting.values()):
            await asyncio.wait(visits)

    async def post(self, name: str, post: Post) -> Answer:
        """Post to one provider's webhook."""
        return await self.ask(name, "POST", post)

    async def ask(self, name: str, method: str, post: Post) -> Answer:
        """Ask one provider's webhook with any method."""
        headers = {"Content-Type": "application/json"} | {name.title(): value for name, value in post.headers.items()}
        way = f"/webhooks/{name}" + (f"?{urlencode(post.query)}" if post.query else "")
        return await self.tracker.ask(way, method, headers, post.body)


class World:
    """One tracker's buffer, the ledger, and what was recorded of the stream so far."""

    def __init__(self, redis_url: str, buffer: SafeBuffer, words: RedisWords, recorder: Recorder, pool: Pool) -> None:
        self.shelf = Shelf()
        self.pool = pool
        self.rows = Rows(pool)
        self.recorder = recorder
        self._redis_url = redis_url
        self._buffer = buffer
        self._words = words
        self._read = b"0"

    @asynccontextmanager
    async def open(self, trust: Mapping[str, Trust]) -> AsyncIterator[Door]:
        """Listen, with what an operator believes of each provider; the others have no webhook."""
        documents = Documents(self.shelf, visit_pauses=(0.0, 0.0))
        webhooks = make_webhooks(
            providers=PROVIDERS,
            trust=lambda name: trust.get(name, Trust()),
            buffer=self._buffer,
            once=Once(self._words, answers=self._buffer.answers),
            documents=documents,
        )
        try:
            async with tracking(self._buffer, routes=webhooks.routes) as tracker:
                yield Door(tracker, documents)
        finally:
            await webhooks.close()
            await documents.close()

    async def record(self) -> int:
        """Record what is new in the stream, as the courier does; return how many entries that was."""
        client = connect(self._redis_url)
        try:
            entries: Any = await client.xrange(STREAM, min=b"(" + self._read)
        finally:
            await client.aclose()
        if entries:
            self._read = entries[-1][0]
        await self.recorder.record([(identity, fields[FIELD.encode()]) for identity, fields in entries])
        return len(entries)

    async def told(self, who: Mapping[int, str] | None = None) -> str:
        """Return all events and parked events in words, `opened machine by token; parked: no_id`.

        *who* names the messages whose events are told with a name in front.
        """
        events = await self.pool.fetch("SELECT message, type, bounce, machine, step FROM event ORDER BY id")
        parked = await self.pool.fetch("SELECT reason FROM parked_event ORDER BY id")
        said = []
        for one in events:
            name = (who or {}).get(one["message"], "")
            words = (name and f"{name}:", one["type"], one["bounce"], one["machine"] and "machine", "by", one["step"])
            said.append(" ".join(word for word in words if word))
        return "; ".join((*said, *(f"parked: {one['reason']}" for one in parked)))

    async def forget(self) -> None:
        """Empty the ledger of everything but messages."""
        await self.pool.execute("; ".join(f"DELETE FROM {table}" for table in _TABLES))  # noqa: S608 - names of ours

    async def standing(self) -> dict[str, int]:
        """Return how many rows there are of what an event may change."""
        return {table: await self.pool.fetchval(f"SELECT count(*) FROM {table}") for table in _TABLES}  # noqa: S608 - names of ours

    async def reach(self, message: Row, kind: str, scope: str, value: str) -> None:
        """Enter a foreign id of a message, as the relay does."""
        digest = alias_digest(kind, scope, value)
        await self.pool.execute("INSERT INTO alias (digest, message) VALUES ($1, $2)", digest, message.id)


@asynccontextmanager
async def world(
    redis_url: str, database_url: str, pool: Pool, directory: Path, reader: Reader = READER
) -> AsyncIterator[World]:
    """Put the parts together as the processes do, but for the fetcher and the courier's loop."""
    async with AsyncExitStack() as stack:
        buffer = await stack.enter_async_context(open_buffer(redis_url, directory, TrackerSettings(append_wait=5.0)))
        words = RedisWords(redis_url)
        stack.push_async_callback(words.close)
        ledger = await stack.enter_async_context(open_ledger(database_url))
        yield World(redis_url, buffer, words, Recorder(ledger, reader, ams=ams_settings()), pool)


async def all_of(door: Door, name: str, posts: list[Post], at_once: int = 16) -> list[Answer]:
    """Post many, so many at once; return the answers in the order of the posts."""
    room = asyncio.Semaphore(at_once)

    async def one(post: Post) -> Answer:
        async with room:
            return await door.post(name, post)

    return list(await asyncio.gather(*(one(post) for post in posts)))
