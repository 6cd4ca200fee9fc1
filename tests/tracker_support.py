"""What the tracker's tests share: a tracker on a real socket, raw HTTP, and a door in front of Redis."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from aiohttp import web

from injector.tokens import Keyring, Purpose
from ledger.events import EventType, Hit, decode_hit
from ledger.stream import FIELD, STREAM, connect
from providers.notice import Notice, decode_notice
from tracker.app import make_app
from tracker.health import Health
from tracker.keep import BufferUnavailableError, HitBuffer
from tracker.listener import serve
from tracker.pages import OURS, Pages
from tracker.segment import records
from tracker.settings import TrackerSettings

SECRET = b"a signing key made up for tests!"
KEY = bytes(range(16))
LINK = "https://shop.example.com/a/../b%2Fc?sig=%7Ez%2F+|&utm[]=1&u=HTTPS://X#:~:text=a,b"


class Answer(msgspec.Struct, frozen=True):
    """One HTTP response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def shown(self) -> tuple[int, dict[str, str], bytes]:
        """Everything that could tell one cause from another; the date cannot."""
        return self.status, {name: value for name, value in self.headers.items() if name != "date"}, self.body


class Kept:
    """A hit buffer in memory that can be told to fail."""

    def __init__(self) -> None:
        self.hits: list[Hit] = []
        self.broken = False

    async def append(self, hit: Hit) -> None:
        """Keep *hit*, or not."""
        if self.broken:
            raise BufferUnavailableError("told to")
        self.hits.append(hit)

    def health(self) -> Health:
        """Say what a real buffer would say."""
        return Health(ready=not self.broken)


class Tracker(msgspec.Struct, frozen=True):
    """A tracker that listens."""

    port: int
    keyring: Keyring
    app: web.Application
    runner: web.AppRunner

    def path(self, purpose: Purpose, url: str = "", link: int = -1, key: bytes = KEY) -> str:
        """Return the path of a tracked URL."""
        start = {Purpose.OPEN: "/track/o/", Purpose.CLICK: "/track/c/", Purpose.UNSUBSCRIBE: "/unsubscribe/"}
        return start[purpose] + self.keyring.mint(purpose, key, link, url)

    @property
    def click(self) -> str:
        """The path of a click on `LINK`."""
        return self.path(Purpose.CLICK, LINK, 3)

    @property
    def pixel(self) -> str:
        """The path of an open."""
        return self.path(Purpose.OPEN)

    @property
    def leave(self) -> str:
        """The path of an unsubscribe."""
        return self.path(Purpose.UNSUBSCRIBE)

    async def ask(
        self, path: str | bytes, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send one request exactly as given and return the answer."""
        target = path if isinstance(path, bytes) else path.encode("utf-8")
        given = {"Host": "track.example.com", "Connection": "close", **(headers or {})}
        if body or method == "POST":
            given.setdefault("Content-Length", str(len(body)))
            given.setdefault("Content-Type", "application/x-www-form-urlencoded")
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items()).encode("utf-8", "surrogateescape")
        return await self.say(method.encode() + b" " + target + b" HTTP/1.1\r\n" + lines + b"\r\n" + body)

    async def say(self, request: bytes) -> Answer:
        """Send octets and return the first answer; the connection must end with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            received = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return parse(received)


def parse(received: bytes) -> Answer:
    """Read one response; a header that comes twice is joined."""
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    return Answer(int(status.split(" ")[1]), headers, body)


@asynccontextmanager
async def tracking(
    buffer: HitBuffer,
    *,
    health: Health | None = None,
    settings: TrackerSettings | None = None,
    public_url: str = "https://track.example.com",
    header_seconds: float = 10.0,
    secrets: Sequence[bytes] = (SECRET,),
    routes: Sequence[web.AbstractRouteDef] = (),
    pages: Pages = OURS,
) -> AsyncIterator[Tracker]:
    """Run a tracker on a free port of loopback."""
    keyring = Keyring(secrets)
    app = make_app(
        keyring=keyring,
        buffer=buffer,
        settings=settings or TrackerSettings(),
        public_url=public_url,
        health=getattr(buffer, "health", lambda: health or Health(ready=True)),
        routes=routes,
        pages=pages,
    )
    runner = await serve(app, "127.0.0.1", 0, header_seconds=header_seconds)
    try:
        yield Tracker(runner.addresses[0][1], keyring, app, runner)
    finally:
        await runner.cleanup()


class Door:
    """A TCP door in front of the real Redis: shut it and Redis is away, stall it and Redis is slow."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._target = parts
        self._stalled = asyncio.Event()
        self._stalled.set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of Redis as seen through the door."""
        target = self._target
        userinfo = target.netloc.rpartition("@")[0]
        database = dict(parse_qsl(target.query)).get("db", "0") if target.scheme == "unix" else target.path.strip("/")
        return f"redis://{userinfo + '@' if userinfo else ''}127.0.0.1:{self._port}/{database or 0}"

    async def open(self) -> None:
        """Let everybody through."""
        if self._server is None:
            self._server = await asyncio.start_server(self._meet, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._streams):
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def stall(self) -> None:
        """Pass nothing on any more, but keep the connections."""
        self._stalled.clear()

    def resume(self) -> None:
        """Pass on what waited."""
        self._stalled.set()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._streams.add(writer)
        try:
            if self._target.scheme == "unix":
                inner_reader, inner_writer = await asyncio.open_unix_connection(self._target.path)
            else:
                inner_reader, inner_writer = await asyncio.open_connection(
                    self._target.hostname, self._target.port or 6379
                )
            self._streams.add(inner_writer)
            await asyncio.gather(self._pass(reader, inner_writer), self._pass(inner_reader, writer))
            self._streams.discard(inner_writer)
        finally:
            self._streams.discard(writer)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while block := await reader.read(65536):
                await self._stalled.wait()
                writer.write(block)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def door(redis_url: str) -> AsyncIterator[Door]:
    """Open a door in front of *redis_url*."""
    made = Door(redis_url)
    await made.open()
    try:
        yield made
    finally:
        made.resume()
        await made.shut()


def make_hits(count: int) -> list[Hit]:
    """Return hits that differ in everything that tells them apart."""
    return [
        Hit(
            id=os.urandom(16),
            type=list(EventType)[-1 - number % 3],
            key=number.to_bytes(16, "big"),
            at_ms=1_700_000_000_000 + number,
            link=number,
            url=f"https://example.com/{number}",
            network="192.0.2.0/24",
            user_agent="Mozilla/5.0",
        )
        for number in range(count)
    ]


async def streamed(redis_url: str) -> list[Hit]:
    """Return every hit in the stream, in its order."""
    return [decode_hit(payload) for payload in await _payloads(redis_url)]


async def noticed(redis_url: str) -> list[Notice]:
    """Return every notice in the stream, in its order."""
    return [decode_notice(payload) for payload in await _payloads(redis_url)]


async def _payloads(redis_url: str) -> list[bytes]:
    client = connect(redis_url)
    try:
        entries: Any = await client.xrange(STREAM)
    finally:
        await client.aclose()
    return [entry[FIELD.encode()] for _, entry in entries]


def journaled(directory: Path) -> list[Hit]:
    """Return every whole hit in the journal's files, oldest file first."""
    contents = [path.read_bytes() for path in sorted(directory.glob("*.hits"))]
    return [decode_hit(payload) for content in contents for payload in records(content)[0]]
