"""Say the commands before the content: each after the answer to the one before, or all in one write (RFC 2920).

An answer is handed out for each command in their order, so that whoever reads them need not know which way it was. One
that began with a no is ended without a message: nothing may be delivered by it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import aiosmtplib
from aiosmtplib import SMTPResponse
from aiosmtplib.protocol import SMTPProtocol

from relay.upstream import CLOSING

# Octets of answers that are taken for one write: three of the longest that the library takes.
_LONGEST = 96 * 1024

# Seconds in which an exchange that began with a no has to come to its end; then its connection is cut.
_END_SECONDS = 5.0

_GO = 354


class Exchange(Protocol):
    """The commands of one message, up to DATA."""

    async def reply(self) -> SMTPResponse:
        """Return the answer to the next command."""

    async def end(self) -> None:
        """Deliver nothing, after a no."""


def exchange_of(client: aiosmtplib.SMTP, commands: Sequence[bytes], *, seconds: float) -> Exchange:
    """Return an exchange of *commands*, the last of them DATA, in the way that the upstream offers.

    Each answer may take *seconds*. Raises what the library does when the connection fails, or `TimeoutError`.
    """
    if client.supports_extension("pipelining"):
        return _AtOnce(client, commands, seconds)
    return _OneByOne(client, commands, seconds)


class _OneByOne:
    def __init__(self, client: aiosmtplib.SMTP, commands: Sequence[bytes], seconds: float) -> None:
        self._client = client
        self._commands = deque(commands)
        self._seconds = seconds

    async def reply(self) -> SMTPResponse:
        return await self._client.execute_command(self._commands.popleft(), timeout=self._seconds)

    async def end(self) -> None:
        """Nothing was said after the no."""


class _AtOnce:
    def __init__(self, client: aiosmtplib.SMTP, commands: Sequence[bytes], seconds: float) -> None:
        self._client = client
        self._commands = commands
        self._seconds = seconds
        self._replies: _Replies | None = None
        self._codes: list[int] = []

    async def reply(self) -> SMTPResponse:
        if self._replies is None:
            self._replies = self._begin()
        reply = self._replies.taken()
        if reply is None:
            async with asyncio.timeout(self._seconds):
                reply = await self._replies.next()
        self._codes.append(reply.code)
        if len(self._codes) == len(self._commands) and reply.code == _GO:
            self._replies.release()
        return reply

    async def end(self) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._end()
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            self._client.close()

    def _begin(self) -> "_Replies":
        protocol = self._client.protocol
        if protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("the connection is gone")
        replies = _Replies(protocol)
        protocol.write(b"".join(command + b"\r\n" for command in self._commands))
        return replies

    async def _end(self) -> None:
        replies = self._replies
        if replies is None or self._codes[-1] == CLOSING:
            self._client.close()
            return
        while len(self._codes) < len(self._commands):
            self._codes.append((await replies.next()).code)
        *before, data = self._codes
        if data == _GO:
            if before[-1] < 300:
                # It has a recipient: a dot might deliver an empty message, where a connection that ends cannot.
                self._client.close()
                return
            # RFC 2920 3.1: the content that it waits for is nothing.
            replies.write(b".\r\n")
            await replies.next()
        replies.release()


class _Replies(asyncio.Protocol):
    """Stands in for the library's protocol while several answers are out: that one drops what it is not waiting for."""

    def __init__(self, protocol: SMTPProtocol) -> None:
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("the connection is gone")
        self._protocol = protocol
        self._transport = transport
        self._octets = bytearray()
        self._ready: deque[SMTPResponse] = deque()
        self._error: Exception | None = None
        self._news = asyncio.Event()
        transport.set_protocol(self)

    def taken(self) -> SMTPResponse | None:
        """Return the next answer when it is here: they mostly come together."""
        return self._ready.popleft() if self._ready else None

    async def next(self) -> SMTPResponse:
        """Return the next answer; raise what became of the connection instead."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        return self._ready.popleft()

    def write(self, octets: bytes) -> None:
        """Write *octets*."""
        self._protocol.write(octets)

    def release(self) -> None:
        """Give the connection back to the library."""
        if not self._transport.is_closing():
            self._transport.set_protocol(self._protocol)

    def data_received(self, data: bytes) -> None:
        """Read the answers that are whole."""
        self._octets += data
        if len(self._octets) > _LONGEST:
            self._fail(aiosmtplib.SMTPServerDisconnected("the answer has no end"))
            self._transport.close()
            return
        try:
            while (reply := _taken(self._octets)) is not None:
                self._ready.append(reply)
        except ValueError:
            self._fail(aiosmtplib.SMTPServerDisconnected("the answer is none"))
            self._transport.close()
        self._news.set()

    def eof_received(self) -> bool | None:
        """Hear that the upstream hangs up."""
        self._fail(aiosmtplib.SMTPServerDisconnected("the upstream hung up"))
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that it is gone."""
        self._fail(aiosmtplib.SMTPServerDisconnected("the connection is lost"))
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._news.set()


def _taken(octets: bytearray) -> SMTPResponse | None:
    """Take the first answer off *octets*; none while it is not whole. Raises `ValueError` where there is no code."""
    texts: list[bytes] = []
    start = 0
    while (end := octets.find(b"\n", start)) >= 0:
        line = bytes(octets[start:end])
        start = end + 1
        code = int(line[:3])
        texts.append(line[4:].strip(b" \t\r\n"))
        if line[3:4] != b"-":
            del octets[:start]
            return SMTPResponse(code, b"\n".join(texts).decode("utf-8", "surrogateescape"))
    return None
