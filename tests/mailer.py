"""Play a mailer against the SMTP server, octet by octet, and stand where the pipeline stands.

Replies are compared as they came off the wire; nothing here waits without a deadline.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from relay.intake import Submission
from relay.replies import Reply, queued
from relay.server import Listener, RelayServer, ServerSettings, serve

KEY = "abcdefghijklmnopqrstuvwxyz"
HOSTNAME = "relay.example.com"
DEADLINE = 10.0

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


class RecordingAcceptor:
    """An `Acceptor` that remembers what it was given, and answers when and what a test says."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.finished: list[Submission] = []
        self.reply: Reply | Exception = queued(KEY)
        self.go = asyncio.Event()
        self.go.set()
        self.arrived = asyncio.Event()

    async def accept(self, submission: Submission) -> Reply:
        """Record the submission, wait for the test's leave, and answer."""
        self.submissions.append(submission)
        self.arrived.set()
        await self.go.wait()
        self.finished.append(submission)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


class Mailer:
    """One connection to a server, with every reply read whole."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> bytes:
        """Read one reply, all its lines; empty at the end of the stream."""
        whole = b""
        async with asyncio.timeout(DEADLINE):
            while line := await self.reader.readline():
                whole += line
                if line[3:4] != b"-":
                    break
        return whole

    async def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.writer.write(octets)
        async with asyncio.timeout(DEADLINE):
            await self.writer.drain()

    async def say(self, line: bytes) -> bytes:
        """Send one line and read its reply."""
        await self.send(line + b"\r\n")
        return await self.reply()

    async def rest(self) -> list[bytes]:
        """Read the replies up to the end of the stream."""
        replies = []
        while whole := await self.reply():
            replies.append(whole)
        return replies

    async def hello(self) -> Self:
        """Read the banner and say EHLO."""
        await self.reply()
        await self.say(b"EHLO client.example")
        return self

    async def begin(self, *recipients: bytes, sender: bytes = b"<a@b.example>") -> bytes:
        """Say MAIL, RCPT for each recipient and DATA; return the last reply."""
        await self.say(b"MAIL FROM:" + sender)
        for recipient in recipients or (b"<c@d.example>",):
            await self.say(b"RCPT TO:" + recipient)
        return await self.say(b"DATA")

    async def deliver(self, content: bytes = MESSAGE) -> bytes:
        """Carry out a whole transaction; *content* is stuffed and ends with CRLF."""
        assert (await self.begin()).startswith(b"354 ")
        await self.send(content)
        return await self.say(b".")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Do the handshake; the reply to STARTTLS has been read."""
        async with asyncio.timeout(DEADLINE):
            await self.writer.start_tls(context, server_hostname="localhost")

    async def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self.writer.close()
        try:
            async with asyncio.timeout(DEADLINE):
                await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass


@asynccontextmanager
async def connected(
    server: RelayServer, *, listener: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Mailer]:
    """Connect to a server's listener, and close at the end."""
    host, port = server.addresses[listener]
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname="localhost" if tls else None)
    mailer = Mailer(reader, writer)
    try:
        yield mailer
    finally:
        await mailer.close()


@asynccontextmanager
async def running(
    acceptor: RecordingAcceptor,
    *listeners: Listener,
    settings: ServerSettings | None = None,
) -> AsyncIterator[RelayServer]:
    """Run a server on loopback, and drain it at the end."""
    server = await serve(acceptor, settings or ServerSettings(hostname=HOSTNAME), listeners=listeners or (Listener(),))
    try:
        yield server
    finally:
        acceptor.go.set()
        await server.drain(seconds=DEADLINE)
