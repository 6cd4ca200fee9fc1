"""A scripted TCP proxy: it stands before a server and does to every conversation what networks do to them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

_BLOCK = 65536


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens: on a port of loopback, or on a socket file."""

    port: int = 0
    path: Path | None = None


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter

    def end(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """The door to one server. Use it with `proxied`; every fault holds for all conversations, until `heal`."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        # Octets that still pass to a client before its conversation is cut; none: all do.
        self._left: int | None = None
        # Held by a socket that never listens: while the door is shut nobody else's connection may begin at the port.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        #: Where it listens, over every shutting.
        self.port: int = self._place.getsockname()[1]

    async def open(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = await asyncio.start_server(self._meet, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Reset every conversation; the next ones are taken."""
        for line in list(self._lines):
            line.end()

    def stall(self) -> None:
        """Pass nothing on in either direction, and keep the conversations."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Pass each block on so much later."""
        self._delay = seconds

    def clip(self, octets: int) -> None:
        """Cut each conversation in the middle of an answer: when so much more has passed to the client."""
        self._left = octets

    def half_close(self, side: Literal["client", "server"]) -> None:
        """Tell one side of every conversation that the other has no more to say."""
        for line in list(self._lines):
            with contextlib.suppress(OSError, RuntimeError):
                (line.client if side == "client" else line.server).write_eof()

    async def heal(self) -> None:
        """End every fault."""
        self._delay, self._left = 0.0, None
        self._flowing.set()
        await self.open()

    async def close(self) -> None:
        """Shut for good."""
        self._flowing.set()
        await self.shut()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        self._place.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._target.path is not None:
                inner_reader, inner = await asyncio.open_unix_connection(str(self._target.path))
            else:
                inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._target.port)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        line = _Line(client=writer, server=inner)
        self._lines.add(line)
        try:
            await asyncio.gather(self._pass(reader, inner), self._pass(inner_reader, writer, clipped=True))
        finally:
            line.end()
            self._lines.discard(line)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, clipped: bool = False) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while block := await reader.read(_BLOCK):
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if clipped and self._left is not None and len(block) > self._left:
                    writer.write(block[: self._left])
                    break
                if clipped and self._left is not None:
                    self._left -= len(block)
                writer.write(block)
                await writer.drain()
        # Neither side says a word more than what passed.
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
        if clipped:
            writer.transport.close()


@asynccontextmanager
async def proxied(target: Address) -> AsyncIterator[Proxy]:
    """Open a proxy before *target* for the time of the block."""
    made = Proxy(target)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def redis_at(url: str) -> Address:
    """Return where the Redis of *url* listens."""
    parts = urlsplit(url)
    return Address(path=Path(parts.path)) if parts.scheme == "unix" else Address(port=parts.port or 6379)


def redis_through(url: str, way: Proxy) -> str:
    """Return the URL of that Redis as it is reached through *way*."""
    parts = urlsplit(url)
    number = parse_qs(parts.query).get("db", ["0"])[0] if parts.scheme == "unix" else parts.path.strip("/") or "0"
    return f"redis://{_who(url)}127.0.0.1:{way.port}/{number}"


def postgresql_at(url: str) -> Address:
    """Return where the PostgreSQL of *url* listens."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    if host := asked.get("host", [""])[0]:
        return Address(path=Path(host) / f".s.PGSQL.{asked.get('port', ['5432'])[0]}")
    return Address(port=parts.port or 5432)


def postgresql_through(url: str, way: Proxy) -> str:
    """Return the URL of that database as it is reached through *way*."""
    return f"postgresql://{_who(url)}127.0.0.1:{way.port}{urlsplit(url).path}?sslmode=disable"


def _who(url: str) -> str:
    who = urlsplit(url).netloc.rpartition("@")[0]
    return f"{who}@" if who else ""
