"""Speak SMTP to the real upstream over pooled connections.

What comes back is a verdict (a 250, or a 5xx to MAIL, RCPT or the final dot) or trouble (everything else: refused
connections, TLS, AUTH, 4xx, a time-out). Trouble never ends a message; it is tried again.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiosmtplib
import msgspec
import structlog
from aiosmtplib.protocol import SMTPProtocol
from prometheus_client import Counter, Gauge

from relay.rendering import BUDGET, SMALL, Share, pieces
from relay.upstream_address import UpstreamAddress

log = structlog.get_logger()

ATTEMPTS = Counter("outrider_upstream_attempts_total", "Messages offered to the upstream, by outcome.", ["outcome"])
CONNECTIONS = Gauge("outrider_upstream_connections", "Open connections to the upstream.", multiprocess_mode="livesum")

#: Seconds to connect and greet; to wait for the reply to a command; for a block of content to be taken
#: (RFC 5321 4.5.3.2.5); to wait for the reply to the final dot (4.5.3.2.6 asks for ten minutes, since a dot without
#: an answer may be a second copy).
CONNECT_SECONDS, COMMAND_SECONDS, BLOCK_SECONDS, DOT_SECONDS = 15.0, 60.0, 180.0, 600.0

# Seconds that an upstream has to answer QUIT.
_QUIT_SECONDS = 5.0

# A 5xx that speaks of us, not of the message (RFC 4954 6, RFC 5321 3.8): trouble wherever it is said.
_NEVER_A_VERDICT = frozenset({421, 454, 530, 534, 535, 538})


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message, ready to leave. It is rendered when a connection is at hand, not before."""

    key: str
    sender: str
    recipient: str
    smtputf8: bool
    #: Octets of the submitted content, about what rendering gives.
    size: int = 0
    #: Called in a thread when the letter is large.
    render: Callable[[], bytes]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream decided: a 2xx, or a permanent refusal."""

    code: int
    text: str

    @property
    def accepted(self) -> bool:
        """The upstream has the message."""
        return self.code < 300

    def __str__(self) -> str:
        """Return the reply as it is kept."""
        return f"{self.code} {self.text}"[:1000]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream did not decide: try again."""

    #: One or two words for metrics and logs: `connect`, `tls`, `auth`, `reply`, `timeout`, `lost`.
    reason: str
    #: What it said, when it said something.
    reply: str | None = None
    #: The final dot was out, so it may have the message.
    doubtful: bool = False


Outcome = Verdict | Trouble
BeforeDot = Callable[[], Awaitable[None]]


