"""Offer one message on a connection: MAIL, RCPT, DATA, the content, the final dot.

What the upstream cannot take by its own EHLO is refused before a word is said. The intent is marked after its 354 and
before a byte of content leaves.
"""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Protocol

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol
from prometheus_client import Counter

from providers.webhook import Provider
from relay.rendering import SMALL, Share, pieces
from relay.upstream import CLOSING, BeforeDot, Letter, Outcome, Trouble, Verdict, judged
from relay.upstream_exchange import Exchange, exchange_of

EIGHT_BIT = Counter(
    "outrider_upstream_eight_bit_total", "Messages with 8-bit content, sent as they are, not offered 8BITMIME."
)

#: Seconds to wait for the reply to a command; for a block of content to be taken (RFC 5321 4.5.3.2.5); to wait for the
#: reply to the final dot (4.5.3.2.6 asks for ten minutes, since a dot without an answer may be a second copy).
COMMAND_SECONDS, BLOCK_SECONDS, DOT_SECONDS = 60.0, 180.0, 600.0


class Line(Protocol):
    """A connection: `relay.upstream_pool.PooledLine`."""

    client: aiosmtplib.SMTP
    #: A transaction was begun and not ended: RSET comes before the next.
    dirty: bool

    @property
    def reused(self) -> bool:
        """It carried a message before, so that the upstream may have closed it meanwhile."""

    async def renew(self) -> Trouble | None:
        """Open another connection in its place."""


async def converse(
    line: Line, letter: Letter, before_dot: BeforeDot, share: Share, provider: Provider | None = None
) -> Outcome:
    """Offer *letter* and return what came of it; raise what aiosmtplib raises when the connection fails.

    *provider* is whose upstream it is.
    """
    said = await _offer(line, letter, before_dot, share, provider)
    # The content has left, and no frame holds it any more.
    share.give_back()
    if isinstance(said, Verdict | Trouble):
        return said
    async with asyncio.timeout(DOT_SECONDS):
        reply = await said
    line.dirty = False
    if reply.code == CLOSING:
        line.client.close()
    return judged(reply.code, reply.message)


async def _offer(
    line: Line, letter: Letter, before_dot: BeforeDot, share: Share, provider: Provider | None
) -> Outcome | Awaitable[aiosmtplib.SMTPResponse]:
    """Offer *letter* up to its final dot; return the reply to come, or what ended it before."""
    content = await share.render(partial(letter.render, provider))
    exchange = await _begin(line, letter, content)
    if isinstance(exchange, Verdict | Trouble):
        return exchange
    reply = await exchange.reply()
    if reply.code >= 300:
        await exchange.end()
        return judged(reply.code, reply.message)
    reply = await exchange.reply()
    if reply.code != 354:
        await exchange.end()
        outcome = judged(reply.code, reply.message)
        # Not one of the three replies that can be a verdict.
        return outcome if isinstance(outcome, Trouble) else Trouble(reason="reply", reply=str(outcome))
    await before_dot()
    return await _send_content(line.client, content)


async def _begin(line: Line, letter: Letter, content: bytes) -> Outcome | Exchange:
    """Say MAIL, and return what is to be heard next; on another connection where this one was closed while idle."""
    while True:
        client = line.client
        if (unfit := _unfit(client, letter, len(content))) is not None:
            return unfit
        commands = [_mail(client, letter, content), b"RCPT TO:<" + letter.recipient.encode() + b">", b"DATA"]
        exchange = exchange_of(client, commands, seconds=COMMAND_SECONDS)
        try:
            reply = await exchange.reply()
        except ConnectionError:
            if not line.reused:
                raise
        else:
            if reply.code < 300:
                line.dirty = True
                if not content.isascii() and not client.supports_extension("8bitmime"):
                    EIGHT_BIT.inc()
                return exchange
            if reply.code != CLOSING or not line.reused:
                await exchange.end()
                return judged(reply.code, reply.message, to_mail=True)
        # It says nothing about the upstream: many close what has been idle, or has carried its share.
        if (trouble := await line.renew()) is not None:
            return trouble


def _unfit(client: aiosmtplib.SMTP, letter: Letter, octets: int) -> Verdict | None:
    """Return the verdict that follows from what the upstream said it takes."""
    addresses_ascii = letter.sender.isascii() and letter.recipient.isascii()
    if not addresses_ascii and not client.supports_extension("smtputf8"):
        return Verdict(code=553, text="5.6.7 The upstream does not take addresses outside ASCII")
    largest = client.esmtp_extensions.get("size", "").strip()
    # RFC 1870 3: without a number, or with 0, there is no fixed limit.
    if largest.isascii() and largest.isdigit() and 0 < int(largest) < octets:
        return Verdict(code=552, text=f"5.3.4 The upstream takes messages of up to {int(largest)} octets")
    return None


def _mail(client: aiosmtplib.SMTP, letter: Letter, content: bytes) -> bytes:
    words = [b"MAIL FROM:<" + letter.sender.encode() + b">"]
    if client.supports_extension("size"):
        words.append(b"SIZE=%d" % len(content))
    if client.supports_extension("8bitmime") and not content.isascii():
        words.append(b"BODY=8BITMIME")
    if letter.smtputf8 and client.supports_extension("smtputf8"):
        words.append(b"SMTPUTF8")
    return b" ".join(words)


async def _send_content(client: aiosmtplib.SMTP, content: bytes) -> Awaitable[aiosmtplib.SMTPResponse]:
    """Write *content* with its final dot and return the reply to come."""
    protocol = client.protocol
    if protocol is None:
        raise aiosmtplib.SMTPServerDisconnected("the connection is gone")
    # The library's own DATA cannot wait between 354 and the content, and does not say which of the two was refused.
    protocol._response_pending = True  # noqa: SLF001 - its execute_command does the same before each write
    if len(content) <= SMALL:
        protocol.write(stuffed(content))
        return protocol.read_response(timeout=None)
    reading = asyncio.create_task(protocol.read_response(timeout=None))
    reading.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        if not await _write(protocol, content, reading):
            # Its words count, if it said some; the rest of the content can only be kept back by hanging up.
            await asyncio.wait({reading}, timeout=COMMAND_SECONDS)
            client.close()
    except BaseException:
        reading.cancel()
        raise
    return reading


async def _write(protocol: SMTPProtocol, content: bytes, reading: asyncio.Task[aiosmtplib.SMTPResponse]) -> bool:
    """Write as fast as the upstream takes it; false when it answered, or was gone, before the end."""
    for piece in pieces(content):
        if reading.done():
            return False
        try:
            protocol.write(piece)
        except aiosmtplib.SMTPServerDisconnected:
            return False
        taken = asyncio.ensure_future(protocol._drain_helper())  # noqa: SLF001 - the library has no other drain
        try:
            done, _ = await asyncio.wait({taken, reading}, timeout=BLOCK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()
        if not done:
            raise TimeoutError
        if taken not in done or taken.exception() is not None:
            return False
    return True


def stuffed(content: bytes) -> bytes:
    """Return *content* as it follows a 354, in one piece."""
    return b"".join(pieces(content))
