"""aiosmtpd's connection, made fit for a relay: lines and blocks in, replies out, time limits, TLS.

It replaces what is defective there. A line ends at CRLF alone; a client that hangs up cancels nothing, what it sent
is still read to its end; the timer answers 421 and closes even when the client does not read.
"""

import asyncio
import logging
import re
import ssl
from typing import cast

from aiosmtpd.smtp import SMTP

from relay import replies
from relay.reception import Reception, is_loopback
from relay.replies import Reply

# aiosmtpd prints addresses at INFO and message lines at DEBUG.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)

_BLOCK_OCTETS = 65_536
# RFC 5321 4.5.3.1.4 says 512, extensions add to it; RFC 4954 4 wants 12288 for AUTH.
_LINE_OCTETS = 2048
_AUTH_LINE_OCTETS = 12_288
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

_HANDSHAKE_SECONDS = 30.0
# What a client gets to take our last words before it is cut off.
_LAST_WORDS_SECONDS = 5.0


class Channel(SMTP):
    """One connection: reads command lines and blocks, writes replies, and knows whether it is encrypted."""

    # The StreamReader's limit: it stops reading from the socket at twice this.
    line_length_limit = _BLOCK_OCTETS

    def __init__(self, reception: Reception) -> None:
        settings = reception.settings
        super().__init__(
            None,
            data_size_limit=settings.max_bytes,
            enable_SMTPUTF8=True,
            hostname=settings.hostname,
            ident="ESMTP",
            tls_context=settings.tls,
            timeout=settings.idle_timeout,
            loop=asyncio.get_running_loop(),
        )
        self.reception = reception
        self.client = ""
        #: Whether the peer may submit without AUTH, and whether it is on this machine.
        self.trusted = False
        self.on_this_machine = False
        self.encrypted = False
        #: Waiting for a command outside a transaction: nothing is lost by closing now.
        self.interruptible = False
        self._inbound = bytearray()
        # The rest of a line that was refused before its end is passed over.
        self._discarding = False
        self._half_closed = False
        self._lingering = False
        self._last_words: asyncio.TimerHandle | None = None
        self._refusal: Reply | None = None

    def __dir__(self) -> list[str]:
        """List nothing: aiosmtpd looks for commands in every attribute of every new connection; ours are elsewhere."""
        return []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the session in and start it; called once, after the handshake where TLS is implicit."""
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if isinstance(peer, tuple) else ""
        self.encrypted = transport.get_extra_info("sslcontext") is not None
        self.trusted = self.reception.allows(self.client)
        self.on_this_machine = is_loopback(self.client)
        self._refusal = self.reception.enter(self)
        super().connection_made(transport)

    def stands_for(self, client: str) -> None:
        """Take *client* for the peer, as a proxy says."""
        self._refusal = self.reception.rename(self, client)
        self.trusted = self.reception.allows(client)
        self.on_this_machine = is_loopback(client)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - see below
        """Let the session read what has arrived, then end; aiosmtpd would cancel it in the middle of its work."""
        self._stop_timer()
        if self._last_words is not None:
            self._last_words.cancel()
        # Without its error: with it, the reader would withhold what it holds.
        asyncio.StreamReaderProtocol.connection_lost(self, None)
        self.transport = None
        self.reception.leave(self)

    def data_received(self, data: bytes) -> None:
        """Take what arrives, or nothing more once the last words are said."""
        if not self._lingering:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        """Go on after a half-close: what was sent before it is answered."""
        self._half_closed = True
        return False if self._lingering else asyncio.StreamReaderProtocol.eof_received(self)

    @property
    def gone(self) -> bool:
        """Whether there is nobody left to answer."""
        return self.transport is None or self._lingering or self._writer.is_closing()

    async def answer(self, reply: Reply) -> None:
        """Send *reply*; raises `ConnectionError` when the client is gone."""
        if self.gone:
            raise ConnectionResetError
        self._writer.write(bytes(reply))
        await self._writer.drain()

    def dismiss(self, reply: Reply) -> None:
        """Send *reply* and close, to a client that expects it."""
        if not self.gone:
            self._writer.write(bytes(reply))
            self.hang_up()

    def throw_out(self, reply: Reply) -> None:
        """Send *reply* and close, to a client that may still be sending.

        Closing with octets unread would reset the connection and take the reply with it, so we close our side, and
        pass over what comes until the client closes too, for five seconds at most.
        """
        if self.gone:
            return
        self._writer.write(bytes(reply))
        transport = self._socket
        if self._half_closed or not transport.can_write_eof():
            self.hang_up()
            return
        self._stop_timer()
        self._lingering = True
        transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()
        # Whoever waits for the next octets learns that there are none.
        self._reader.feed_eof()
        self._last_words = self.loop.call_later(_LAST_WORDS_SECONDS, self.abort)

    def hang_up(self) -> None:
        """Close once what was written has left, but do not wait for it for ever."""
        self._stop_timer()
        if not self.gone:
            self._writer.close()
            self._last_words = self.loop.call_later(_LAST_WORDS_SECONDS, self.abort)

    def abort(self) -> None:
        """Close without another word."""
        if self.transport is not None:
            self._socket.abort()

    @property
    def _socket(self) -> asyncio.Transport:
        # uvloop's transports are no subclasses of asyncio's, so this cannot be asked at run time.
        return cast("asyncio.Transport", self._writer.transport)

    def start_timer(self, seconds: float) -> None:
        """Answer 421 and close *seconds* from now, unless the timer is started or stopped again."""
        self._reset_timeout(seconds)

    def _timeout_cb(self) -> None:
        self.throw_out(replies.TIMED_OUT)

    def _stop_timer(self) -> None:
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()

    def leave_when_idle(self) -> None:
        """Answer 421 and close, unless something is in progress; then the session does so after it."""
        if self.interruptible:
            self.dismiss(replies.SHUTTING_DOWN)

    async def read_line(self) -> bytes | Reply | None:
        """Return the next line without its CRLF, the reply to a line that is none, or None when there is no more.

        A line is refused as soon as it is too long or shows a bare LF; what follows, up to the next CRLF, belongs to
        it and is never read as a command.
        """
        searched = 0
        while True:
            end = self._inbound.find(b"\r\n", searched)
            if end >= 0:
                line = bytes(self._inbound[:end])
                del self._inbound[: end + 2]
                if not self._discarding:
                    return _judged(line)
                self._discarding = False
                searched = 0
                continue
            if self._inbound:
                refusal = self._refuse_early()
                if refusal is not None:
                    return refusal
                searched = max(len(self._inbound) - 1, 0)
            block = await self._reader.read(_BLOCK_OCTETS)
            if not block:
                return None
            self._inbound += block

    def _refuse_early(self) -> Reply | None:
        overlong = len(self._inbound) > _room(self._inbound)
        bare = b"\n" in self._inbound
        if not (overlong or bare or self._discarding):
            return None
        # A CR at the end may be the first half of a CRLF.
        del self._inbound[: -1 if self._inbound.endswith(b"\r") else len(self._inbound)]
        if self._discarding:
            return None
        self._discarding = True
        return replies.BAD_LINE if bare else replies.LINE_TOO_LONG

    async def read_block(self) -> bytes:
        """Return what has arrived, at most 64 KiB or what was read ahead; no octets at the end of the stream."""
        if self._inbound:
            block = bytes(self._inbound)
            self._inbound.clear()
            return block
        return await self._reader.read(_BLOCK_OCTETS)

    def put_back(self, rest: bytes) -> None:
        """Return what `read_block` brought too much; it is read next."""
        self._inbound[:0] = rest

    async def encrypt(self, context: ssl.SSLContext) -> None:
        """Turn the connection into TLS; raises `OSError` when the handshake fails.

        Whatever came before the handshake came in plain text, from anybody, and is forgotten (RFC 3207 5).
        """
        self._inbound.clear()
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # noqa: SLF001 - the stream has no public way
        await self._writer.start_tls(context, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
        self.transport = self._writer.transport
        self._reader._transport = self.transport  # type: ignore[attr-defined]  # noqa: SLF001 - Python 3.11 forgets it
        self.encrypted = True


def _room(line: bytes | bytearray) -> int:
    return _AUTH_LINE_OCTETS if line[:5].upper() == b"AUTH " else _LINE_OCTETS


def _judged(line: bytes) -> bytes | Reply:
    if len(line) > _LINE_OCTETS and len(line) > _room(line):
        return replies.LINE_TOO_LONG
    return replies.BAD_LINE if _CONTROL.search(line) else line