class _Line:
    """One connection with what the pool must know of it."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self.client = client
        self.opened = time.monotonic()
        self.used = self.opened
        self.messages = 0


class SmtpUpstream:
    """A pool of connections to one upstream; at most *connections* at once, each for a while and some messages."""

    def __init__(
        self,
        address: UpstreamAddress,
        *,
        hostname: str,
        connections: int = 20,
        max_messages: int = 200,
        max_seconds: float = 300.0,
        idle_seconds: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._hostname = hostname
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Line] = []
        self._partings: set[asyncio.Task[None]] = set()
        self._max_messages = max_messages
        self._max_seconds = max_seconds
        self._idle_seconds = idle_seconds
        self._tls = tls

    @property
    def name(self) -> str:
        """The upstream's name in the ledger and in logs."""
        return self._address.name

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Offer *letter*; *before_dot* is awaited after the upstream said 354 and before a byte of content leaves."""
        doubtful = False

        async def mark() -> None:
            nonlocal doubtful
            await before_dot()
            doubtful = True

        outcome: Outcome
        try:
            # Its room first: a large letter that waits for some keeps no connection from the others.
            async with BUDGET.share(letter.size) as share, self._line() as line:
                outcome = await _converse(line.client, letter, mark, share)
        except aiosmtplib.SMTPAuthenticationError as error:
            outcome = Trouble(reason="auth", reply=f"{error.code} {error.message}")
        except aiosmtplib.SMTPResponseException as error:
            outcome = Trouble(reason="reply", reply=f"{error.code} {error.message}", doubtful=doubtful)
        except (aiosmtplib.SMTPTimeoutError, TimeoutError):
            outcome = Trouble(reason="timeout", doubtful=doubtful)
        except ssl.SSLError:
            outcome = Trouble(reason="tls", doubtful=doubtful)
        except (aiosmtplib.SMTPConnectError, OSError) as error:
            reason = "tls" if isinstance(error.__cause__, ssl.SSLError) else "lost" if doubtful else "connect"
            outcome = Trouble(reason=reason, doubtful=doubtful)
        except aiosmtplib.SMTPException as error:
            reason = "tls" if "STARTTLS" in str(error).upper() else "lost"
            outcome = Trouble(reason=reason, doubtful=doubtful)
        ATTEMPTS.labels(label_of(outcome)).inc()
        return outcome

    async def close(self) -> None:
        """Say QUIT on every idle connection, and wait until each is closed."""
        while self._idle:
            self._part(self._idle.pop())
        if self._partings:
            await asyncio.wait(self._partings)

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator[_Line]:
        async with self._slots:
            line = await self._take()
            try:
                yield line
            except BaseException:
                # Whatever broke the conversation, its state is unknown.
                _cut(line)
                raise
            line.messages += 1
            line.used = time.monotonic()
            if line.client.is_connected and self._is_fresh(line):
                self._idle.append(line)
            else:
                self._part(line)

    def _part(self, line: _Line) -> None:
        """Hang up in the background: the verdict does not wait for an answer to QUIT."""
        task = asyncio.create_task(_take_leave(line))
        self._partings.add(task)
        task.add_done_callback(self._partings.discard)

    def _is_fresh(self, line: _Line) -> bool:
        return line.messages < self._max_messages and time.monotonic() - line.opened < self._max_seconds

    async def _take(self) -> _Line:
        while self._idle:
            line = self._idle.pop()
            if time.monotonic() - line.used > self._idle_seconds or not line.client.is_connected:
                _cut(line)
                continue
            try:
                if (await line.client.execute_command(b"RSET", timeout=COMMAND_SECONDS)).code == 250:
                    return line
            except (aiosmtplib.SMTPException, OSError):
                pass
            # An idle connection that the upstream has closed says nothing about the upstream: open another.
            _cut(line)
        return await self._open()

    async def _open(self) -> _Line:
        address = self._address
        client = aiosmtplib.SMTP(
            hostname=address.host,
            port=address.port,
            local_hostname=self._hostname,
            timeout=CONNECT_SECONDS,
            use_tls=address.scheme == "smtps",
            start_tls={"required": True, "off": False, "opportunistic": None}[address.starttls]
            if address.scheme == "smtp"
            else False,
            tls_context=self._context(),
            username=address.user or None,
            password=address.password or None,
        )
        await client.connect()
        CONNECTIONS.inc()
        return _Line(client)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._address.scheme == "smtp" and self._address.starttls == "opportunistic":
                # Better than clear text, and all that "opportunistic" promises (RFC 7435); `required` verifies.
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
        return self._tls


async def _converse(client: aiosmtplib.SMTP, letter: Letter, before_dot: BeforeDot, share: Share) -> Outcome:
    addresses_ascii = letter.sender.isascii() and letter.recipient.isascii()
    if not addresses_ascii and not client.supports_extension("smtputf8"):
        return Verdict(code=553, text="5.6.7 The upstream does not take addresses outside ASCII")
    said = await _offer(client, letter, before_dot, share)
    # The content has left, and no frame holds it any more.
    share.give_back()
    if isinstance(said, Verdict | Trouble):
        return said
    async with asyncio.timeout(DOT_SECONDS):
        reply = await said
    return _judged(reply.code, reply.message)


async def _offer(
    client: aiosmtplib.SMTP, letter: Letter, before_dot: BeforeDot, share: Share
) -> Outcome | Awaitable[aiosmtplib.SMTPResponse]:
    """Offer *letter* up to its final dot; return the reply to come, or what ended it before."""
    content = await share.render(letter.render)
    options: list[bytes] = []
    if client.supports_extension("size"):
        options.append(b"SIZE=%d" % len(content))
    if client.supports_extension("8bitmime") and not content.isascii():
        options.append(b"BODY=8BITMIME")
    if letter.smtputf8 and client.supports_extension("smtputf8"):
        options.append(b"SMTPUTF8")
    sender = b"FROM:<" + letter.sender.encode() + b">"
    reply = await client.execute_command(b"MAIL", sender, *options, timeout=COMMAND_SECONDS)
    if reply.code >= 300:
        return _judged(reply.code, reply.message)
    recipient = b"TO:<" + letter.recipient.encode() + b">"
    reply = await client.execute_command(b"RCPT", recipient, timeout=COMMAND_SECONDS)
    if reply.code >= 300:
        return _judged(reply.code, reply.message)
    reply = await client.execute_command(b"DATA", timeout=COMMAND_SECONDS)
    if reply.code != 354:
        return Trouble(reason="reply", reply=f"{reply.code} {reply.message}")
    await before_dot()
    return await _send_content(client, content)


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


def _judged(code: int, text: str) -> Outcome:
    if 200 <= code < 300 or (500 <= code < 600 and code not in _NEVER_A_VERDICT):
        return Verdict(code=code, text=text)
    return Trouble(reason="reply", reply=f"{code} {text}")


def label_of(outcome: Outcome) -> str:
    """Return what metrics call *outcome*: `accepted`, `refused`, or `trouble_` and its reason."""
    match outcome:
        case Verdict():
            return "accepted" if outcome.accepted else "refused"
        case Trouble():
            return f"trouble_{outcome.reason}"


async def _take_leave(line: _Line) -> None:
    try:
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await line.client.quit(timeout=_QUIT_SECONDS)
    finally:
        _cut(line)


def _cut(line: _Line) -> None:
    CONNECTIONS.dec()
    line.client.close()
